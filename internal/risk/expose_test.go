package risk_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tourniquet.dev/tourniquet/internal/risk"
)

func delayed(d time.Duration) [3]time.Duration { return [3]time.Duration{d, d, d} }

func TestExposureIsAFunctionOfItsSeed(t *testing.T) {
	in := risk.Inputs{Before: 90, After: 10, Delay: delayed(time.Minute)}
	if diff := cmp.Diff(risk.Expose(in, 7), risk.Expose(in, 7)); diff != "" {
		t.Errorf("replay differs:\n%s", diff)
	}
	if risk.Expose(in, 7).Mean == risk.Expose(in, 8).Mean {
		t.Error("another seed gave the same mean: the seed is not used")
	}
}

// TestMoreIsWorse: on the same worlds a later start, a wider reach and a smaller cut never lose less.
func TestMoreIsWorse(t *testing.T) {
	base := risk.Inputs{Before: 80, After: 10, Delay: delayed(time.Minute)}
	mean := func(change func(*risk.Inputs)) int64 {
		in := base
		change(&in)
		return risk.Expose(in, 42).Mean
	}
	now := mean(func(*risk.Inputs) {})
	for name, worse := range map[string]int64{
		"later":           mean(func(in *risk.Inputs) { in.Delay = delayed(2 * time.Hour) }),
		"wider reach":     mean(func(in *risk.Inputs) { in.Before = 100; in.After = 50 }),
		"a smaller cut":   mean(func(in *risk.Inputs) { in.After = 80 }),
		"with collateral": mean(func(in *risk.Inputs) { in.CollateralPerHour.Minor = 100_000_00; in.Duration = 10 * time.Hour }),
	} {
		if worse <= now {
			t.Errorf("%s: %d, not more than %d", name, worse, now)
		}
	}
	if e := risk.Expose(base, 42); e.P10 > e.P50 || e.P50 > e.P90 || e.WaitingPerMinute <= 0 || !e.Defaults {
		t.Errorf("exposure %+v", e)
	}
}
