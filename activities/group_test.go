package activities_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/authz/authztest"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/trust"
)

// TestI19GroupComesOffInReverse: of three steps the last one fails; the gate by itself takes the others off, the last one
// first, each once, and one that cannot be undone keeps none of the others on.
func TestI19GroupComesOffInReverse(t *testing.T) {
	for name, tc := range map[string]struct {
		fail string
		want []string // the undos
	}{
		"all can be undone":         {"", []string{"undo kubernetes/cut-rbac", "undo kubernetes/isolate-pod"}},
		"the first of them cannot":  {"undo kubernetes/cut-rbac", []string{"undo kubernetes/isolate-pod", "undo kubernetes/cut-rbac"}},
		"the second of them cannot": {"undo kubernetes/isolate-pod", []string{"undo kubernetes/cut-rbac", "undo kubernetes/isolate-pod"}},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			b := newBench(t, t.TempDir())
			b.w.Book = b.w.SignBook(strings.Replace(authztest.Playbook, "      - {action: kubernetes/cut-rbac, review: 4h}\n",
				"      - {action: kubernetes/cut-rbac, review: 4h}\n      - {action: kubernetes/block-writes, review: 4h}\n", 1))
			b.books = []authz.Book{b.w.Book}
			p := b.w.Plan(plan.Full)
			yes := b.w.Decide(authz.Approve, p, "ana", trust.Click)
			b.sys.fail["apply kubernetes/block-writes"] = activities.ErrConflict
			for step := range 3 {
				if _, err := b.gate.ApplyStep(ctx, b.input(p, step, yes)); (err == nil) != (step < 2) {
					t.Fatalf("step %d: %v", step, err)
				}
			}
			if tc.fail != "" {
				b.sys.fail[tc.fail] = errors.New("not now")
			}
			if err := b.gate.Tend(ctx); (err == nil) != (tc.fail == "") {
				t.Errorf("tend says %v", err)
			}
			b.sys.fail = map[string]error{} // the next look finds the system well again
			b.reopen(t)
			for range 2 {
				if err := b.gate.Tend(ctx); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(append([]string{"apply kubernetes/isolate-pod", "apply kubernetes/cut-rbac"}, tc.want...), b.sys.effects()); diff != "" {
				t.Errorf("effects (-want +got):\n%s", diff)
			}
		})
	}
}
