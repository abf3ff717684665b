package relay_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/starter/decide/relay"
	"tourniquet.dev/tourniquet/workflows"
)

// line is a Temporal that is down until a time, and knows some workflows.
type line struct {
	mu      sync.Mutex
	up      time.Time
	closed  []string
	poison  string
	sent    []string
	settled []string
}

func (l *line) Send(_ context.Context, id string, d workflows.DecisionMade) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case time.Now().Before(l.up):
		return errors.New("down")
	case slices.Contains(l.closed, id):
		return relay.ErrClosed
	case l.poison != "" && d.Decision.Payload == l.poison:
		return errors.New("too large")
	}
	l.sent = append(l.sent, id+" "+d.Decision.Payload)
	return nil
}

func (l *line) settle(i relay.Item, o relay.Outcome) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.settled = append(l.settled, i.Digest+" "+string(o))
	return nil
}

func item(name string, workflowIDs ...string) relay.Item {
	return relay.Item{Digest: name, Decision: authz.Envelope{Payload: name}, Workflows: workflowIDs}
}

func TestRelay(t *testing.T) {
	for name, tc := range map[string]struct {
		line    *line
		down    time.Duration
		left    []relay.Item // by the ledger
		add     []relay.Item
		sent    []string
		settled []string
		waiting int
	}{
		"one decision to its incident": {add: []relay.Item{item("a", "i")}, sent: []string{"i a"}, settled: []string{"a signalled"}},
		"a release to both workflows":  {add: []relay.Item{item("a", "i", "c")}, sent: []string{"i a", "c a"}, settled: []string{"a signalled"}},
		"what the ledger had left, first": {left: []relay.Item{item("a", "i"), item("b", "i")}, add: []relay.Item{item("c", "i")},
			sent: []string{"i a", "i b", "i c"}, settled: []string{"a signalled", "b signalled", "c signalled"}},
		"an hour without Temporal": {down: time.Hour, add: []relay.Item{item("a", "i"), item("b", "j")}, sent: []string{"i a", "j b"},
			settled: []string{"a signalled", "b signalled"}},
		"a closed incident, a containment that runs": {line: &line{closed: []string{"i"}}, add: []relay.Item{item("a", "i", "c")}, sent: []string{"c a"},
			settled: []string{"a signalled"}},
		"everything closed": {line: &line{closed: []string{"i", "c"}}, add: []relay.Item{item("a", "i", "c")}, settled: []string{"a closed"}},
		"one that Temporal never takes does not keep others": {line: &line{poison: "a"}, add: []relay.Item{item("a", "i"), item("b", "i")},
			sent: []string{"i b"}, settled: []string{"b signalled"}, waiting: 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := tc.line
				if l == nil {
					l = &line{}
				}
				l.up = time.Now().Add(tc.down)
				r := relay.New(relay.Options{Sender: l, Settled: l.settle, Timeout: time.Second, Pause: time.Second, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}, tc.left)
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
				defer cancel()
				var outcomes []<-chan relay.Outcome
				for _, i := range tc.add {
					outcomes = append(outcomes, r.Add(i))
				}
				if err := r.Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("ended with %v", err)
				}
				if diff := cmp.Diff(tc.sent, l.sent); diff != "" {
					t.Error(diff)
				}
				if diff := cmp.Diff(tc.settled, l.settled); diff != "" {
					t.Error(diff)
				}
				if r.Waiting() != tc.waiting {
					t.Errorf("%d wait", r.Waiting())
				}
				if tc.waiting == 0 {
					for _, o := range outcomes {
						<-o
					}
				}
			})
		})
	}
}
