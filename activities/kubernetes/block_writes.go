package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/sys/fault"
)

// BlockedExpression is the heart of the pre-staged policy: a request made with a token that is bound to a listed pod is
// refused. deploy/kubernetes installs it; Verify wants exactly this one.
const BlockedExpression = `!request.userInfo.extra['authentication.kubernetes.io/pod-uid'].exists(u, u in params.data.pods.split(','))`

// holdPrefix, with the intent's short key behind it, is the annotation on the ConfigMap that says which hold lists a pod.
const holdPrefix = Prefix + "hold."

var uidForm = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// writesState is a pod as block-writes' pre-image records it.
type writesState struct {
	UID     string `json:"uid"`
	Blocked bool   `json:"blocked"`
}

// writesReader observes kubernetes/block-writes.
type writesReader struct{ *System }

// Expand returns the pod as it is now.
func (w writesReader) Expand(ctx context.Context, step plan.Step) ([]plan.Target, error) {
	if !uidForm.MatchString(step.Target.UID) {
		return nil, fmt.Errorf("%s: %.40q is not a pod's UID: %w", step.Target, step.Target.UID, activities.ErrRefused)
	}
	return w.expandPod(ctx, step)
}

// Capture records whether the pod is listed. It asks for the list only: the block outlives the pod, whose token does
// so too for a while.
func (w writesReader) Capture(ctx context.Context, _ plan.Step, t plan.Target) (plan.PreImage, error) {
	list, err := w.list(ctx)
	if err != nil {
		return plan.PreImage{}, err
	}
	return imageOf(t, writesState{t.UID, slices.Contains(blocked(list), t.UID)})
}

// list reads the ConfigMap that parameterizes the pre-staged policy.
func (s *System) list(ctx context.Context) (*corev1.ConfigMap, error) {
	list, err := s.api.CoreV1().ConfigMaps(s.options.Namespace).Get(ctx, BlockedPods, metav1.GetOptions{})
	if isNotFound(err) {
		return nil, fmt.Errorf("config map %s/%s: was not installed in peacetime: %w", s.options.Namespace, BlockedPods, activities.ErrRefused)
	}
	if err != nil {
		return nil, apiError("get config map "+BlockedPods, err, false)
	}
	return list, nil
}

// blocked are the UIDs on the list.
func blocked(list *corev1.ConfigMap) []string {
	return slices.DeleteFunc(strings.Split(list.Data[blockedKey], ","), func(uid string) bool { return uid == "" })
}

// Verify reads the list back and checks that policy and binding are the pre-staged ones. Only the pod itself has a
// token that the policy would refuse, so that a refusal cannot be provoked here: it never says more than asserted.
func (w writesReader) Verify(ctx context.Context, in plan.Intent, _ plan.Receipt) (plan.Observation, error) {
	out := w.observation(in)
	list, err := w.list(ctx)
	if err != nil {
		return out, fmt.Errorf("verify %s: %w", in.Step.Action, err)
	}
	out.Finding = plan.Asserted
	for _, t := range in.Targets {
		on := slices.Contains(blocked(list), t.UID)
		if !on {
			out.Finding = plan.NotHolding
		}
		out.Witnesses = append(out.Witnesses, fmt.Sprintf("%s (%s) is on the list %s/%s, version %s: %t", t, t.UID, list.Namespace, list.Name, list.ResourceVersion, on))
	}
	problems, err := w.prestaged(ctx)
	if err != nil {
		return w.observation(in), err
	}
	if len(problems) > 0 {
		out.Finding, out.Witnesses = plan.NotHolding, append(out.Witnesses, problems...)
		return out, nil
	}
	out.Witnesses = append(out.Witnesses, "policy and binding "+BlockedPods+" stand as installed in peacetime and deny",
		"asserted only: a refusal can be provoked with the pod's own token alone; reads, and tokens bound to no pod, are not stopped")
	return out, nil
}

// prestaged compares the policy and its binding with what works.
func (s *System) prestaged(ctx context.Context) (problems []string, err error) {
	admission := s.api.AdmissionregistrationV1()
	policy, err := admission.ValidatingAdmissionPolicies().Get(ctx, BlockedPods, metav1.GetOptions{})
	if isNotFound(err) {
		return []string{"policy " + BlockedPods + " is not installed"}, nil
	}
	if err != nil {
		return nil, apiError("get policy "+BlockedPods, err, false)
	}
	binding, err := admission.ValidatingAdmissionPolicyBindings().Get(ctx, BlockedPods, metav1.GetOptions{})
	if isNotFound(err) {
		return []string{"policy binding " + BlockedPods + " is not installed"}, nil
	}
	if err != nil {
		return nil, apiError("get policy binding "+BlockedPods, err, false)
	}
	spec := policy.Spec
	if len(spec.Validations) != 1 || spec.Validations[0].Expression != BlockedExpression || spec.ParamKind == nil || spec.ParamKind.Kind != "ConfigMap" {
		problems = append(problems, "policy "+BlockedPods+" does not say what was installed in peacetime")
	}
	if policy.Status.TypeChecking != nil && len(policy.Status.TypeChecking.ExpressionWarnings) > 0 {
		problems = append(problems, "policy "+BlockedPods+": the API server finds its expression faulty")
	}
	ref := binding.Spec.ParamRef
	if binding.Spec.PolicyName != BlockedPods || !slices.Contains(binding.Spec.ValidationActions, admissionv1.Deny) ||
		ref == nil || ref.Name != BlockedPods || ref.Namespace != s.options.Namespace || binding.Spec.MatchResources != nil {
		problems = append(problems, "policy binding "+BlockedPods+" does not deny by our list everywhere")
	}
	return problems, nil
}

