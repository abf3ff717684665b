// Package conformance is the one suite that every Action must pass: what the gate relies on, tried on a real system or
// its stand-in. It is called by tests only, once for each action, with a subject that tells how to set the action's
// world up, how to look at it from outside, and how to break it.
package conformance

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/trust"
)

// A Link is the way from the action to its system, which a test can break. Only requests that change something count.
type Link interface {
	// Writes is how many changes were asked for so far.
	Writes() int
	// Cut breaks the link at the n-th change from now, counted from 1, and for everything after it: as if the process
	// had been killed there. With applied, that change still reaches the system, unheard.
	Cut(n int, applied bool)
	// Lose loses one answer, that of the n-th change from now. Without applied, the change is lost as well.
	Lose(n int, applied bool)
	// Heal makes the link whole.
	Heal()
}

// A World is a fresh target with its action.
type World struct {
	Action activities.Action
	// Reader sees with the read-only role's credentials.
	Reader activities.Reader
	Step   plan.Step
	Link   Link
	// Snapshot is the system's own word on everything that the action may touch, not read by our code.
	Snapshot func(t *testing.T) any
	// Held says, by the system's own word, whether the cut stands.
	Held func(t *testing.T) bool
	// Lift makes the target what it was, as a third party would: the gate then re-asserts. Nil: nobody but us can.
	Lift func(t *testing.T)
	// Drift makes the target something that is neither its pre-image nor the cut. Nil: it has no third state.
	Drift func(t *testing.T)
	// Replace puts another object in the place of the target, under its name. Nil: names never recur there.
	Replace func(t *testing.T)
	// Settle lets pass what time the system needs before an effect can be verified. May be nil.
	Settle func(t *testing.T)
	// Patience is how long a call over a cut link is waited for: clients try again for long. What it cuts short is one more
	// crash, so that it may be small. 0: no limit.
	Patience time.Duration
	// Finding is what the read-only role must find of the applied step, once settled.
	Finding plan.Finding
}

// A Subject is one action under test. Make returns a new world each time; worlds do not touch each other.
type Subject struct {
	Make func(t *testing.T) World
	// Protected makes a world whose step reaches something that this trust file protects; the same step is in order
	// where nothing is protected.
	Protected func(t *testing.T) (World, trust.Protected)
}

// Run runs the suite.
func Run(t *testing.T, s Subject) {
	for name, try := range map[string]func(*testing.T, Subject){
		"applied and undone leaves no trace":           roundTrip,
		"applied twice is one effect":                  applyTwice,
		"undone twice is one undo":                     undoTwice,
		"undone before applied changes nothing":        undoFirst,
		"cut at each change, it is resumed":            resumed,
		"cut at each change, it is undone":             undoneHalfway,
		"cut at each change of the undo, it goes on":   undoResumed,
		"a lost answer is read back":                   lostAnswer,
		"a third party's change is a conflict":         drift,
		"another object of the same name is untouched": replaced,
		"lifted by someone else, it is put back":       reasserted,
		"the read-only role sees what is there":        observed,
		"the state after it is what a watch captures":  watched,
		"what is protected is found and refused":       protected,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			try(t, s)
		})
	}
}

// IncidentID is the incident of all intents here.
const IncidentID = "iaaaaaaaaaaaa"

// PlanDigest is the plan of all intents here.
var PlanDigest = plan.DigestOf([]byte("conformance"))

// Intend does what the gate does before an effect: expand, capture, fix.
func Intend(t *testing.T, w World) plan.Intent {
	t.Helper()
	targets, err := w.Action.Expand(t.Context(), w.Step)
	if err != nil {
		t.Fatal("expand:", err)
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	in := plan.Intent{Key: plan.Key(IncidentID, PlanDigest, w.Step.Index, 0), IncidentID: IncidentID, PlanDigest: PlanDigest, Step: w.Step,
		Targets: targets, At: now, Ends: now.Add(w.Step.Duration()), Authority: "conformance", Authorities: []string{PlanDigest}}
	for _, target := range targets {
		image, err := w.Action.Capture(t.Context(), w.Step, target)
		if err != nil {
			t.Fatal("capture:", err)
		}
		in.PreImages = append(in.PreImages, image)
	}
	return in
}

func apply(t *testing.T, w World, in plan.Intent) plan.Receipt {
	t.Helper()
	r, err := w.Action.Apply(t.Context(), in)
	if err != nil {
		t.Fatal("apply:", err)
	}
	if r.Phase != plan.Applied || r.Key != in.Key || len(r.Effects) != len(in.Targets) {
		t.Fatalf("receipt: phase %s, key %s, %d effects for %d targets", r.Phase, r.Key, len(r.Effects), len(in.Targets))
	}
	wantHeld(t, w, true)
	return r
}

func undo(t *testing.T, w World, in plan.Intent, r plan.Receipt) {
	t.Helper()
	if err := w.Action.Undo(t.Context(), in, r); err != nil {
		t.Fatal("undo:", err)
	}
	wantHeld(t, w, false)
}

func wantHeld(t *testing.T, w World, want bool) {
	t.Helper()
	if got := w.Held(t); got != want {
		t.Fatalf("held: %t, want %t", got, want)
	}
}

// WantSame reports what is not as it was before.
func WantSame(t *testing.T, w World, before any) {
	t.Helper()
	if diff := cmp.Diff(before, w.Snapshot(t)); diff != "" {
		t.Error("the system is not as it was (-before +now):\n" + diff)
	}
}
