package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/ledger"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/sys/fault"
	"tourniquet.dev/tourniquet/internal/trust"
)

// How long an open intent may fail with retryable errors before the gate gives it up: a group soon, since its other steps
// stand half done; a single step as long as its workflow waits for it.
const (
	GroupPatience = 5 * time.Minute
	StepPatience  = 15 * time.Minute
)

// openAgain is how often Tend goes on with an open intent: whoever throttles us is not asked each second.
const openAgain = 15 * time.Second

// Policy is what a gate judges by. It is read anew for every judgement, so that a reload takes effect at once.
type Policy struct {
	Trust *trust.File
	Books []authz.Book
}

// GateOptions are what a gate needs. All but Broken are required.
type GateOptions struct {
	// By is the role that signs receipts, such as contain-aws.
	By      trust.Role
	Policy  func() Policy
	Signer  *authz.Signer
	Journal Journal
	Store   Lookup
	Actions map[plan.Action]Action
	// Prove returns the account or cluster that this process stands in, asked of the system itself.
	Prove func(ctx context.Context) (string, error)
	Now   func() time.Time
	Log   *slog.Logger
	// Broken is told when a hold was found undone; may be nil.
	Broken func(ctx context.Context, in plan.Intent, by string, reasserted bool)
	// Ended is told when the gate's own clock ended a step; may be nil.
	Ended func(ctx context.Context, in plan.Intent, receipt authz.Envelope)
}

// A Gate stands between Temporal and every effect of one enforcer: it loads the plan by digest, judges it with its own
// trust file, playbooks, memory and clock, records the intent, and only then calls the Action. Being scheduled is not
// permission. Activities may run concurrently; effects are made one at a time.
type Gate struct {
	o   GateOptions
	mu  sync.Mutex // held over a whole step: one enforcer makes one change at a time
	mem *memory
}

