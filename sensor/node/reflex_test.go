package node_test

import (
	"testing"
	"time"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/trust"
	"tourniquet.dev/tourniquet/sensor/hold"
	"tourniquet.dev/tourniquet/sensor/node"
	"tourniquet.dev/tourniquet/sensor/reflex"
)

// raised notes what a reflex cuts.
type raised []hold.Hold

func (r *raised) Raise(h hold.Hold) (bool, error) { *r = append(*r, h); return true, nil }

const reflexBook = `playbook: stolen
version: 1
match: {techniques: [T1552.001], severity: [high]}
contain: [{action: kubernetes/isolate-pod, review: 4h}]
tiers: [{ask: oncall, timeout: 5m}]
reflex: [{do: cut, rules: [aws-credentials-read], confidence: 80, for: 20s}]
`

func TestAMatchStrikesAndTheDetectionSaysSo(t *testing.T) {
	for name, tc := range map[string]struct {
		effects int
		want    string
		cuts    int
	}{
		"within the budget": {5, "cut", 1},
		"the budget is out": {1, "refused: budget-exhausted", 0},
	} {
		t.Run(name, func(t *testing.T) {
			r, cuts := newRig(time.Now()), &raised{}
			_, got := r.play(t, func(o *node.Options) {
				file := *r.world.TrustFile
				file.Ceilings.Reflex = trust.ReflexCeiling{Allow: []trust.Deed{trust.Cut}, Max: time.Minute, Budget: trust.Budget{Effects: tc.effects, Window: time.Hour},
					Namespace: 5, CoolDown: time.Minute}
				reflexes := reflex.Options{Trust: &file, Books: []authz.Book{r.world.SignBook(reflexBook)}, Cgroups: o.Cgroups, Pods: r.pods, Holds: cuts,
					State: t.TempDir(), Log: o.Log, Now: o.Now, Boot: o.Boot}
				var err error
				for range 2 { // the first one dies with an effect paid ahead
					if o.Reflex, err = reflex.New(reflexes); err != nil {
						t.Fatal(err)
					}
				}
			}, attack()...)
			if len(got) != 3 || got[0].Evidence["reflex"] != "" || got[1].Evidence["reflex"] != tc.want || got[2].Evidence["reflex"] != "" {
				t.Fatalf("%d detections, %+v", len(got), got)
			}
			if len(*cuts) != tc.cuts || (tc.cuts == 1 && (*cuts)[0] != hold.Hold{Cgroup: podCgroup, Until: r.boot + 20*time.Second, Bits: hold.Egress | hold.Connect}) {
				t.Errorf("cut %+v", *cuts)
			}
		})
	}
}
