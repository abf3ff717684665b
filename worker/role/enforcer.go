package role

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/worker"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/sys/journal"
	"tourniquet.dev/tourniquet/internal/sys/keys"
	"tourniquet.dev/tourniquet/internal/trust"
	"tourniquet.dev/tourniquet/workflows"
)

// Enforcer configures one of the processes that make effects.
type Enforcer struct {
	Role    trust.Role
	Queue   string
	Key     string // path of its private key
	Journal string // folder of its journal
	// Standing names the account or cluster, for the journal's name.
	Standing string
	Prove    func(ctx context.Context) (string, error)
	Actions  func(*authz.Signer) map[plan.Action]activities.Action
	// Tend is how often open holds are looked after; 0 means a second.
	Tend time.Duration
}

// Start opens the journal, resumes what a crash left open, and returns the worker. The gate tends its holds by its own
// clock until ctx ends, with or without Temporal.
func (f Enforcer) Start(ctx context.Context, e *Env) ([]worker.Worker, func() error, error) {
	signer, err := keys.LoadSigner(f.Key)
	if err != nil {
		return nil, nil, err
	}
	if e.Trust().KeysOf(f.Role)[signer.KeyID()] == nil {
		return nil, nil, fmt.Errorf("key %s is not a %s key of the trust file", signer.KeyID(), f.Role)
	}
	if _, err := f.Prove(ctx); err != nil {
		return nil, nil, fmt.Errorf("prove where this enforcer stands: %w", err)
	}
	blobs, err := e.Reader()
	if err != nil {
		return nil, nil, err
	}
	j, err := journal.Open(journal.Options{Dir: f.Journal, Name: "tourniquet/" + string(f.Role) + "/" + f.Standing, Key: signer.Key()})
	if err != nil {
		return nil, nil, fmt.Errorf("open journal: %w", err)
	}
	gate, err := activities.NewGate(activities.GateOptions{By: f.Role, Policy: e.Policy, Signer: signer, Journal: j, Store: blobs, Actions: f.Actions(signer),
		Prove: f.Prove, Now: time.Now, Log: e.Log, Broken: f.broken(e)})
	if err != nil {
		return nil, nil, errors.Join(err, j.Close())
	}
	if err := gate.Resume(ctx); err != nil {
		e.Log.Error("not everything could be resumed; it is tried again", "err", err)
	}
	w := e.Worker(f.Queue)
	for _, a := range []any{gate.ApplyStep, gate.UndoStep, gate.RetireStep, gate.ExtendStep} {
		w.RegisterActivity(a)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := tend(ctx, e.Log, gate, j, f.Tend); err != nil {
			e.Fail(err)
		}
	}()
	return []worker.Worker{w}, func() error { <-done; return j.Close() }, nil
}

// tend looks after holds until ctx ends. A poisoned journal is an error: the process has to end, so that it is started
// again and reads what is true.
func tend(ctx context.Context, log *slog.Logger, gate *activities.Gate, j *journal.Journal, every time.Duration) error {
	if every == 0 {
		every = time.Second
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := j.Err(); err != nil {
			return fmt.Errorf("the journal cannot be written: nothing more can be done before a restart: %w", err)
		}
		tctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		if err := gate.Tend(tctx); err != nil && ctx.Err() == nil {
			log.Error("tend holds", "err", err)
		}
		cancel()
	}
}

// broken signals the containment of a hold that somebody undid.
func (f Enforcer) broken(e *Env) func(context.Context, plan.Intent, string, bool) {
	return func(ctx context.Context, in plan.Intent, by string, reasserted bool) {
		id := workflows.ContainmentWorkflowID(in.IncidentID, in.PlanDigest)
		err := e.Client.SignalWorkflow(ctx, id, "", workflows.SignalHoldBroken, workflows.HoldBroken{Step: in.Step.Index, By: by, Reasserted: reasserted})
		var gone *serviceerror.NotFound
		if err != nil && !errors.As(err, &gone) {
			e.Log.Error("signal hold-broken", "incident_id", in.IncidentID, "err", err)
		}
	}
}
