package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/workflows"
)

var (
	digestA, digestB, digestC = digestOf('a'), digestOf('b'), digestOf('c')
	view                      = workflows.StateView{IncidentID: "i234567abcdef", State: "escalated",
		Options:      []workflows.OptionView{{Option: "everything", Plan: digestA, Recommended: true}, {Option: "identity-only", Plan: digestB}},
		Containments: []workflows.ContainmentChanged{{Plan: digestC}, {Plan: digestB}, {Plan: digestA, Done: true}}}
)

func digestOf(c rune) string { return "sha256:" + strings.Repeat(string(c), 64) }

func TestPlansThatADecisionMeans(t *testing.T) {
	for name, tc := range map[string]struct {
		d    decision
		want []string
		err  error
	}{
		"approve takes the recommended":    {decision{kind: authz.Approve}, []string{digestA}, nil},
		"approve takes an option":          {decision{kind: authz.Approve, option: "identity-only"}, []string{digestB}, nil},
		"approve takes a short digest":     {decision{kind: authz.Approve, plan: "bbbbbbbb"}, []string{digestB}, nil},
		"deny takes the recommended":       {decision{kind: authz.Deny}, []string{digestA}, nil},
		"release takes all that are on":    {decision{kind: authz.Release}, []string{digestC, digestB}, nil},
		"retire takes one":                 {decision{kind: authz.Retire, plan: "sha256:cccccccc"}, []string{digestC}, nil},
		"no such option":                   {decision{kind: authz.Approve, option: "nothing"}, nil, errNotFound},
		"what is on is not on offer":       {decision{kind: authz.Approve, plan: "cccccccc"}, nil, errNotFound},
		"what is done is not on":           {decision{kind: authz.Release, plan: "aaaaaaaa"}, nil, errNotFound},
		"seven digits are too few to mean": {decision{kind: authz.Release, plan: "ccccccc"}, nil, errUsage},
	} {
		got, err := pick(tc.d, view)
		if diff := cmp.Diff(tc.want, got); diff != "" || !errors.Is(err, tc.err) {
			t.Errorf("%s: %v %s", name, err, diff)
		}
	}
}

func TestAnswerIsTheLineAboutThisDecision(t *testing.T) {
	since := start
	later := func(text string) workflows.TimelineEntry {
		return workflows.TimelineEntry{At: start.Add(time.Second), Text: text}
	}
	for name, tc := range map[string]struct {
		kind authz.DecisionKind
		line workflows.TimelineEntry
		want bool
	}{
		"approved":               {authz.Approve, later("plan aaaaaaaaaaaa approved by ana: reason"), true},
		"one of a quorum":        {authz.Approve, later("ana approved plan aaaaaaaaaaaa; quorum-missing"), true},
		"of another plan":        {authz.Approve, later("plan bbbbbbbbbbbb approved by ana: reason"), false},
		"by another person":      {authz.Approve, later("plan aaaaaaaaaaaa approved by ben: reason"), false},
		"said before":            {authz.Approve, workflows.TimelineEntry{At: start, Text: "plan aaaaaaaaaaaa approved by ana: reason"}, false},
		"denied":                 {authz.Deny, later("ana denied plan aaaaaaaaaaaa: reason"), true},
		"refused":                {authz.Deny, later("deny by ana had no effect: expired"), true},
		"released":               {authz.Release, later("release of plan aaaaaaaaaaaa by ana: reason"), true},
		"another kind, refused":  {authz.Release, later("approve by ana had no effect: expired"), false},
		"an approval of earlier": {authz.Release, later("plan aaaaaaaaaaaa approved by ana: reason"), false},
	} {
		m := &made{Plan: digestA, Kind: string(tc.kind), Person: "ana"}
		if got := answer(workflows.StateView{Timeline: []workflows.TimelineEntry{tc.line}}, m, since) != ""; got != tc.want {
			t.Errorf("%s: answered %v, want %v", name, got, tc.want)
		}
	}
}

