package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"tourniquet.dev/tourniquet/internal/sys/fault"
	"tourniquet.dev/tourniquet/internal/sys/temporalclient"
	"tourniquet.dev/tourniquet/starter/decide/relay"
	"tourniquet.dev/tourniquet/workflows"
)

var errNotConnected = errors.New("not connected to Temporal yet")

// temporal signals workflows and asks them for their state. decide starts without Temporal too: until it is reached,
// decisions wait in the ledger.
type temporal struct {
	client atomic.Pointer[client.Client]
}

// connect dials until it succeeds or ctx ends.
func (t *temporal) connect(ctx context.Context, c temporalConfig, log *slog.Logger) error {
	ring, err := temporalclient.LoadKeyRing(c.KeyRing)
	if err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("host name: %w", err)
	}
	conn, err := temporalclient.Dial(ctx, temporalclient.Options{Address: c.Address, Namespace: c.Namespace, Identity: "decide@" + host, Ring: ring, Logger: log,
		CertFile: c.Cert, KeyFile: c.Key, CAFile: c.CA, ServerName: c.ServerName, APIKeyFile: c.APIKey})
	if err != nil {
		return err
	}
	t.client.Store(&conn)
	log.Info("connected to Temporal", "address", c.Address)
	<-ctx.Done()
	conn.Close()
	return nil
}

// Send signals a decision. It is the only thing that decide ever sends to a workflow.
func (t *temporal) Send(ctx context.Context, workflowID string, d workflows.DecisionMade) error {
	c := t.client.Load()
	if c == nil {
		return errNotConnected
	}
	fault.Point("temporal.signal/before")
	if err := (*c).SignalWorkflow(ctx, workflowID, "", workflows.SignalDecisionMade, d); err != nil {
		return closed(err)
	}
	fault.Point("temporal.signal/after")
	return nil
}

// State asks a workflow where it stands.
func (t *temporal) State(ctx context.Context, workflowID string) (workflows.StateView, error) {
	var s workflows.StateView
	c := t.client.Load()
	if c == nil {
		return s, errNotConnected
	}
	v, err := (*c).QueryWorkflow(ctx, workflowID, "", workflows.QueryState)
	if err != nil {
		return s, closed(err)
	}
	if err := v.Get(&s); err != nil {
		return s, fmt.Errorf("state of %s: %w", workflowID, err)
	}
	return s, nil
}

func closed(err error) error {
	var gone *serviceerror.NotFound
	if errors.As(err, &gone) {
		return fmt.Errorf("%w: %w", relay.ErrClosed, err)
	}
	return err
}
