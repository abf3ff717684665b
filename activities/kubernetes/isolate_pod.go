package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/sys/fault"
)

// podState is a pod as a pre-image records it: what isolating it changes, and nothing that moves by itself.
type podState struct {
	UID string `json:"uid"`
	// InPlace pods keep their labels: their controller would make a second one that clashes with this one.
	InPlace bool              `json:"in_place"`
	Labels  map[string]string `json:"labels"`
	// Policies are our own NetworkPolicies for this pod, by name, with the digest of what they say.
	Policies map[string]string `json:"policies"`
}

// isolateReader observes kubernetes/isolate-pod.
type isolateReader struct{ *System }

// pod reads a pod by name and refuses one that only bears the name.
func (s *System) pod(ctx context.Context, t plan.Target) (*corev1.Pod, error) {
	if err := s.inCluster(t); err != nil {
		return nil, err
	}
	if t.Kind != plan.Pod {
		return nil, fmt.Errorf("%s: is no pod: %w", t, activities.ErrRefused)
	}
	p, err := s.api.CoreV1().Pods(t.Namespace).Get(ctx, t.Name, metav1.GetOptions{})
	if err != nil {
		return nil, apiError("get "+t.String(), err, false)
	}
	if string(p.UID) != t.UID {
		return nil, fmt.Errorf("%s: another pod bears the name now (%s, not %s): %w", t, p.UID, t.UID, activities.ErrConflict)
	}
	return p, nil
}

func (s *System) podTarget(p *corev1.Pod) plan.Target {
	return plan.Target{Kind: plan.Pod, Scope: s.options.Cluster, Namespace: p.Namespace, Name: p.Name, UID: string(p.UID)}
}

// expandPod is Expand for actions on exactly one pod.
func (s *System) expandPod(ctx context.Context, step plan.Step) ([]plan.Target, error) {
	p, err := s.pod(ctx, step.Target)
	if err != nil {
		return nil, err
	}
	return []plan.Target{s.podTarget(p)}, nil
}

// Expand returns the pod as it is now.
func (i isolateReader) Expand(ctx context.Context, step plan.Step) ([]plan.Target, error) {
	p, err := i.pod(ctx, step.Target)
	if err != nil {
		return nil, err
	}
	if owner := metav1.GetControllerOf(p); owner != nil && owner.Kind == "Node" {
		return nil, fmt.Errorf("%s: is a static pod of its node; the API server cannot isolate it: %w", step.Target, activities.ErrRefused)
	}
	return []plan.Target{i.podTarget(p)}, nil
}

// inPlace says whether the pod must keep its labels. A controller that lets go of a pod adopts another or starts one:
// wanted for a ReplicaSet, a clash for what has an identity, a volume, a node or a count of its own.
func inPlace(p *corev1.Pod) bool {
	owner := metav1.GetControllerOf(p)
	return owner != nil && owner.Kind != "ReplicaSet" && owner.Kind != "ReplicationController"
}

// look reads the pod alone. A list takes the API server up to 100 ms, for it waits for etcd's next word of progress, so
// that no change waits for one.
func (i isolateReader) look(ctx context.Context, t plan.Target) (podState, *corev1.Pod, error) {
	p, err := i.pod(ctx, t)
	if err != nil {
		return podState{}, nil, err
	}
	return podState{UID: string(p.UID), InPlace: inPlace(p), Labels: orEmpty(p.Labels), Policies: map[string]string{}}, p, nil
}

// read reads the pod with our policies for it.
func (i isolateReader) read(ctx context.Context, t plan.Target) (podState, *corev1.Pod, error) {
	state, p, err := i.look(ctx, t)
	if err != nil {
		return podState{}, nil, err
	}
	policies, err := i.ownPolicies(ctx, t)
	if err != nil {
		return podState{}, nil, err
	}
	for _, policy := range policies {
		if state.Policies[policy.Name], err = policyDigest(&policy); err != nil {
			return podState{}, nil, err
		}
	}
	return state, p, nil
}

// Capture records the pod's labels.
func (i isolateReader) Capture(ctx context.Context, _ plan.Step, t plan.Target) (plan.PreImage, error) {
	state, _, err := i.read(ctx, t)
	if err != nil {
		return plan.PreImage{}, err
	}
	return imageOf(t, state)
}

