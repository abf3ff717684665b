package card_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/card"
	"tourniquet.dev/tourniquet/internal/plan"
)

var now = time.Date(2026, 11, 23, 4, 0, 0, 0, time.UTC)

const (
	digestA = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	digestB = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

// viewOf fills every text of a view with s, so that a test can say: whatever it is, the structure stays.
func viewOf(s string, n int) card.View {
	v := card.View{IncidentID: s, State: s, Severity: s, Playbook: s, Subject: s, DecideToken: "t1.x",
		Before:  &card.Reach{Score: 63, Lower: 40, Upper: 80, Admin: true, Witness: []string{s, s, s}},
		Waiting: &card.Exposure{Currency: s, P50: 1234567, P90: 99, WaitingPerMinute: 5, Defaults: true},
		Tier:    &card.Tier{Ask: s, Quorum: 2, Deadline: now},
	}
	for i := range n {
		v.Identities, v.Gaps = append(v.Identities, s), append(v.Gaps, s)
		v.Detections = append(v.Detections, card.Detection{Rule: s, Title: s, Attacks: []string{s, s}, Time: now})
		v.Options = append(v.Options, card.Option{Name: s, Plan: digestA, Recommended: i == 0, After: card.Reach{Witness: []string{s}}, Exposure: card.Exposure{Currency: "USD"}})
		v.Steps = append(v.Steps, card.Step{Purpose: s, Action: "x" + s, Target: s, State: "x" + s, Ends: now, Expiry: s, Note: s + "x", Witnesses: []string{s}})
		v.Decisions = append(v.Decisions, card.Decision{Kind: "x" + s, Person: s + "x", At: now, Plan: digestA, Reason: s + "x"})
		v.Holds = append(v.Holds, card.Hold{Purpose: s, Plan: s, Token: "t1.x"})
	}
	return v
}

// skeleton is a JSON value with every text leaf emptied.
func skeleton(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, inner := range v {
			if s, ok := inner.(string); ok && k == "text" {
				inner = fmt.Sprint(s != "")
			}
			out[k] = skeleton(inner)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, inner := range v {
			out[i] = skeleton(inner)
		}
		return out
	}
	return v
}

func decode(t testing.TB, raw []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func render(t testing.TB, v card.View) card.Message {
	t.Helper()
	m, err := card.Render(v)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// everyText calls f with every text of the blocks.
func everyText(v any, f func(kind, s string)) {
	switch v := v.(type) {
	case map[string]any:
		if s, ok := v["text"].(string); ok {
			f(fmt.Sprint(v["type"]), s)
		}
		for _, inner := range v {
			everyText(inner, f)
		}
	case []any:
		for _, inner := range v {
			everyText(inner, f)
		}
	}
}

// FuzzI34CardStructure is promise I34: no string changes the structure of the blocks, and none is read as markup.
func FuzzI34CardStructure(f *testing.F) {
	for _, s := range []string{"", "pod", "<!channel>", "<@U123>|<https://evil.example|click>", "*bold* _it_ `code` ```", "\u202egnp.exe", "a\x00b\nc\r\t",
		"\u200b\u2066\ufeff", "&lt;!here&gt;", strings.Repeat("é", 4000), "\xff\xfe", `"},{"type":"actions"`, ":rotating_light:", "@everyone #general", "\U000E0041\U000E0042", "ﷺ"} {
		f.Add(s)
	}
	want := map[int]any{}
	for _, n := range []int{1, 8} {
		want[n] = skeleton(decode(f, render(f, viewOf("plain", n)).Blocks))
	}
	f.Fuzz(func(t *testing.T, s string) {
		for n, w := range want {
			m := render(t, viewOf(s, n))
			blocks := decode(t, m.Blocks)
			if diff := cmp.Diff(w, skeleton(blocks)); diff != "" {
				t.Fatalf("with %d things and %q:\n%s", n, s, diff)
			}
			everyText(blocks, func(kind, text string) {
				if kind != "text" && kind != "plain_text" {
					t.Fatalf("text in a leaf of type %s", kind)
				}
				checkText(t, text)
			})
			checkText(t, m.Text)
			if strings.ContainsAny(m.Text, "<>") {
				t.Fatalf("markup in the fallback text %q", m.Text)
			}
		}
		page, err := card.Page("reminder", s+"x", s+"x", "", now)
		if err != nil {
			t.Fatal(err)
		}
		everyText(decode(t, page.Blocks), func(_, text string) { checkText(t, text) })
		if strings.ContainsAny(page.Text, "<>") {
			t.Fatalf("markup in the fallback text %q", page.Text)
		}
	})
}

func checkText(t *testing.T, s string) {
	t.Helper()
	if s == "" || !utf8.ValidString(s) || utf8.RuneCountInString(s) > 3000 {
		t.Fatalf("text is empty, not UTF-8 or too long: %.80q", s)
	}
	for _, r := range s {
		if !unicode.IsPrint(r) || unicode.Is(unicode.Bidi_Control, r) {
			t.Fatalf("%U in %.80q", r, s)
		}
	}
}

func TestCardKeepsSlacksLimits(t *testing.T) {
	for _, s := range []string{"x", strings.Repeat("W", 5000), strings.Repeat("世", 5000)} {
		m := render(t, viewOf(s, 40))
		blocks := decode(t, m.Blocks).([]any)
		if len(blocks) > 50 {
			t.Errorf("%d blocks", len(blocks))
		}
		n, ids := 0, map[any]bool{}
		everyText(blocks, func(_, text string) { n += utf8.RuneCountInString(text) })
		if n > 11000 {
			t.Errorf("%d characters of text", n)
		}
		for _, b := range blocks {
			block := b.(map[string]any)
			if ids[block["block_id"]] {
				t.Errorf("block_id %v stands twice", block["block_id"])
			}
			ids[block["block_id"]] = true
			switch block["type"] {
			case "header":
				if text := block["text"].(map[string]any)["text"].(string); utf8.RuneCountInString(text) > 150 {
					t.Errorf("header of %d characters", utf8.RuneCountInString(text))
				}
			case "actions":
				for _, e := range block["elements"].([]any) {
					if text := e.(map[string]any)["text"].(map[string]any)["text"].(string); len(text) > 75 {
						t.Errorf("button %q", text)
					}
				}
			}
		}
	}
}

func TestCardSaysWhatIsSo(t *testing.T) {
	v := card.View{IncidentID: "iabcdefghijkl", Severity: "critical", State: "contained", Subject: "pod prod/pay on c1",
		Steps: []card.Step{
			{Purpose: "stop", Action: "node/cut-network", Target: "pod prod/pay", State: "verified", Ends: now, Expiry: "release", Witnesses: []string{"7 packets dropped"}},
			{Purpose: "full", Action: "kubernetes/isolate-pod", Target: "pod prod/pay", State: "held", Ends: now, Expiry: "review"},
			{Purpose: "full", Action: "aws/deactivate-keys", Target: "access-key AKIAEXAMPLE", State: "failed"},
		},
		Decisions: []card.Decision{{Kind: "approve", Person: "ada", At: now, Plan: digestB}},
		Waiting:   &card.Exposure{Currency: "USD", Mean: 50000000, P50: 123456789, P90: 987654321, WaitingPerMinute: 250},
	}
	var all strings.Builder
	for _, b := range decode(t, render(t, v).Blocks).([]any) {
		everyTextInOrder(b, &all)
	}
	text := all.String()
	for _, want := range []string{"Critical incident iabcdefghijkl", "verified: its effect was observed", "7 packets dropped",
		"held, asserted only: nothing here can observe its effect", "people are asked again at 2026-11-23 04:00 UTC", "comes off by itself", "FAILED",
		"Approved by ada at 04:00:00 UTC, plan bbbbbbbbbbbb", "is done: USD 500,000 (half of all cases up to USD 1,234,567, nine of ten up to USD 9,876,543)", "Each minute of waiting: USD 2.50"} {
		if !strings.Contains(text, want) {
			t.Errorf("the card does not say %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "defaults") || strings.Contains(text, "Approve recommended") {
		t.Errorf("the card says too much:\n%s", text)
	}
}

func everyTextInOrder(v any, out *strings.Builder) {
	switch v := v.(type) {
	case map[string]any:
		for _, k := range []string{"text", "elements"} {
			if s, ok := v[k].(string); ok {
				out.WriteString(s)
			} else {
				everyTextInOrder(v[k], out)
			}
		}
	case []any:
		for _, inner := range v {
			everyTextInOrder(inner, out)
		}
		out.WriteString("\n")
	}
}

func TestSecretsDoNotReachTheCard(t *testing.T) {
	const secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
	m := render(t, viewOf("aws_secret_access_key="+secret, 1))
	if bytes.Contains(m.Blocks, []byte(secret)) || strings.Contains(m.Text, secret) {
		t.Error("a secret is on the card")
	}
}

func onePlan(name string) *plan.Plan {
	return &plan.Plan{APIVersion: plan.APIVersion, Kind: plan.Kind, IncidentID: "iabcdefghijkl", CorrelationKey: "k", Purpose: plan.Full, Option: "everything",
		Playbook: plan.PlaybookRef{Name: "p", Version: 1, Digest: digestA}, Detections: []string{digestA},
		Steps: []plan.Step{{Action: plan.AWSDeactivateKeys, Target: plan.Target{Kind: plan.AccessKey, Scope: "123456789012", Name: name, UID: name}, DurationSeconds: 3600, Expiry: plan.Review,
			Closure: &plan.Closure{Of: "access keys of the user that owns " + name, Max: 10}, Collateral: []string{name}}}}
}

func modal(t testing.TB, a card.Ask) (any, string) {
	t.Helper()
	if a.Seal == nil {
		a.Seal = func(string) (string, error) { return "t1.x", nil }
	}
	raw, shown, err := card.Modal(a)
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, raw), shown
}

func FuzzModalStructure(f *testing.F) {
	for _, s := range []string{"AKIAEXAMPLEEXAMPLE00", "", "<!channel>", "\u202e", strings.Repeat("世", 84), "a b", `"`} {
		f.Add(s)
	}
	want := map[authz.DecisionKind]any{}
	kinds := []authz.DecisionKind{authz.Approve, authz.Deny, authz.Release, authz.Retire, authz.Extend}
	for _, k := range kinds {
		v, _ := modal(f, card.Ask{Decision: k, Plan: onePlan("x")})
		want[k] = skeleton(v)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !utf8.ValidString(s) || len(s) > 253 {
			t.Skip("no plan holds such a name")
		}
		for _, k := range kinds {
			v, _ := modal(t, card.Ask{Decision: k, Plan: onePlan(s)})
			if diff := cmp.Diff(want[k], skeleton(v)); diff != "" {
				t.Fatalf("%s of %q:\n%s", k, s, diff)
			}
			everyText(v, func(_, text string) { checkText(t, text) })
		}
	})
}

func TestModalShowsThePlanAndNothingElse(t *testing.T) {
	p := onePlan("AKIAEXAMPLEEXAMPLE00")
	digest, err := p.Digest()
	if err != nil {
		t.Fatal(err)
	}
	sealed := ""
	v, shown := modal(t, card.Ask{Decision: authz.Approve, Plan: p, Others: []card.Offer{{Option: "everything", Plan: digest}, {Option: "less", Plan: digestB}},
		Seal: func(s string) (string, error) { sealed = s; return "t1.x", nil }})
	if sealed != shown || !plan.ValidDigest(shown) {
		t.Errorf("shown %q, sealed %q", shown, sealed)
	}
	var all strings.Builder
	for _, b := range v.(map[string]any)["blocks"].([]any) {
		everyTextInOrder(b, &all)
	}
	for _, want := range []string{digest, "aws/deactivate-keys", "AKIAEXAMPLEEXAMPLE00 in 123456789012, UID AKIAEXAMPLEEXAMPLE00", "For 1h, then people are asked again", "up to 10", "Also hit"} {
		if !strings.Contains(all.String(), want) {
			t.Errorf("the modal does not say %q:\n%s", want, all.String())
		}
	}
	_, again, err := card.Shown(authz.Approve, p)
	if err != nil || again != shown {
		t.Errorf("the auditor's digest is %q, %v", again, err)
	}
	if _, other, _ := card.Shown(authz.Approve, onePlan("AKIAEXAMPLEEXAMPLE01")); other == shown {
		t.Error("another plan is shown alike")
	}
	if _, other, _ := card.Shown(authz.Deny, p); other == shown {
		t.Error("another decision is shown alike")
	}
	if _, _, err := card.Modal(card.Ask{Decision: authz.Approve, Plan: p, Others: []card.Offer{{Option: "a", Plan: digestA}, {Option: "b", Plan: digestB}}, Seal: func(string) (string, error) { return "x", nil }}); err == nil {
		t.Error("a plan that is not on offer was shown among others")
	}
}

func TestNamesThatLookAlikeAreShownApart(t *testing.T) {
	seen := map[string]string{}
	for _, name := range []string{"admin", "аdmin", "admin\u200b", "admin ", "ad min", "ad  min", "\u202enimda", `"admin"`} {
		_, shown, err := card.Shown(authz.Approve, onePlan(name))
		if err != nil {
			t.Fatal(err)
		}
		if seen[shown] != "" {
			t.Errorf("%q and %q are shown alike", name, seen[shown])
		}
		seen[shown] = name
	}
}

// TestModalNamesTheNativeFiles: with the whole digest, outside what the decision says was shown.
func TestModalNamesTheNativeFiles(t *testing.T) {
	p := onePlan("AKIAEXAMPLEEXAMPLE00")
	digest, err := p.Digest()
	if err != nil {
		t.Fatal(err)
	}
	found := false
	v, shown := modal(t, card.Ask{Decision: authz.Approve, Plan: p})
	everyText(v, func(_, text string) { found = found || text == "tourniquet plan show "+digest })
	if _, want, err := card.Shown(authz.Approve, p); err != nil || !found || shown != want {
		t.Errorf("found %t, shown %s, want %s, %v", found, shown, want, err)
	}
}