// What is judged before it is signed: the command line must not send what every enforcer would refuse.
func TestDecisionIsJudgedFirst(t *testing.T) {
	l := newLab(t)
	policy := activities.Policy{Trust: l.w.TrustFile, Books: []authz.Book{l.book}}
	stale := *l.full
	stale.Playbook.Version = 1
	for name, tc := range map[string]struct {
		kind   authz.DecisionKind
		person string
		p      *plan.Plan
		want   authz.Code // empty: sent
	}{
		"approve by who is asked":       {authz.Approve, "ana", l.full, ""},
		"deny by who is asked":          {authz.Deny, "ana", l.full, ""},
		"release by who is asked":       {authz.Release, "ana", l.full, ""},
		"approve by who is not asked":   {authz.Approve, "ben", l.full, authz.CodeNoDecision},
		"approve of an unknown version": {authz.Approve, "ana", &stale, authz.CodePlaybook},
	} {
		t.Run(name, func(t *testing.T) {
			k := &desk{policy: policy, store: l.store, signer: l.w.Own[tc.person]}
			var err error
			if k.person, err = personOf(l.w.TrustFile, k.signer); err != nil {
				t.Fatal(err)
			}
			m, err := k.sign(context.Background(), decision{kind: tc.kind, reason: "because", valid: time.Hour}, tc.p, l.now, digestA)
			var no *authz.Refusal
			switch {
			case tc.want == "" && err != nil:
				t.Fatal(err)
			case tc.want != "" && (!errors.As(err, &no) || no.Code != tc.want):
				t.Fatalf("got %v, want %s", err, tc.want)
			case tc.want == "":
				d, err := authz.OpenDecision(l.w.TrustFile, m.envelope)
				if err != nil || d.Kind != tc.kind || d.PlanDigest != m.Plan || d.ShownDigest != digestA || d.Person != tc.person {
					t.Errorf("%+v %v", d, err)
				}
			}
		})
	}
	if _, err := personOf(l.w.TrustFile, l.w.Signers["decide"]); !errors.Is(err, errRefused) {
		t.Errorf("the key of a process is taken for a person's: %v", err)
	}
}

func TestConfirmationIsAYes(t *testing.T) {
	for answer, want := range map[string]error{"y\n": nil, "yes\n": nil, "YES": nil, "n\n": errRefused, "\n": errRefused, "sure\n": errRefused, "": errUsage} {
		var out bytes.Buffer
		a := &app{in: strings.NewReader(answer), out: &out}
		if err := a.confirm("what is decided\n", false); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", answer, err, want)
		}
		if !strings.HasPrefix(out.String(), "what is decided\nSign and send?") {
			t.Errorf("%q: shown %q", answer, out.String())
		}
	}
}

func TestTextOfADecisionSaysEverything(t *testing.T) {
	l := newLab(t)
	p := *l.full
	p.Steps[0].Collateral = []string{"3 pods\x1b[2J lose their rights"}
	who, _ := l.w.TrustFile.PersonByID("ana")
	got, err := describe(decision{kind: authz.Extend, by: time.Hour, reason: "needs\nthe evening"}, who, &p)
	if err != nil {
		t.Fatal(err)
	}
	digest, err := p.Digest()
	if err != nil {
		t.Fatal(err)
	}
	want := `ana decides: extend
incident ` + p.IncidentID + `, full plan, option everything, playbook stolen-credentials v2
plan     ` + digest + `
by       1h0m0s
step 0   kubernetes/cut-rbac on service-account shop/cart in demo (uid sa-uid)
         for 4h0m0s, then people are asked again; may touch bindings of service account cart, at most 10
         Removes the service account from every role binding that names it; the rights come back by exact restore.
         also hit: Every pod of the service account loses its rights; rights that come by group stay.
         also hit: 3 pods�[2J lose their rights
reason   needs the evening
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
