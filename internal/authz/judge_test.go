package authz_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"testing"
	"time"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/authz/authztest"
	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/internal/incident"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/trust"
)

var start = time.Date(2026, 11, 23, 4, 0, 0, 0, time.UTC)

// hearing is a case that every table entry starts from and changes one thing of.
type hearing struct {
	w     *authztest.World
	books []authz.Book
	plan  *plan.Plan
	req   authz.Request
	envs  []authz.Envelope
	spent authz.Spent
	now   time.Time
}

func stopCase(w *authztest.World) *hearing {
	return &hearing{w: w, books: []authz.Book{w.Book}, plan: w.Plan(plan.Stop), req: authz.Request{Verb: authz.VerbApply}, envs: []authz.Envelope{w.Envelope}, now: start}
}

func fullCase(w *authztest.World) *hearing {
	h := stopCase(w)
	h.plan = w.Plan(plan.Full)
	h.envs = append(h.envs, w.Decide(authz.Approve, h.plan, "ana", trust.Click))
	return h
}

func (h *hearing) judge() (authz.Verdict, error) {
	return authz.Judge(h.w.TrustFile, h.books, h.plan, h.req, h.envs, h.spent, h.now)
}

// TestJudgeAllowsWhatIsAuthorized keeps the refusals below honest: the untouched cases pass.
func TestJudgeAllowsWhatIsAuthorized(t *testing.T) {
	w := authztest.New(start)
	for name, h := range map[string]*hearing{"a pre-authorized stop": stopCase(w), "a plan that a person approved": fullCase(w)} {
		t.Run(name, func(t *testing.T) {
			for i := range h.plan.Steps {
				h.req.Step = i
				v, err := h.judge()
				if err != nil {
					t.Fatalf("step %d: %v", i, err)
				}
				if v.Authority == "" || len(v.Envelopes) == 0 || v.Unattended != (h.plan.Purpose == plan.Stop) {
					t.Errorf("step %d: verdict %+v", i, v)
				}
			}
		})
	}
}

func keyStep(h *hearing) int {
	for i, s := range h.plan.Steps {
		if s.Target.Kind == plan.AccessKey {
			return i
		}
	}
	return -1
}

