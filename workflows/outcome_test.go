package workflows_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/authz/authztest"
	"tourniquet.dev/tourniquet/internal/evidence"
	"tourniquet.dev/tourniquet/internal/identity"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/trust"
	"tourniquet.dev/tourniquet/workflows"
)

// step is how one action of the approved plan stands.
func (s *stage) step(action plan.Action) workflows.StepView {
	for _, c := range s.state().Containments {
		for _, v := range c.Steps {
			if v.Action == string(action) && c.Purpose == string(plan.Full) {
				return v
			}
		}
	}
	return workflows.StepView{}
}

func (s *stage) paged(reason activities.PageReason, about string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.pages, func(p activities.PageInput) bool { return p.Reason == reason && strings.Contains(p.Text, about) })
}

// TestI14EveryOutcomeEnds: whatever an enforcer says of a step, the step ends verified or undone, or a person is paged by
// its name; and a release takes off whatever may stand.
func TestI14EveryOutcomeEnds(t *testing.T) {
	const action = plan.AWSDeactivateKeys
	gone := errors.New("connection reset")
	for name, tc := range map[string]struct {
		apply   error
		half    bool
		finding plan.Finding
		undo    error
		state   string // while it is held
		page    bool
		off     bool // after the release nothing of it stands
	}{
		"done":                      {state: workflows.StepVerified, off: true},
		"refused":                   {apply: activities.ErrRefused, state: workflows.StepRefused, page: true, off: true},
		"refused half-way":          {apply: activities.ErrRefused, half: true, state: workflows.StepFailed, page: true, off: true},
		"conflict half-way":         {apply: activities.ErrConflict, half: true, state: workflows.StepFailed, page: true, off: true},
		"never an answer":           {apply: activities.ErrUnknown, state: workflows.StepUnknown, page: true, off: true},
		"never an answer, but done": {apply: activities.ErrUnknown, half: true, state: workflows.StepUnknown, page: true, off: true},
		"retryable for ever":        {apply: gone, state: workflows.StepUnknown, page: true, off: true},
		"asserted only":             {finding: plan.Asserted, state: workflows.StepAsserted, page: true, off: true},
		"not holding":               {finding: plan.NotHolding, state: workflows.StepBroken, page: true, off: true},
		"the undo fails":            {undo: activities.ErrConflict, state: workflows.StepVerified, page: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			if tc.apply != nil {
				s.fail["apply "+string(action)] = fmt.Errorf("the system says: %w", tc.apply)
			}
			if tc.undo != nil {
				s.fail["undo "+string(action)] = fmt.Errorf("the system says: %w", tc.undo)
			}
			if tc.finding != "" {
				s.finding[action] = tc.finding
			}
			s.half = tc.half
			var p *plan.Plan
			s.after(time.Minute, func() { p = s.offered(); s.decide(authz.Approve, p, "ana") })
			s.after(2*time.Hour, func() {
				if got := s.step(action); got.State != tc.state {
					t.Errorf("%s is %s (%s), want %s", action, got.State, got.Note, tc.state)
				}
				s.decide(authz.Release, p, "ana")
			})
			// A fixed system lets a person's second release through: the state that a failed undo leaves is not lost.
			s.after(3*time.Hour, func() { s.fail = map[string]error{}; s.decide(authz.Release, p, "ana") })
			s.after(150*time.Minute, func() {
				if stands := s.stands(action); stands == tc.off {
					t.Errorf("after the release it stands: %v", stands)
				}
			})
			s.run()
			if s.stands(action) {
				t.Error("the incident closed with the cut on")
			}
			if got := s.paged(activities.PageFailed, string(action)) || s.paged(activities.PageFailed, "left steps on"); got != tc.page {
				t.Errorf("paged %v, want %v: %+v", got, tc.page, s.pages)
			}
		})
	}
}

func (f *fakes) stands(action plan.Action) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for key, on := range f.on {
		if on && strings.HasPrefix(key, string(action)+" ") {
			return true
		}
	}
	return false
}

// TestI17ReviewIsPagedAndStays: at each review a person is asked again; only the release takes the step off.
func TestI17ReviewIsPagedAndStays(t *testing.T) {
	s := newStage(t)
	var p *plan.Plan
	s.after(time.Minute, func() { p = s.offered(); s.decide(authz.Approve, p, "ana") })
	s.after(9*time.Hour, func() { // two reviews of four hours
		if !s.stands(plan.KubernetesIsolatePod) {
			t.Error("a step under review came off by itself")
		}
		s.decide(authz.Release, p, "ana")
	})
	s.run()
	reviews := 0
	for _, page := range s.pages {
		if page.Reason == activities.PageReview && strings.Contains(page.Text, string(plan.KubernetesIsolatePod)) {
			reviews++
		}
	}
	if reviews != 2 {
		t.Errorf("asked for %d reviews, want 2: %+v", reviews, s.reasons())
	}
}

