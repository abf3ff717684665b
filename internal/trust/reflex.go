package trust

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Deed is what a reflex does on the node, with nobody asked.
type Deed string

// The deeds, from the mildest. Kill cannot be undone.
const (
	Cut    Deed = "cut"    // the pod's network
	Freeze Deed = "freeze" // all processes of the pod
	Kill   Deed = "kill"   // the one process that matched
)

// Deeds returns all deeds.
func Deeds() []Deed { return []Deed{Cut, Freeze, Kill} }

// Valid reports whether d is a known deed.
func (d Deed) Valid() bool { return slices.Contains(Deeds(), d) }

// LongestReflex is the longest that any reflex may last: by then a containment has adopted it, or it lapses.
const LongestReflex = 60 * time.Second

// ReflexCeiling is what reflexes may do at all on one node. The zero value allows none.
type ReflexCeiling struct {
	Allow []Deed        `yaml:"allow" json:"allow"`
	Max   time.Duration `yaml:"max" json:"max"`
	// Budget bounds the reflexes of one node, Namespace those of one namespace on it, both in the budget's window.
	Budget    Budget `yaml:"budget" json:"budget"`
	Namespace int    `yaml:"namespace" json:"namespace"`
	// CoolDown is how long the siblings of a struck pod on the same node are spared: a node cannot see what others spend.
	CoolDown time.Duration `yaml:"cool_down" json:"cool_down"`
	// HostNetwork and StaticPods allow reflexes on pods that the node itself may lean on.
	HostNetwork bool `yaml:"host_network,omitempty" json:"host_network,omitempty"`
	StaticPods  bool `yaml:"static_pods,omitempty" json:"static_pods,omitempty"`
	// Spare are labels, key=value or key alone, of pods that no reflex touches.
	Spare []string `yaml:"spare,omitempty" json:"spare,omitempty"`
}

func (c ReflexCeiling) validate() error {
	if len(c.Allow) == 0 {
		return nil
	}
	var errs []error
	for i, d := range c.Allow {
		if !d.Valid() {
			errs = append(errs, fmt.Errorf("ceilings.reflex.allow[%d]: %.20q is not one of %v", i, d, Deeds()))
		}
	}
	if c.Max < time.Second || c.Max > LongestReflex {
		errs = append(errs, fmt.Errorf("ceilings.reflex.max: must be between a second and %s", LongestReflex))
	}
	if c.Budget.Effects <= 0 || c.Budget.Window <= 0 || c.Namespace <= 0 || c.CoolDown <= 0 {
		errs = append(errs, errors.New("ceilings.reflex: budget.effects, budget.window, namespace and cool_down must all be positive"))
	}
	for i, s := range c.Spare {
		if key, _, _ := strings.Cut(s, "="); key == "" {
			errs = append(errs, fmt.Errorf("ceilings.reflex.spare[%d]: %.80q is not a label", i, s))
		}
	}
	return errors.Join(errs...)
}

// Spares reports whether a pod with these labels is not to be touched by a reflex.
func (c ReflexCeiling) Spares(labels map[string]string) bool {
	return slices.ContainsFunc(c.Spare, func(s string) bool {
		key, want, exact := strings.Cut(s, "=")
		value, has := labels[key]
		return has && (!exact || value == want)
	})
}