// TestI1I2I3I6JudgeRefuses covers I1, I2, I3, I5 and I6: each entry changes one thing of an authorized case.
func TestI1I2I3I6JudgeRefuses(t *testing.T) {
	cases := map[string]struct {
		of     func(*authztest.World) *hearing
		change func(*hearing)
		want   authz.Code
	}{
		"I1: no envelope at all":                   {stopCase, func(h *hearing) { h.envs = nil }, authz.CodeDetection},
		"I1: a decision alone":                     {fullCase, func(h *hearing) { h.envs = h.envs[1:] }, authz.CodeDetection},
		"I1: a detection alone, full plan":         {fullCase, func(h *hearing) { h.envs = h.envs[:1] }, authz.CodeNoDecision},
		"I1: another step's target":                {stopCase, func(h *hearing) { h.plan.Steps[0].Target.UID = "other" }, authz.CodeTarget},
		"I1: another namespace":                    {stopCase, func(h *hearing) { h.plan.Steps[0].Target.Namespace = "other" }, authz.CodeTarget},
		"I1: longer than the playbook":             {stopCase, func(h *hearing) { h.plan.Steps[0].DurationSeconds++ }, authz.CodeForbidden},
		"I1: review where release is asked":        {stopCase, func(h *hearing) { h.plan.Steps[1].Expiry = plan.Review; h.req.Step = 1 }, authz.CodeForbidden},
		"I1: an action the playbook lacks":         {stopCase, func(h *hearing) { h.plan.Steps[0].Action = plan.KubernetesIsolatePod }, authz.CodeForbidden},
		"I2: plan changed after approval":          {fullCase, func(h *hearing) { h.plan.Steps[0].Collateral = []string{"x"} }, authz.CodeNoDecision},
		"I2: other playbook content, same version": {fullCase, func(h *hearing) { h.books[0] = h.w.SignBook(authztest.Playbook + "reassert: 9\n") }, authz.CodePlaybook},
		"I3: nonce spent on another plan": {fullCase, func(h *hearing) {
			d := h.w.Decision(authz.Approve, h.plan, "ana", trust.Click)
			h.spent.Nonces = map[string]string{d.Nonce + "/ana": "sha256:other"}
		}, authz.CodeSpent},
		"I3: expired decision":                 {fullCase, func(h *hearing) { h.now = start.Add(61 * time.Minute) }, authz.CodeExpired},
		"I3: the step was ended before":        {fullCase, func(h *hearing) { h.spent.Ended = true }, authz.CodeSpent},
		"I3: a deny wins over an approval":     {fullCase, func(h *hearing) { h.envs = append(h.envs, h.w.Decide(authz.Deny, h.plan, "ben", trust.Click)) }, authz.CodeDenied},
		"I4: one lead is no quorum":            {fullCase, func(h *hearing) { h.envs[1] = h.w.Decide(authz.Approve, h.plan, "ben", trust.Click) }, authz.CodeQuorum},
		"I4: one lead twice is no quorum":      {fullCase, func(h *hearing) { twice(h, "ben") }, authz.CodeQuorum},
		"I5: decision for another incident":    {fullCase, func(h *hearing) { forge(h, func(d *authz.Decision) { d.IncidentID = "iaaaaaaaaaaaa" }) }, authz.CodeNoDecision},
		"I5: a click by a stranger's Slack id": {fullCase, func(h *hearing) { forge(h, func(d *authz.Decision) { d.Slack = "U999" }) }, authz.CodeNoDecision},
		"I5: a click for another person":       {fullCase, func(h *hearing) { forge(h, func(d *authz.Decision) { d.Person = "ben" }) }, authz.CodeNoDecision},
		"I5: decide signs more than a click":   {fullCase, func(h *hearing) { forge(h, func(d *authz.Decision) { d.Assurance = trust.OwnKey }) }, authz.CodeNoDecision},
		"I5: the intake's key on a decision":   {fullCase, func(h *hearing) { signAs(h, trust.RoleIntake) }, authz.CodeNoDecision},
		"I5: the enforcer's own key":           {fullCase, func(h *hearing) { signAs(h, trust.RoleContainAWS) }, authz.CodeNoDecision},
		"I6: unsigned playbook":                {stopCase, func(h *hearing) { h.books = nil }, authz.CodePlaybook},
		"I6: rolled back playbook":             {stopCase, func(h *hearing) { h.spent.HighestPlaybook = map[string]int{"stolen-credentials": 3} }, authz.CodeRollback},
		"I6: above the ceiling":                {stopCase, func(h *hearing) { h.w.TrustFile.Ceilings.MaxPreAuthorized = time.Minute }, authz.CodeCeiling},
		"I6: not to be pre-authorized":         {stopCase, func(h *hearing) { h.w.TrustFile.Ceilings.PreAuthorize = nil }, authz.CodeCeiling},
		"I6: stale detection":                  {stopCase, func(h *hearing) { h.now = start.Add(16 * time.Minute) }, authz.CodeStale},
		"I6: detection from the future":        {stopCase, func(h *hearing) { h.now = start.Add(-2 * time.Minute) }, authz.CodeStale},
		"I8: protected namespace in a closure": {fullCase, func(h *hearing) {
			h.req.Found = []plan.Target{{Kind: plan.Pod, Scope: authztest.Cluster, Namespace: "Payments", Name: "x", UID: "x"}}
		}, authz.CodeProtected},
		"I8: protected principal in a closure": {fullCase, func(h *hearing) {
			h.req.Step = keyStep(h)
			h.req.Found = []plan.Target{{Kind: plan.AWSUser, Scope: authztest.Account, Name: "Break-Glass", UID: "AIDA"}}
		}, authz.CodeProtected},
		"I8: more targets than the closure":     {fullCase, func(h *hearing) { h.req.Step = keyStep(h); h.req.Found = make([]plan.Target, 11) }, authz.CodeClosure},
		"I9: budget spent":                      {stopCase, func(h *hearing) { h.spent.Unattended = map[string][]time.Time{"": make20(start)} }, authz.CodeBudget},
		"wrong account":                         {stopCase, func(h *hearing) { h.req.Step = keyStep(h); h.req.Standing = "999999999999" }, authz.CodeScope},
		"another account than the trust file's": {stopCase, func(h *hearing) { h.plan.Steps[2].Target.Scope = "999999999999"; h.req.Step = 2 }, authz.CodeScope},
		"another incident id":                   {stopCase, func(h *hearing) { h.plan.IncidentID = incident.ID("x", "y") }, authz.CodeIncident},
		"another correlation key":               {stopCase, func(h *hearing) { h.plan.CorrelationKey = "x" }, authz.CodeIncident},
		"fallback before the tiers lapsed":      {stopCase, func(h *hearing) { h.plan = h.w.Plan(plan.Fallback); h.now = start.Add(19 * time.Minute) }, authz.CodeNotLapsed},
		"a planted key without a person":        {stopCase, func(h *hearing) { i := keyStep(h); retarget(h, i, authztest.Planted); h.req.Step = i }, authz.CodeClaimed},
		"an investigated key in a stop plan":    {stopCase, func(h *hearing) { i := keyStep(h); retarget(h, i, "AKIAFOUNDELSEWHERE03"); h.req.Step = i }, authz.CodeTarget},
		"a detection signed by another node":    {stopCase, func(h *hearing) { resign(h, h.w.NodeSigner("node-2"), nil) }, authz.CodeDetection},
		"a third party that may start nothing": {stopCase, func(h *hearing) {
			resign(h, h.w.Signers[trust.RoleIntake], func(d *detection.Detection) {
				d.Source = detection.Source{Kind: detection.ThirdParty, Name: "falco", UID: "1"}
			})
		}, authz.CodeTarget},
		"the intake speaking as a sensor":         {stopCase, func(h *hearing) { resign(h, h.w.Signers[trust.RoleIntake], nil) }, authz.CodeDetection},
		"undo while the hold runs, nobody asked":  {fullCase, func(h *hearing) { h.req.Verb, h.spent.Held = authz.VerbUndo, held(h, time.Hour, plan.Review) }, authz.CodeNoDecision},
		"I17: undo of a review step by the clock": {fullCase, func(h *hearing) { h.req.Verb, h.spent.Held = authz.VerbUndo, held(h, -time.Hour, plan.Review) }, authz.CodeNoDecision},
		"undo of what is not held":                {fullCase, func(h *hearing) { h.req.Verb = authz.VerbUndo }, authz.CodeNoUndoReason},
		"reassert beyond the playbook's rule": {fullCase, func(h *hearing) {
			h.req.Verb, h.spent.Held = authz.VerbReassert, held(h, time.Hour, plan.Review)
			h.spent.Held.Reasserted = 3
		}, authz.CodeReassertLimit},
		"a verb of nobody's":     {fullCase, func(h *hearing) { h.req.Verb = "delete" }, authz.CodeUnknownVerb},
		"a step beyond the plan": {fullCase, func(h *hearing) { h.req.Step = 99 }, authz.CodePlan},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			h := tc.of(authztest.New(start))
			tc.change(h)
			v, err := h.judge()
			var r *authz.Refusal
			if !errors.As(err, &r) || r.Code != tc.want {
				t.Fatalf("judged %+v, %v; want refusal %s", v, err, tc.want)
			}
		})
	}
}