type blockWrites struct{ writesReader }

// Apply puts the pods on the list.
func (b blockWrites) Apply(ctx context.Context, in plan.Intent) (plan.Receipt, error) {
	r := b.receipt(in)
	for _, image := range in.PreImages {
		effect, err := b.applyOne(ctx, in, image)
		fault.Point("apply.call/during")
		if err != nil {
			return r, fmt.Errorf("block writes of %s: %w", image.Target, err)
		}
		r.Effects = append(r.Effects, effect)
	}
	r.Phase, r.At = plan.Applied, b.now()
	return r, nil
}

func (b blockWrites) applyOne(ctx context.Context, in plan.Intent, image plan.PreImage) (plan.Effect, error) {
	var pre writesState
	uid := image.Target.UID
	if err := stateOf(image, &pre); err != nil {
		return plan.Effect{}, err
	}
	if pre.UID != uid || !uidForm.MatchString(uid) {
		return plan.Effect{}, fmt.Errorf("%.40q is not the pod's UID: %w", uid, activities.ErrRefused)
	}
	hold, err := b.signHold(in, image)
	if err != nil {
		return plan.Effect{}, err
	}
	err = persist(ctx, func(ctx context.Context) error {
		list, err := b.list(ctx)
		if err != nil {
			return err
		}
		uids, key := blocked(list), holdPrefix+in.Short()
		on := slices.Contains(uids, uid)
		if on && list.Annotations[key] == hold {
			return nil
		}
		if !on {
			uids = append(uids, uid)
		}
		return b.write(ctx, list, uids, map[string]string{key: hold})
	})
	if err != nil {
		return plan.Effect{}, err
	}
	return effectOf(image.Target, "writes refused by the API server", BlockedPods, writesState{uid, true})
}

// Undo takes the pods off the list, with every hold that lists them: the gate calls it for the last hold only. A pod
// that was on the list before stays on it.
func (b blockWrites) Undo(ctx context.Context, in plan.Intent, _ plan.Receipt) error {
	var errs []error
	for _, image := range slices.Backward(in.PreImages) {
		if err := b.undoOne(ctx, image); err != nil {
			errs = append(errs, fmt.Errorf("undo block writes of %s: %w", image.Target, err))
		}
	}
	return errors.Join(errs...)
}

func (b blockWrites) undoOne(ctx context.Context, image plan.PreImage) error {
	var pre writesState
	if err := stateOf(image, &pre); err != nil {
		return err
	}
	return persist(ctx, func(ctx context.Context) error {
		list, err := b.list(ctx)
		if err != nil {
			return err
		}
		uids, holds := blocked(list), map[string]string{}
		for key, value := range list.Annotations {
			if h, ok := holdOf(value); ok && strings.HasPrefix(key, holdPrefix) && h.Target.UID == pre.UID {
				holds[key] = ""
			}
		}
		on := slices.Contains(uids, pre.UID)
		if len(holds) == 0 && on == pre.Blocked {
			return nil
		}
		if on && len(holds) == 0 {
			return fmt.Errorf("the pod is on the list and no hold of ours says why: %w", activities.ErrConflict)
		}
		if !pre.Blocked {
			uids = slices.DeleteFunc(uids, func(u string) bool { return u == pre.UID })
		}
		return b.write(ctx, list, uids, holds)
	})
}

func (b blockWrites) write(ctx context.Context, list *corev1.ConfigMap, uids []string, holds map[string]string) error {
	slices.Sort(uids)
	data := maps.Clone(list.Data)
	if data == nil {
		data = map[string]string{}
	}
	data[blockedKey] = strings.Join(slices.Compact(uids), ",")
	raw, err := newPatch(list.ObjectMeta).set("/data", data).annotate(list.ObjectMeta, holds).encode()
	if err != nil {
		return err
	}
	_, err = b.api.CoreV1().ConfigMaps(list.Namespace).Patch(ctx, list.Name, types.JSONPatchType, raw, metav1.PatchOptions{FieldManager: "tourniquet"})
	return apiError("patch config map "+list.Name, err, true)
}
