package trust_test

import (
	"strings"
	"testing"
	"time"

	"tourniquet.dev/tourniquet/internal/authz/authztest"
	"tourniquet.dev/tourniquet/internal/trust"
)

func TestReflexCeiling(t *testing.T) {
	file := *authztest.New(time.Now()).TrustFile
	sound := trust.ReflexCeiling{Allow: []trust.Deed{trust.Cut}, Max: time.Minute, Budget: trust.Budget{Effects: 3, Window: time.Hour}, Namespace: 1,
		CoolDown: time.Minute, Spare: []string{"tier=core", "never"}}
	for name, tc := range map[string]struct {
		change func(*trust.ReflexCeiling)
		want   string
	}{
		"sound":           {func(*trust.ReflexCeiling) {}, ""},
		"none":            {func(c *trust.ReflexCeiling) { *c = trust.ReflexCeiling{} }, ""},
		"an unknown deed": {func(c *trust.ReflexCeiling) { c.Allow = []trust.Deed{"burn"} }, "ceilings.reflex.allow[0]"},
		"above a minute":  {func(c *trust.ReflexCeiling) { c.Max = 61 * time.Second }, "ceilings.reflex.max"},
		"no budget":       {func(c *trust.ReflexCeiling) { c.Budget.Effects = 0 }, "must all be positive"},
		"no cool-down":    {func(c *trust.ReflexCeiling) { c.CoolDown = 0 }, "must all be positive"},
		"no label":        {func(c *trust.ReflexCeiling) { c.Spare = []string{"=x"} }, "ceilings.reflex.spare[0]"},
	} {
		file.Ceilings.Reflex = sound
		tc.change(&file.Ceilings.Reflex)
		err := file.Validate()
		if (err == nil) != (tc.want == "") || (err != nil && !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for label, want := range map[string]bool{"tier=core": true, "tier=web": false, "never=": true, "other=core": false} {
		k, v, _ := strings.Cut(label, "=")
		if got := sound.Spares(map[string]string{k: v}); got != want {
			t.Errorf("spares %s: %t", label, got)
		}
	}
}