// TestJudgeEndings: a release step ends by the clock, an approved one by a signed release, a failed group by itself.
func TestJudgeEndings(t *testing.T) {
	w := authztest.New(start)
	for name, tc := range map[string]struct {
		change func(*hearing)
		want   string
	}{
		"the clock of a release step": {func(h *hearing) { h.spent.Held = held(h, -time.Second, plan.Release) }, "clock"},
		"a failed atomic group":       {func(h *hearing) { h.spent.Held = held(h, time.Hour, plan.Review); h.spent.Held.GroupFailed = true }, "failed group"},
		"a signed release": {func(h *hearing) {
			h.spent.Held = held(h, time.Hour, plan.Review)
			h.envs = append(h.envs, w.Decide(authz.Release, h.plan, "ana", trust.OwnKey))
		}, "released by ana"},
	} {
		t.Run(name, func(t *testing.T) {
			h := fullCase(w)
			h.req.Verb = authz.VerbUndo
			tc.change(h)
			v, err := h.judge()
			if err != nil || v.Authority != tc.want {
				t.Fatalf("judged %+v, %v; want %q", v, err, tc.want)
			}
		})
	}
}

// TestEveryFlippedBitVoidsTheEnvelope is I1's table of forgeries: each bit of payload, signature, key id and type.
func TestEveryFlippedBitVoidsTheEnvelope(t *testing.T) {
	w := authztest.New(start)
	h := fullCase(w)
	good := h.envs[1]
	raw, err := good.Raw()
	if err != nil {
		t.Fatal(err)
	}
	sig, err := base64.StdEncoding.DecodeString(good.Signatures[0].Sig)
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	try := func(what string, e authz.Envelope) {
		tried++
		h.envs[1] = e
		if v, err := h.judge(); err == nil {
			t.Errorf("%s: judged %+v", what, v)
		}
	}
	for i := range raw {
		for bit := range 8 {
			e := good
			b := append([]byte(nil), raw...)
			b[i] ^= 1 << bit
			e.Payload = base64.StdEncoding.EncodeToString(b)
			try(fmt.Sprintf("payload byte %d bit %d", i, bit), e)
		}
	}
	for i := range sig {
		e := good
		b := append([]byte(nil), sig...)
		b[i] ^= 1
		e.Signatures = []authz.Signature{{KeyID: good.Signatures[0].KeyID, Sig: base64.StdEncoding.EncodeToString(b)}}
		try(fmt.Sprintf("signature byte %d", i), e)
	}
	for _, typ := range []string{authz.TypeDetection, authz.TypeReceipt, authz.TypeOrder, authz.TypePlaybook, ""} {
		e := good
		e.PayloadType = typ
		try("payload type "+typ, e)
	}
	for _, s := range w.Signers {
		e := good
		e.Signatures = []authz.Signature{{KeyID: s.KeyID(), Sig: good.Signatures[0].Sig}}
		if s != w.Signers[trust.RoleDecide] {
			try("key id of another role", e)
		}
	}
	if tried < 200 {
		t.Fatalf("only %d forgeries tried", tried)
	}
	h.envs[1] = good
	if _, err := h.judge(); err != nil {
		t.Fatalf("the untouched envelope: %v", err)
	}
}

