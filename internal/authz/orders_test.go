package authz_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/authz/authztest"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/trust"
)

// The moves of the model: who decides, a decision that comes a second time, a tier that lapses, and the time after which
// decisions made so far no longer hold.
var moves = []string{"ana approves", "ben approves", "cleo approves", "ben denies", "again", "escalate", "expire"}

// model is what may be applied, in the simplest words there are: one of oncall (ana) or two of leads (ben, cleo) approved
// within the hour, and nobody ever denied.
type model struct {
	approved map[string]time.Duration // person → when last
	denied   bool
	now      time.Duration
}

func (m *model) allows() bool {
	fresh := func(who string) bool { at, ok := m.approved[who]; return ok && m.now-at < time.Hour }
	return !m.denied && (fresh("ana") || (fresh("ben") && fresh("cleo")))
}

// TestI3EveryOrderOfDecisions runs every order of up to six moves, and asks the judge after each: it allows what the model
// allows, and nothing else.
func TestI3EveryOrderOfDecisions(t *testing.T) {
	t.Parallel()
	w := authztest.New(start)
	p := w.Plan(plan.Full)
	signed := map[string]authz.Envelope{}
	decide := func(kind authz.DecisionKind, who string, at time.Duration) authz.Envelope {
		key := fmt.Sprint(kind, who, at)
		if _, ok := signed[key]; !ok {
			w.Now = start.Add(at)
			signed[key] = w.Decide(kind, p, who, trust.Click)
		}
		return signed[key]
	}
	orders, allowed := 0, 0
	verdicts := map[string]bool{} // by what is before the judge: many orders bring the same
	var walk func(path []string, m model, before []authz.Envelope)
	walk = func(path []string, m model, before []authz.Envelope) {
		key := fmt.Sprint(m.now, payloads(before))
		got, known := verdicts[key]
		if !known {
			got = judged(t, w, p, before, start.Add(m.now))
			verdicts[key] = got
		}
		if want := m.allows(); got != want {
			t.Fatalf("after %q the judge allows: %v, want %v", strings.Join(path, ", "), got, want)
		}
		orders++
		if got {
			allowed++
		}
		if len(path) == 6 {
			return
		}
		for _, move := range moves {
			next, then := m.move(move), before
			who, verb, _ := strings.Cut(move, " ")
			switch verb {
			case "approves":
				then = append(then[:len(then):len(then)], decide(authz.Approve, who, m.now))
			case "denies":
				then = append(then[:len(then):len(then)], decide(authz.Deny, who, m.now))
			}
			if move == "again" && len(then) > 0 {
				then = append(then[:len(then):len(then)], then[len(then)-1])
			}
			walk(append(path[:len(path):len(path)], move), next, then)
		}
	}
	walk(nil, model{approved: map[string]time.Duration{}}, nil)
	if orders != 137257 || allowed == 0 || allowed == orders { // 7^0 + … + 7^6
		t.Errorf("%d orders, %d allowed", orders, allowed)
	}
	t.Logf("%d orders, %d allowed, %d different cases before the judge", orders, allowed, len(verdicts))
}

func (m model) move(name string) model {
	next := model{approved: map[string]time.Duration{}, denied: m.denied, now: m.now}
	for who, at := range m.approved {
		next.approved[who] = at
	}
	switch who, verb, _ := strings.Cut(name, " "); {
	case verb == "approves":
		next.approved[who] = m.now
	case verb == "denies":
		next.denied = true
	case name == "escalate":
		next.now += 6 * time.Minute
	case name == "expire":
		next.now += time.Hour
	}
	return next
}

// payloads names the envelopes in their order; one that comes again is no other case, since the judge reads each once.
func payloads(all []authz.Envelope) string {
	var b strings.Builder
	for _, e := range all {
		if sig := e.Signatures[0].Sig[:12]; !strings.Contains(b.String(), sig) {
			b.WriteString(sig)
		}
	}
	return b.String()
}

func judged(t *testing.T, w *authztest.World, p *plan.Plan, decisions []authz.Envelope, now time.Time) bool {
	t.Helper()
	_, err := authz.Judge(w.TrustFile, []authz.Book{w.Book}, p, authz.Request{Verb: authz.VerbApply}, append([]authz.Envelope{w.Envelope}, decisions...), authz.Spent{}, now)
	var r *authz.Refusal
	if err != nil && !errors.As(err, &r) {
		t.Fatal(err)
	}
	return err == nil
}
