package kubernetes

import (
	"fmt"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/internal/canonical"
	"tourniquet.dev/tourniquet/internal/plan"
)

// maxState bounds a pre-image's state.
const maxState = 256 << 10

// imageOf records a state as a pre-image.
func imageOf(t plan.Target, state any) (plan.PreImage, error) {
	raw, err := canonical.Marshal(state)
	if err != nil {
		return plan.PreImage{}, fmt.Errorf("capture %s: %w", t, err)
	}
	return plan.PreImage{Target: t, Digest: plan.DigestOf(raw), State: raw}, nil
}

// stateOf reads a pre-image back into state.
func stateOf(image plan.PreImage, state any) error {
	raw, err := canonical.Canonicalize(image.State) // whoever carried it may have spaced or escaped it anew
	if err == nil {
		err = canonical.Unmarshal(raw, state, maxState)
	}
	if err != nil || plan.DigestOf(raw) != image.Digest {
		return fmt.Errorf("pre-image of %s: is not what its digest names: %w", image.Target, activities.ErrRefused)
	}
	return nil
}

// same compares two states by their canonical form.
func same(a, b any) bool {
	x, errX := canonical.Digest(a)
	y, errY := canonical.Digest(b)
	return errX == nil && errY == nil && x == y
}

// effectOf is the effect on a target whose state is now post.
func effectOf(t plan.Target, did, object string, post any) (plan.Effect, error) {
	digest, err := canonical.Digest(post)
	if err != nil {
		return plan.Effect{}, fmt.Errorf("state of %s: %w", t, err)
	}
	return plan.Effect{Target: t, Did: did, Object: object, Post: digest}, nil
}

// inCluster refuses a step for another cluster before anything is asked.
func (s *System) inCluster(t plan.Target) error {
	if t.Scope != s.options.Cluster {
		return fmt.Errorf("%s: is of cluster %.64q, this is %s: %w", t, t.Scope, s.options.Cluster, activities.ErrRefused)
	}
	return nil
}
