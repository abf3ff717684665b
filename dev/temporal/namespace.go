package temporal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	sdklog "go.temporal.io/sdk/log"
)

// prepareNamespace waits until the namespace can be listed by all of the search attributes, after adding the missing ones:
// those of a namespace that exists are not changed by making it again.
func prepareNamespace(ctx context.Context, frontend string, opts Options) error {
	c, err := client.NewLazyClient(client.Options{
		HostPort: frontend, Namespace: opts.Namespace,
		Logger: sdklog.NewStructuredLogger(slog.New(slog.DiscardHandler)),
	})
	if err != nil {
		return fmt.Errorf("make client: %w", err)
	}
	defer c.Close()
	added := false
	return eventually(ctx, func() error {
		if !added {
			if err := addSearchAttributes(ctx, c, opts); err != nil {
				return err
			}
			added = true
		}
		_, err := c.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{PageSize: 1, Query: everyAttribute(opts.SearchAttributes)})
		if err != nil {
			return fmt.Errorf("list workflows of namespace %s: %w", opts.Namespace, err)
		}
		return nil
	})
}

// addSearchAttributes adds those that the namespace lacks. One that has another type there is an error.
func addSearchAttributes(ctx context.Context, c client.Client, opts Options) error {
	have, err := c.OperatorService().ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: opts.Namespace})
	if err != nil {
		return fmt.Errorf("list search attributes: %w", err)
	}
	missing := map[string]enumspb.IndexedValueType{}
	for name, kind := range opts.SearchAttributes {
		switch is, ok := have.GetCustomAttributes()[name]; {
		case !ok:
			missing[name] = kind
		case is != kind:
			return permanent{fmt.Errorf("search attribute %s is %s in the database and %s here", name, is, kind)}
		}
	}
	if len(missing) == 0 {
		return nil
	}
	_, err = c.OperatorService().AddSearchAttributes(ctx, &operatorservice.AddSearchAttributesRequest{
		Namespace: opts.Namespace, SearchAttributes: missing,
	})
	if err != nil {
		return fmt.Errorf("add search attributes: %w", err)
	}
	return nil
}

// everyAttribute is a query that no workflow matches and that the server refuses while it does not know an attribute.
func everyAttribute(attributes map[string]enumspb.IndexedValueType) string {
	parts := []string{"WorkflowId = ''"}
	for _, name := range slices.Sorted(maps.Keys(attributes)) {
		parts = append(parts, "`"+name+"` IS NULL")
	}
	return strings.Join(parts, " AND ")
}

// permanent is an error that trying again does not change.
type permanent struct{ error }

// eventually tries until it succeeds, or ctx ends.
func eventually(ctx context.Context, try func() error) error {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		err := try()
		if final := (permanent{}); err == nil || errors.As(err, &final) {
			return final.error
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (last answer: %w)", context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}
