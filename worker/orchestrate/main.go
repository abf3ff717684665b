// Command orchestrate runs the workflows and the pure activities: triage, assessment, plans, verdicts on decisions,
// reports and the archive of histories. It has no outside system and signs nothing. With codec.listen set it also
// serves the codec to the Temporal Web UI, on this machine only.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"go.temporal.io/sdk/worker"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/activities/archive"
	"tourniquet.dev/tourniquet/internal/sys/temporalclient"
	"tourniquet.dev/tourniquet/worker/role"
	"tourniquet.dev/tourniquet/workflows"
)

func main() {
	c := &config{}
	w := role.Worker{Name: "orchestrate", Settings: c, Common: &c.Config, Start: c.start}
	os.Exit(w.Run(os.Args[1:], os.Stdout, os.Stderr))
}

func (c *config) start(ctx context.Context, e *role.Env) ([]worker.Worker, map[string]any, func() error, error) {
	blobs, err := e.Store()
	if err != nil {
		return nil, nil, nil, err
	}
	w := e.Worker(workflows.QueueOrchestrate)
	w.RegisterWorkflow(workflows.Incident)
	w.RegisterWorkflow(workflows.Containment)
	w.RegisterWorkflow(workflows.Archive)
	w.RegisterActivity(activities.NewAssessment(activities.AssessmentOptions{Policy: e.Policy, Store: blobs, Now: time.Now}))
	w.RegisterActivity(activities.NewArchiving(archive.New(e.Client), blobs))
	codec, stop, err := c.serveCodec(ctx, e)
	if err != nil {
		return nil, nil, nil, err
	}
	return []worker.Worker{w}, map[string]any{"codec": codec}, stop, nil
}

// serveCodec lets the Web UI decode payloads; without an address it serves nothing.
func (c *config) serveCodec(ctx context.Context, e *role.Env) (url string, stop func() error, err error) {
	if c.Codec.Listen == "" {
		return "", nil, nil
	}
	h, err := temporalclient.CodecHandler(temporalclient.HandlerOptions{Ring: e.Ring, Origins: c.Codec.Origins})
	if err != nil {
		return "", nil, fmt.Errorf("codec: %w", err)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.Codec.Listen)
	if err != nil {
		return "", nil, fmt.Errorf("codec.listen: %w", err)
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			e.Log.Error("codec server ended", "err", err)
		}
	}()
	return "http://" + l.Addr().String(), s.Close, nil
}
