package activities

import (
	"context"
	"fmt"
	"time"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/trust"
)

// NodeVerifier is a Reader that can also weigh a node's signed receipts.
type NodeVerifier interface {
	VerifyWithNode(ctx context.Context, in plan.Intent, r plan.Receipt, node []plan.Receipt) (plan.Observation, error)
}

// ObserverOptions are what an observer needs.
type ObserverOptions struct {
	Trust   func() *trust.File
	Signer  *authz.Signer
	Readers map[plan.Action]Reader
	Now     func() time.Time
}

// An Observer runs in the read-only role: it looks at the effect of a step and signs what it saw.
type Observer struct{ o ObserverOptions }

// NewObserver returns an observer.
func NewObserver(o ObserverOptions) *Observer { return &Observer{o} }

// VerifyStep observes the effect of an applied step, with other credentials than those that made it.
func (o *Observer) VerifyStep(ctx context.Context, in VerifyInput) (VerifyOutput, error) {
	out, err := o.verify(ctx, in)
	return out, asTemporal(err)
}

func (o *Observer) verify(ctx context.Context, in VerifyInput) (VerifyOutput, error) {
	t := o.o.Trust()
	receipt, err := authz.OpenReceipt(t, in.Receipt)
	if err != nil {
		return VerifyOutput{}, fmt.Errorf("%w: %w", err, ErrRefused)
	}
	if receipt.Key != in.Intent.Key {
		return VerifyOutput{}, fmt.Errorf("receipt is for intent %.16s, not %.16s: %w", receipt.Key, in.Intent.Key, ErrRefused)
	}
	reader, ok := o.o.Readers[in.Intent.Step.Action]
	if !ok {
		return VerifyOutput{}, fmt.Errorf("nothing reads %s: %w", in.Intent.Step.Action, ErrRefused)
	}
	observation, err := o.observe(ctx, t, reader, in, receipt)
	if err != nil {
		return VerifyOutput{}, fmt.Errorf("observe %s: %w", in.Intent.Step.Action, err)
	}
	observation.V, observation.Key, observation.IncidentID, observation.PlanDigest = 1, in.Intent.Key, in.Intent.IncidentID, in.Intent.PlanDigest
	observation.Step, observation.Action, observation.At = in.Intent.Step.Index, in.Intent.Step.Action, o.o.Now().UTC().Truncate(time.Millisecond)
	env, err := o.o.Signer.Sign(authz.TypeObservation, observation)
	if err != nil {
		return VerifyOutput{}, fmt.Errorf("sign observation: %w", err)
	}
	return VerifyOutput{Observation: env, Finding: observation.Finding, Witnesses: observation.Witnesses}, nil
}

func (o *Observer) observe(ctx context.Context, t *trust.File, reader Reader, in VerifyInput, receipt plan.Receipt) (plan.Observation, error) {
	nv, ok := reader.(NodeVerifier)
	if !ok {
		return reader.Verify(ctx, in.Intent, receipt)
	}
	var node []plan.Receipt
	for _, e := range in.NodeReceipts {
		r, err := authz.OpenReceipt(t, e)
		if err == nil && e.Certificate != nil && r.Key == in.Intent.Key {
			node = append(node, r)
		}
	}
	return nv.VerifyWithNode(ctx, in.Intent, receipt, node)
}