// TestExtendMovesTheEnd: a signed extension keeps a step that comes off by itself on for as long as it says.
func TestExtendMovesTheEnd(t *testing.T) {
	s := newStage(t)
	s.after(time.Minute, func() {
		stop := s.plan(s.state().Containments[0].Plan)
		s.w.Now = s.env.Now().UTC().Truncate(time.Millisecond)
		d := s.w.Decision(authz.Extend, stop, "ana", trust.Click)
		d.ExtendSeconds = 3600
		s.signal(s.w.Sign(d), stop)
	})
	s.after(65*time.Minute, func() {
		if !s.stands(plan.NodeCutNetwork) {
			t.Error("the extended cut came off at its first end")
		}
	})
	s.after(75*time.Minute, func() {
		if s.stands(plan.NodeCutNetwork) {
			t.Error("the extended cut is still on after its end")
		}
	})
	s.run()
}

// TestRetireRestoresNothing: retiring ends the hold and leaves the target as it is.
func TestRetireRestoresNothing(t *testing.T) {
	s := newStage(t)
	var p *plan.Plan
	s.after(time.Minute, func() { p = s.offered(); s.decide(authz.Approve, p, "ana") })
	s.after(time.Hour, func() { s.decide(authz.Retire, p, "ana") })
	s.run()
	if slices.Contains(s.effects, "undo "+string(plan.AWSDeactivateKeys)) || !s.stands(plan.AWSDeactivateKeys) {
		t.Errorf("a retired step was undone: %v", s.effects)
	}
}

// TestBrokenHoldIsPaged: an enforcer's word that a hold was undone reaches a person, with who did it.
func TestBrokenHoldIsPaged(t *testing.T) {
	for name, again := range map[string]bool{"and put back": true, "and stays so": false} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			s.after(time.Minute, func() {
				stop := s.plan(s.state().Containments[0].Plan)
				digest, _ := stop.Digest()
				if err := s.env.SignalWorkflowByID(workflows.ContainmentWorkflowID(stop.IncidentID, digest), workflows.SignalHoldBroken,
					workflows.HoldBroken{Step: 0, By: "changed: mallory", Reasserted: again}); err != nil {
					t.Error(err)
				}
			})
			s.after(3*time.Minute, func() {
				want := map[bool]string{true: workflows.StepVerified, false: workflows.StepBroken}[again]
				if got := s.state().Containments[0].Steps[0].State; got != want {
					t.Errorf("the step is %s, want %s", got, want)
				}
			})
			s.run()
			if !s.paged(activities.PageBroken, "mallory") {
				t.Errorf("nobody was paged: %+v", s.pages)
			}
		})
	}
}

// TestI14PageOutlivesSlack: what could not be said for two hours is said when Slack is back, and until then the incident
// shows that it was not.
func TestI14PageOutlivesSlack(t *testing.T) {
	s := newStage(t)
	s.noSlack = true
	unpaged := 0
	s.after(time.Hour, func() { unpaged = s.state().Unpaged })
	s.after(2*time.Hour, func() { s.mu.Lock(); s.noSlack = false; s.mu.Unlock() })
	s.run()
	if unpaged == 0 || s.state().Unpaged != 0 {
		t.Errorf("unpaged while Slack is down: %d, at the end: %d", unpaged, s.state().Unpaged)
	}
	for _, reason := range []activities.PageReason{activities.PageEscalated, activities.PageLapsed} {
		if !s.paged(reason, "") {
			t.Errorf("no page %s: %+v", reason, s.reasons())
		}
	}
	story := ""
	for _, line := range s.state().Timeline {
		story += line.Text + "\n"
	}
	if !strings.Contains(story, "NOT paged") || strings.Index(story, "NOT paged") > strings.Index(story, "paged at last") {
		t.Errorf("the story does not say when people were reached:\n%s", story)
	}
}

// TestI3DoubledDecisionCountsOnce: the same signed decision twice, by two paths, is one containment and one line.
func TestI3DoubledDecisionCountsOnce(t *testing.T) {
	s := newStage(t)
	var p *plan.Plan
	s.after(time.Minute, func() {
		p = s.offered()
		s.w.Now = s.env.Now().UTC().Truncate(time.Millisecond)
		e := s.w.Decide(authz.Approve, p, "ana", trust.Click)
		s.signal(e, p)
		s.signal(e, p)
		s.after(time.Minute, func() { s.signal(e, p) })
	})
	s.after(time.Hour, func() { s.decide(authz.Release, p, "ana") })
	s.run()
	if n := strings.Count(strings.Join(s.effects, "\n"), "apply "+string(plan.KubernetesIsolatePod)); n != 1 {
		t.Errorf("isolated %d times", n)
	}
	if got := s.state().Refused; len(got) != 0 {
		t.Errorf("refused: %q", got)
	}
}