// NewGate reads the journal back and returns a gate. It makes no effect: see Resume.
func NewGate(o GateOptions) (*Gate, error) {
	mem := newMemory()
	if err := o.Journal.Range(0, func(_ int64, e ledger.Entry) error { return mem.replay(e.Kind, e.Body) }); err != nil {
		return nil, fmt.Errorf("read journal of %s: %w", o.By, err)
	}
	g := &Gate{o: o, mem: mem}
	for _, b := range o.Policy().Books {
		if err := g.saw(b); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// saw records the highest version of a playbook, so that an older one never again pre-authorizes anything.
func (g *Gate) saw(b authz.Book) error {
	if b.Playbook.Version <= g.mem.highest[b.Playbook.Playbook] {
		return nil
	}
	return g.record(entryPlaybook, playbookSeen{Name: b.Playbook.Playbook, Version: b.Playbook.Version})
}

// ApplyStep applies one step of a stored plan. The input only names it.
func (g *Gate) ApplyStep(ctx context.Context, in StepInput) (StepOutput, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	out, err := g.apply(ctx, in)
	if err != nil {
		return out, asTemporal(fmt.Errorf("apply step %d of plan %.19s: %w", in.Step, in.Plan, err))
	}
	return out, nil
}

func (g *Gate) apply(ctx context.Context, in StepInput) (StepOutput, error) {
	rec := g.mem.steps[plan.Key(in.IncidentID, in.Plan, in.Step, 0)]
	switch {
	case rec != nil && rec.ended():
		return StepOutput{}, g.refused(in, authz.VerbApply, &authz.Refusal{Code: authz.CodeSpent, Why: "this step was ended before; it needs a new plan"})
	case rec != nil && rec.receipt != nil:
		return rec.output("was applied before"), nil
	case rec == nil:
		var err error
		if rec, err = g.intend(ctx, in); err != nil {
			return StepOutput{}, err
		}
	}
	return g.carryOut(ctx, rec)
}

// intend judges the step on what the system shows now and writes the intent. No record, no effect.
func (g *Gate) intend(ctx context.Context, in StepInput) (*record, error) {
	p, envelopes, err := g.load(ctx, in)
	if err != nil {
		return nil, err
	}
	step := p.Steps[in.Step]
	action, ok := g.o.Actions[step.Action]
	if !ok {
		return nil, fmt.Errorf("%s is not an action of %s: %w", step.Action, g.o.By, ErrRefused)
	}
	standing, err := g.o.Prove(ctx)
	if err != nil {
		return nil, fmt.Errorf("prove where we stand: %w", err)
	}
	targets, err := action.Expand(ctx, step)
	if err != nil {
		return nil, fmt.Errorf("find targets of %s: %w", step.Action, err)
	}
	policy, now := g.o.Policy(), g.now()
	fault.Point("authorize.verify/before")
	verdict, err := authz.Judge(policy.Trust, policy.Books, p, authz.Request{Verb: authz.VerbApply, Step: in.Step, Found: targets, Standing: standing}, envelopes, g.mem.spent(nil), now)
	if err != nil {
		return nil, g.refused(in, authz.VerbApply, err)
	}
	intent := plan.Intent{Key: plan.Key(in.IncidentID, in.Plan, in.Step, 0), IncidentID: p.IncidentID, PlanDigest: in.Plan, Step: step,
		Targets: targets, At: now, Ends: now.Add(step.Duration()), Authority: verdict.Authority, Authorities: verdict.Envelopes}
	if intent.PreImages, err = g.capture(ctx, action, step, targets); err != nil {
		if errors.Is(err, ErrConflict) {
			err = errors.Join(err, g.failGroup(in.IncidentID, in.Plan, step.Group))
		}
		return nil, err
	}
	fault.Point("ledger.intent/before")
	body := intentWritten{Intent: intent, Playbook: p.Playbook.Name, Unattended: verdict.Unattended, Nonces: verdict.Nonces, Decisions: in.Decisions}
	if err := g.record(entryIntent, body); err != nil {
		return nil, err
	}
	fault.Point("ledger.intent/after")
	return g.mem.steps[intent.Key], nil
}

// capture takes the live pre-images and compares them with what the plan saw. A target that an open hold of the same
// action covers already keeps that hold's pre-image, so that the last release restores the true first state.
func (g *Gate) capture(ctx context.Context, action Action, step plan.Step, targets []plan.Target) ([]plan.PreImage, error) {
	images := make([]plan.PreImage, 0, len(targets))
	for _, t := range targets {
		if first, ok := g.mem.firstImage(step.Action, t); ok {
			images = append(images, first)
			continue
		}
		img, err := action.Capture(ctx, step, t)
		if err != nil {
			return nil, fmt.Errorf("capture %s: %w", t, err)
		}
		images = append(images, img)
	}
	if step.PreImage != "" && step.PreImage != ImagesDigest(images) {
		return nil, fmt.Errorf("%s changed since the plan was made: %w", step.Target, ErrConflict)
	}
	return images, nil
}

// ImagesDigest names the pre-images of a step's targets together, as a plan's step does.
func ImagesDigest(images []plan.PreImage) string {
	var b strings.Builder
	for _, img := range images {
		fmt.Fprintf(&b, "%s\x00%s\x00%s\n", img.Target.Kind, img.Target.UID, img.Digest)
	}
	return plan.DigestOf([]byte(b.String()))
}

// carryOut calls the action for an intent that is on record and writes what became of it. After the step's end nothing is
// begun, and what may have been begun comes off; long after the intent only what is half done is finished.
func (g *Gate) carryOut(ctx context.Context, rec *record) (StepOutput, error) {
	in := rec.intent
	action, ok := g.o.Actions[in.Step.Action]
	if !ok {
		return StepOutput{}, fmt.Errorf("%s is not an action of %s: %w", in.Step.Action, g.o.By, ErrRefused)
	}
	if g.due(rec) {
		_, err := g.endUnattended(ctx, rec)
		return StepOutput{}, errors.Join(fmt.Errorf("its time was over before it was applied: %w", ErrRefused), err)
	}
	late := g.now().Sub(in.At) > patience(in)
	if late && len(g.standing(ctx, action, rec)) == 0 {
		return StepOutput{}, g.giveUp(ctx, action, rec, fmt.Errorf("not begun within %s: %w", patience(in), ErrRefused))
	}
	rec.tried = g.now()
	fault.Point("apply.call/before")
	receipt, err := action.Apply(ctx, in)
	fault.Point("apply.call/after")
	switch {
	case err == nil:
		receipt.Phase = plan.Applied
		if err := g.conclude(rec, receipt); err != nil {
			return StepOutput{}, err
		}
		return rec.output("applied, " + in.Authority), nil
	case errors.Is(err, ErrRefused) || errors.Is(err, ErrConflict) || late:
		return StepOutput{}, g.giveUp(ctx, action, rec, err)
	}
	return StepOutput{}, fmt.Errorf("%s: %w", in.Step.Action, err) // the intent stays open: tried again, or resumed
}

func patience(in plan.Intent) time.Duration {
	if in.Step.Group != 0 {
		return GroupPatience
	}
	return StepPatience
}

// giveUp puts a failed step on record, with what of it may stand: that is held like any other cut until its end.
func (g *Gate) giveUp(ctx context.Context, action Action, rec *record, cause error) error {
	in := rec.intent
	failed := plan.Receipt{Phase: plan.Failed, Effects: g.standing(ctx, action, rec), Detail: map[string]string{"error": clip(cause.Error())}}
	if len(failed.Effects) > 0 {
		cause = fmt.Errorf("%w: %w", ErrStanding, cause)
	}
	return errors.Join(cause, g.conclude(rec, failed), g.failGroup(in.IncidentID, in.PlanDigest, in.Step.Group))
}

// standing reads back which targets are not as they were before the step. What cannot be read may stand; what is gone,
// or is another hold's, does not.
func (g *Gate) standing(ctx context.Context, action Action, rec *record) []plan.Effect {
	var out []plan.Effect
	for i, t := range rec.intent.Targets {
		if g.mem.heldElsewhere(rec, t) {
			continue
		}
		now, err := action.Capture(ctx, rec.intent.Step, t)
		switch {
		case errors.Is(err, ErrConflict):
		case err != nil:
			out = append(out, plan.Effect{Target: t, Did: "may stand: it could not be read back"})
		case now.Digest != rec.intent.PreImages[i].Digest:
			out = append(out, plan.Effect{Target: t, Did: "may stand: it is not as it was before"})
		}
	}
	return out
}

// conclude signs a receipt and writes it into the journal.
func (g *Gate) conclude(rec *record, r plan.Receipt) error {
	in := rec.intent
	r.V, r.By, r.Key, r.IncidentID, r.PlanDigest = 1, string(g.o.By), in.Key, in.IncidentID, in.PlanDigest
	r.Step, r.Action, r.At, r.Ends = in.Step.Index, in.Step.Action, g.now(), rec.ends()
	if r.Authority == "" {
		r.Authority = in.Authority
	}
	env, err := g.o.Signer.Sign(authz.TypeReceipt, r)
	if err != nil {
		return fmt.Errorf("sign receipt: %w", err)
	}
	fault.Point("ledger.result/before")
	if err := g.record(entryReceipt, receiptWritten{Receipt: r, Envelope: env}); err != nil {
		return err
	}
	fault.Point("ledger.result/after")
	return nil
}

// failGroup puts on record that an atomic group failed: the one reason for which steps come off without a person or
// the clock. It is only reached after the judge allowed the failing step.
func (g *Gate) failGroup(incidentID, digest string, group int) error {
	if group == 0 {
		return nil
	}
	return g.record(entryGroupFailed, groupFailed{IncidentID: incidentID, Plan: digest, Group: group})
}

// load reads the plan and everything signed that it rests on: detections from the store, decisions from the input.
func (g *Gate) load(ctx context.Context, in StepInput) (*plan.Plan, []authz.Envelope, error) {
	if len(in.Decisions) > 32 {
		return nil, nil, fmt.Errorf("%d decisions, at most 32: %w", len(in.Decisions), ErrRefused)
	}
	p, err := LoadPlan(ctx, g.o.Store, in.Plan)
	if err != nil {
		return nil, nil, err
	}
	if p.IncidentID != in.IncidentID || in.Step < 0 || in.Step >= len(p.Steps) {
		return nil, nil, fmt.Errorf("plan %.19s has no step %d for incident %.20s: %w", in.Plan, in.Step, in.IncidentID, ErrRefused)
	}
	envelopes, err := LoadEnvelopes(ctx, g.o.Store, p.Detections)
	if err != nil {
		return nil, nil, err
	}
	return p, append(envelopes, in.Decisions...), nil
}

// LoadPlan reads a plan by its digest and checks that the bytes are that plan's.
func LoadPlan(ctx context.Context, store Lookup, digest string) (*plan.Plan, error) {
	if !plan.ValidDigest(digest) {
		return nil, fmt.Errorf("plan: %.80q is not a digest: %w", digest, ErrRefused)
	}
	data, err := store.Get(ctx, digest)
	if err != nil {
		return nil, fmt.Errorf("load plan %.19s: %w", digest, err)
	}
	if plan.DigestOf(data) != digest {
		return nil, fmt.Errorf("plan %.19s: the store's bytes are others: %w", digest, ErrRefused)
	}
	p, err := plan.Decode(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, ErrRefused)
	}
	return p, nil
}

// LoadEnvelopes reads signed statements by their digests.
func LoadEnvelopes(ctx context.Context, store Lookup, digests []string) ([]authz.Envelope, error) {
	out := make([]authz.Envelope, 0, len(digests))
	for _, d := range digests {
		data, err := store.Get(ctx, d)
		if err != nil {
			return nil, fmt.Errorf("load %.19s: %w", d, err)
		}
		e, err := authz.DecodeEnvelope(data)
		if err != nil {
			return nil, fmt.Errorf("%.19s: %w: %w", d, err, ErrRefused)
		}
		out = append(out, e)
	}
	return out, nil
}

// refused puts a refusal on record and returns it.
func (g *Gate) refused(in StepInput, verb authz.Verb, err error) error {
	code := authz.Code("error")
	var r *authz.Refusal
	if errors.As(err, &r) {
		code = r.Code
	}
	g.o.Log.Warn("refused", "incident_id", in.IncidentID, "plan_digest", in.Plan, "step", in.Step, "verb", verb, "code", code)
	return errors.Join(err, g.record(entryRefusal, refusalWritten{IncidentID: in.IncidentID, Plan: in.Plan, Step: in.Step, Verb: verb, Code: code}))
}

func (g *Gate) record(kind string, body any) error {
	raw, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("journal %s: %w", kind, err)
	}
	if _, err := g.o.Journal.Append(kind, json.RawMessage(raw)); err != nil {
		return fmt.Errorf("journal %s: %w", kind, err)
	}
	return g.mem.replay(kind, raw)
}

func (g *Gate) now() time.Time { return g.o.Now().UTC().Truncate(time.Millisecond) }

func clip(s string) string {
	if len(s) > 500 {
		return s[:500]
	}
	return s
}