// quarantined are the labels that the pod shall bear. Everything that a Service, a controller or another policy could
// select it by goes, unless it must stay in place.
func (s podState) quarantined(incident string) map[string]string {
	out := map[string]string{}
	if s.InPlace {
		maps.Copy(out, s.Labels)
	}
	out[LabelQuarantine] = incident
	return out
}

// removedLabels is the annotation's list of the labels that the swap takes off.
func (s podState) removedLabels() string {
	if s.InPlace {
		return ""
	}
	var out []string
	for k, v := range s.Labels {
		if !strings.HasPrefix(k, Prefix) {
			out = append(out, k+"="+v)
		}
	}
	slices.Sort(out)
	return strings.Join(out, ",")
}

// swapped reports whether now is the pre-image with its labels swapped, for whichever incident.
func (s podState) swapped(now podState) bool {
	incident := now.Labels[LabelQuarantine]
	return incident != "" && maps.Equal(now.Labels, s.quarantined(incident))
}

// Verify reads labels and policy back. Nothing here can observe a network plugin, so it never says more than asserted.
func (i isolateReader) Verify(ctx context.Context, in plan.Intent, _ plan.Receipt) (plan.Observation, error) {
	out := i.observation(in)
	out.Finding = plan.Asserted
	for _, t := range in.Targets {
		state, p, err := i.read(ctx, t)
		if errors.Is(err, activities.ErrConflict) {
			out.Finding, out.Witnesses = plan.NotHolding, append(out.Witnesses, err.Error())
			continue
		}
		if err != nil {
			return i.observation(in), fmt.Errorf("verify %s: %w", t, err)
		}
		label := state.Labels[LabelQuarantine]
		want, err := policyDigest(i.policyFor(in, t, label))
		if err != nil {
			return i.observation(in), err
		}
		if label == "" || state.Policies[in.ObjectName()] != want {
			out.Finding = plan.NotHolding
			out.Witnesses = append(out.Witnesses, fmt.Sprintf("%s: quarantine label %q, policy %s stands as made: %t", t, label, in.ObjectName(), state.Policies[in.ObjectName()] == want))
			continue
		}
		out.Witnesses = append(out.Witnesses, fmt.Sprintf("%s bears label %s=%s and deny-all policy %s selects it", t, LabelQuarantine, label, in.ObjectName()),
			i.witnessHold(t, p.Annotations[AnnotationHold]))
		out.Witnesses = append(out.Witnesses, i.stillReached(ctx, p)...)
	}
	out.Witnesses = append(out.Witnesses, "asserted only: no API says that a network plugin enforces a policy, and established connections live on")
	return out, nil
}

// stillReached lists what still selects the pod in spite of the isolation: a policy that allows adds to ours, it does
// not yield to it.
func (i isolateReader) stillReached(ctx context.Context, p *corev1.Pod) []string {
	var out []string
	policies, err := i.api.NetworkingV1().NetworkPolicies(p.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return []string{"not seen: other policies: " + apiError("list network policies", err, false).Error()}
	}
	for _, policy := range policies.Items {
		selector, err := metav1.LabelSelectorAsSelector(&policy.Spec.PodSelector)
		if err == nil && selector.Matches(labels.Set(p.Labels)) && policy.Labels[LabelPod] == "" && len(policy.Spec.Ingress)+len(policy.Spec.Egress) > 0 {
			out = append(out, fmt.Sprintf("policy %.63s of others still selects the pod and allows traffic", policy.Name))
		}
	}
	return out
}

type isolatePod struct{ isolateReader }

// Apply makes our deny-all policy and swaps the pod's labels, in this order.
func (i isolatePod) Apply(ctx context.Context, in plan.Intent) (plan.Receipt, error) {
	r := i.receipt(in)
	for _, image := range in.PreImages {
		effect, err := i.applyOne(ctx, in, image)
		fault.Point("apply.call/during")
		if err != nil {
			return r, fmt.Errorf("isolate %s: %w", image.Target, err)
		}
		r.Effects = append(r.Effects, effect)
	}
	r.Phase, r.At = plan.Applied, i.now()
	return r, nil
}