// TestI3DenyBeforeTheEffectWins: a deny that comes while the approved plan is being applied stops what is still to come.
func TestI3DenyBeforeTheEffectWins(t *testing.T) {
	s := newStage(t)
	s.fail["apply "+string(plan.KubernetesIsolatePod)] = errors.New("throttled") // the first step takes its time
	var p *plan.Plan
	s.after(time.Minute, func() { p = s.offered(); s.decide(authz.Approve, p, "ana") })
	s.after(90*time.Second, func() { s.decide(authz.Deny, p, "cleo") })
	s.after(3*time.Hour, func() { s.decide(authz.Release, p, "ana") })
	s.run()
	for _, later := range []plan.Action{plan.KubernetesCutRBAC, plan.AWSDeactivateKeys} {
		if slices.Contains(s.effects, "apply "+string(later)) {
			t.Errorf("%s was applied after the deny: %+v\n%+v\n%v", later, s.state().Timeline, s.state().Containments, s.effects)
		}
	}
}

// plan loads a stored plan.
func (s *stage) plan(digest string) *plan.Plan {
	s.t.Helper()
	p, err := activities.LoadPlan(s.t.Context(), s.store, digest)
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

// TestI2NewPlanVoidsTheOldCard: a detection that names another identity makes new plans; what was signed for the old one
// has no effect any more.
func TestI2NewPlanVoidsTheOldCard(t *testing.T) {
	s := newStage(t)
	var old *plan.Plan
	s.after(time.Minute, func() {
		old = s.offered()
		d := s.w.Detect("d-2")
		d.Identities = append(d.Identities, identity.Identity{Kind: identity.AccessKey, Scope: authztest.Account, Name: "AKIATESTANOTHER00003", Link: identity.Claimed, Evidence: "file"})
		e, _ := s.w.SignDetection(s.w.Node, d)
		s.detect(e, s.digest(e))
	})
	s.after(3*time.Minute, func() {
		if digest, _ := old.Digest(); slices.ContainsFunc(s.state().Options, func(o workflows.OptionView) bool { return o.Plan == digest }) {
			t.Error("the old plan is still on offer")
		}
		s.decide(authz.Approve, old, "ana")
	})
	s.run()
	if got := without(s.effects, slices.Concat(stopEffects, stopUndone)); len(got) != 0 {
		t.Errorf("effects: %v", got)
	}
	if len(s.state().Refused) == 0 {
		t.Error("the refusal is not on record")
	}
}

// TestClaimedKeyWaitsForAPerson: a key that an attacker may have planted is in no plan that nobody decides on; a person
// may cut it off.
func TestClaimedKeyWaitsForAPerson(t *testing.T) {
	targets := func(s *stage, purpose plan.Purpose) (all []string) {
		for _, c := range s.state().Containments {
			for _, step := range c.Steps {
				if c.Purpose == string(purpose) {
					all = append(all, step.Target)
				}
			}
		}
		return all
	}
	names := func(all []string) bool {
		return slices.ContainsFunc(all, func(target string) bool { return strings.Contains(target, authztest.Planted) })
	}
	t.Run("nobody decides", func(t *testing.T) {
		s := newStage(t)
		s.run()
		if all := append(targets(s, plan.Stop), targets(s, plan.Fallback)...); len(all) == 0 || names(all) {
			t.Errorf("cut without a person: %v", all)
		}
	})
	t.Run("ana approves", func(t *testing.T) {
		s := newStage(t)
		var p *plan.Plan
		s.after(time.Minute, func() { p = s.offered(); s.decide(authz.Approve, p, "ana") })
		s.after(time.Hour, func() { s.decide(authz.Release, p, "ana") })
		s.run()
		if all := targets(s, plan.Full); !names(all) {
			t.Errorf("what a person approved leaves it out: %v", all)
		}
	})
}

// TestWaitingCostsSomething: what the card says of waiting is what the recommended option saves by starting sooner.
func TestWaitingCostsSomething(t *testing.T) {
	s := newStage(t)
	s.after(time.Minute, func() {
		rec, err := activities.LoadAssessment(t.Context(), s.store, s.state().Assessment)
		if err != nil {
			t.Error(err)
		} else if got := rec.Waiting.WaitingPerMinute; got <= 0 || got != rec.Options[0].Exposure.WaitingPerMinute {
			t.Errorf("a minute of waiting costs %d", got)
		}
	})
	s.run()
}

// TestGuardrailKeepsAPlanBack: what a guardrail refuses is neither put on unattended nor offered, and people read why.
func TestGuardrailKeepsAPlanBack(t *testing.T) {
	s := newStage(t)
	s.w.Book = s.w.SignBook(authztest.Playbook + `guardrails:
  - {name: not-the-key, refuse: 'plan.purpose != "fallback" && plan.steps.exists(s, s.kind == "access-key")', why: ask the key owner first}
`)
	s.after(time.Minute, func() {
		v := s.state()
		if len(v.Options) != 1 || v.Options[0].Option != "workload-only" || !v.Options[0].Recommended {
			t.Errorf("options %+v", v.Options)
		}
		if !slices.ContainsFunc(v.Gaps, func(g string) bool {
			return strings.Contains(g, "everything") && strings.Contains(g, "ask the key owner first")
		}) {
			t.Errorf("gaps %q", v.Gaps)
		}
	})
	s.run()
	if diff := cmp.Diff([]string{"apply kubernetes/block-writes", "undo kubernetes/block-writes"}, s.effects); diff != "" { // the fallback alone
		t.Errorf("effects (-want +got):\n%s", diff)
	}
}

// TestReportRestsOnSealedEvidence: the report says what was in reach before and after and what was done in the standards'
// words; its manifest lists each detection, fact, assessment and plan, and all of them are in the store.
func TestReportRestsOnSealedEvidence(t *testing.T) {
	s := newStage(t)
	var p *plan.Plan
	s.after(time.Minute, func() { p = s.offered(); s.decide(authz.Approve, p, "ana") })
	s.after(time.Hour, func() { s.decide(authz.Release, p, "ana") })
	out := s.run()
	var report activities.Report
	var manifest evidence.Manifest
	s.load(out.Report, &report)
	s.load(report.Evidence, &manifest)
	if f := report.Figures; f == nil || f.Before.Score <= f.Options["everything"].After.Score || !f.Options["everything"].Taken || f.Options["workload-only"].Taken {
		t.Errorf("figures %+v", f)
	}
	if len(report.Actions) != 7 || !slices.Contains(report.Actions[0].CSF, "RS.MI-01") || !slices.Contains(report.Techniques, "T1552.001") {
		t.Errorf("actions %+v, techniques %v", report.Actions, report.Techniques)
	}
	kinds := map[evidence.Kind]int{}
	for _, it := range manifest.Items {
		kinds[it.Kind]++
		if _, err := s.store.Get(t.Context(), it.Digest); err != nil {
			t.Errorf("%s %s of %s: %v", it.Kind, it.Digest, it.Source, err)
		}
	}
	if diff := cmp.Diff(map[evidence.Kind]int{evidence.Detection: 1, evidence.Facts: 1, evidence.Assessment: 1, evidence.Plan: 4}, kinds); diff != "" {
		t.Errorf("evidence (-want +got):\n%s", diff)
	}
}

func (s *stage) load(digest string, into any) {
	s.t.Helper()
	data, err := s.store.Get(s.t.Context(), digest)
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// TestI5ForgedDetectionSilencesNothing: what a signal names without a signature is left out, before or after a true one, and
// the incident goes on as if it had not come.
func TestI5ForgedDetectionSilencesNothing(t *testing.T) {
	for name, at := range map[string]time.Duration{"first": 0, "later": 30 * time.Second} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			forged := s.w.Detect("d-forged")
			forged.Identities[0].Name = "AKIATESTFORGED000009"
			e, _ := s.w.SignDetection(authztest.Signer("mallory"), forged)
			s.after(at, func() {
				s.detect(e, s.digest(e))
				s.detect(e, plan.DigestOf([]byte("names nothing")))
				s.detect(e, "not a digest at all, nothing at all")
			})
			var p *plan.Plan
			s.after(time.Minute, func() { p = s.offered(); s.decide(authz.Approve, p, "ana") })
			s.after(time.Hour, func() { s.decide(authz.Release, p, "ana") })
			s.run()
			for _, want := range []string{"apply node/cut-network", "apply kubernetes/isolate-pod"} {
				if !slices.Contains(s.effects, want) {
					t.Errorf("no %s: %v", want, s.effects)
				}
			}
			if v := s.state(); len(v.Detections) != 1 || len(v.Refused) == 0 {
				t.Errorf("detections %+v, refused %q", v.Detections, v.Refused)
			}
		})
	}
}