func held(h *hearing, left time.Duration, e plan.Expiry) *authz.Held {
	return &authz.Held{Since: start, Ends: h.now.Add(left), Expiry: e}
}

func make20(at time.Time) []time.Time {
	out := make([]time.Time, 20)
	for i := range out {
		out[i] = at.Add(-time.Minute)
	}
	return out
}

func forge(h *hearing, change func(*authz.Decision)) {
	d := h.w.Decision(authz.Approve, h.plan, "ana", trust.Click)
	change(&d)
	e, err := h.w.Signers[trust.RoleDecide].Sign(authz.TypeDecision, d)
	if err != nil {
		panic(err)
	}
	h.envs[1] = e
}

func signAs(h *hearing, role trust.Role) {
	e, err := h.w.Signers[role].Sign(authz.TypeDecision, h.w.Decision(authz.Approve, h.plan, "ana", trust.Click))
	if err != nil {
		panic(err)
	}
	h.envs[1] = e
}

func twice(h *hearing, person string) {
	a := h.w.Decision(authz.Approve, h.plan, person, trust.Click)
	b := a
	b.Nonce = "00000000000000000000000000000000"
	h.envs = []authz.Envelope{h.envs[0], h.w.Sign(a), h.w.Sign(b)}
}

// resign signs the detection anew by another, and makes the plan rest on it.
func resign(h *hearing, s *authz.Signer, change func(*detection.Detection)) {
	d := h.w.Detect("d-1")
	if change != nil {
		change(d)
	}
	e, digest := h.w.SignDetection(s, d)
	h.envs[0], h.plan.Detections[0] = e, digest
	h.plan.IncidentID = incident.ID(h.plan.CorrelationKey, digest)
}

func retarget(h *hearing, i int, key string) {
	h.plan.Steps[i].Target = h.w.Key(key)
	entry, _ := plan.Lookup(h.plan.Steps[i].Action)
	h.plan.Steps[i].Closure.Of = authz.ClosureOf(entry, h.plan.Steps[i].Target)
}