func (i isolatePod) applyOne(ctx context.Context, in plan.Intent, image plan.PreImage) (plan.Effect, error) {
	var pre podState
	if err := stateOf(image, &pre); err != nil {
		return plan.Effect{}, err
	}
	hold, err := i.signHold(in, image)
	if err != nil {
		return plan.Effect{}, err
	}
	incident := in.IncidentID
	err = persist(ctx, func(ctx context.Context) error {
		now, p, err := i.look(ctx, image.Target)
		switch {
		case err != nil:
			return err
		case pre.swapped(now):
			incident = now.Labels[LabelQuarantine] // another incident's, where that was first
		case !maps.Equal(now.Labels, pre.Labels):
			return fmt.Errorf("its labels are not what the plan saw: %w", activities.ErrConflict)
		}
		if err := i.ensurePolicy(ctx, in, image.Target, incident); err != nil {
			return err
		}
		if pre.swapped(now) && p.Annotations[AnnotationHold] == hold {
			return nil
		}
		change := newPatch(p.ObjectMeta).set("/metadata/labels", pre.quarantined(incident)).
			annotate(p.ObjectMeta, map[string]string{AnnotationPreImage: pre.removedLabels(), AnnotationHold: hold})
		return i.patchPod(ctx, image.Target, change)
	})
	if err != nil {
		return plan.Effect{}, err
	}
	post, _, err := i.read(ctx, image.Target)
	if err != nil {
		return plan.Effect{}, err
	}
	did := "labels swapped, deny-all policy made"
	if pre.InPlace {
		did = "quarantine label added in place, deny-all policy made"
	}
	return effectOf(image.Target, did, in.ObjectName(), post)
}

// Undo puts the labels back and then deletes our policies for the pod. A pod that is gone leaves the policies only.
func (i isolatePod) Undo(ctx context.Context, in plan.Intent, _ plan.Receipt) error {
	var errs []error
	for _, image := range slices.Backward(in.PreImages) {
		if err := i.undoOne(ctx, image); err != nil {
			errs = append(errs, fmt.Errorf("undo isolate %s: %w", image.Target, err))
		}
	}
	return errors.Join(errs...)
}

func (i isolatePod) undoOne(ctx context.Context, image plan.PreImage) error {
	var pre podState
	if err := stateOf(image, &pre); err != nil {
		return err
	}
	err := persist(ctx, func(ctx context.Context) error {
		now, p, err := i.look(ctx, image.Target)
		switch {
		case err != nil:
			return err
		case maps.Equal(now.Labels, pre.Labels) && p.Annotations[AnnotationPreImage] == "" && p.Annotations[AnnotationHold] == "":
			return nil
		case !maps.Equal(now.Labels, pre.Labels) && !pre.swapped(now):
			return fmt.Errorf("its labels were changed by someone else: %w", activities.ErrConflict)
		}
		change := newPatch(p.ObjectMeta).set("/metadata/labels", pre.Labels).
			annotate(p.ObjectMeta, map[string]string{AnnotationPreImage: "", AnnotationHold: ""})
		return i.patchPod(ctx, image.Target, change)
	})
	if err != nil && !i.gone(ctx, image.Target) {
		return err
	}
	return i.deletePolicies(ctx, image.Target, pre.Policies)
}

// gone reports whether the very pod is certainly no longer there.
func (s *System) gone(ctx context.Context, t plan.Target) bool {
	p, err := s.api.CoreV1().Pods(t.Namespace).Get(ctx, t.Name, metav1.GetOptions{})
	return isNotFound(err) || (err == nil && string(p.UID) != t.UID)
}

func (s *System) patchPod(ctx context.Context, t plan.Target, p patch) error {
	raw, err := p.encode()
	if err != nil {
		return err
	}
	_, err = s.api.CoreV1().Pods(t.Namespace).Patch(ctx, t.Name, types.JSONPatchType, raw, metav1.PatchOptions{FieldManager: "tourniquet"})
	return apiError("patch "+t.String(), err, true)
}

func orEmpty(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}
