package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/sys/fault"
)

// binding is a RoleBinding or a ClusterRoleBinding.
type binding struct {
	metav1.ObjectMeta
	kind     plan.TargetKind
	role     rbacv1.RoleRef
	subjects []rbacv1.Subject
}

// bindingState is a binding as a pre-image records it. Removed is our note of what was taken off it.
type bindingState struct {
	Kind     plan.TargetKind  `json:"kind"`
	UID      string           `json:"uid"`
	Role     rbacv1.RoleRef   `json:"role"`
	Subjects []rbacv1.Subject `json:"subjects"`
	Removed  string           `json:"removed"`
}

func (b binding) state() bindingState {
	return bindingState{b.kind, string(b.UID), b.role, append([]rbacv1.Subject{}, b.subjects...), b.Annotations[AnnotationRemoved]}
}

// account is a service account as bindings name it.
type account struct{ namespace, name string }

// names reports whether the subject is this service account, under either of its two names.
func (a account) names(s rbacv1.Subject) bool {
	return (s.Kind == rbacv1.ServiceAccountKind && s.Namespace == a.namespace && s.Name == a.name) ||
		(s.Kind == rbacv1.UserKind && s.Name == a.user())
}

func (a account) user() string { return "system:serviceaccount:" + a.namespace + ":" + a.name }

// groups are those that every token of the account belongs to.
func (a account) groups() []string {
	return []string{"system:serviceaccounts", "system:serviceaccounts:" + a.namespace, "system:authenticated"}
}

// subjectText is how the note names a subject; the leash policy writes it in the same way.
func subjectText(s rbacv1.Subject) string { return s.Kind + "/" + s.Namespace + "/" + s.Name }

// cut is the state without the account, and with the note of it.
func (b bindingState) cut(a account) bindingState {
	var gone []string
	left := []rbacv1.Subject{}
	for _, s := range b.Subjects {
		if a.names(s) {
			gone = append(gone, subjectText(s))
		} else {
			left = append(left, s)
		}
	}
	if len(gone) > 0 {
		b.Subjects, b.Removed = left, strings.Join(gone, ",")
	}
	return b
}

// rbacReader observes kubernetes/cut-rbac: the step names a service account, its closure the bindings that name it.
type rbacReader struct{ *System }

func accountOf(t plan.Target) account { return account{t.Namespace, t.Name} }

// Expand returns every binding that names the account directly, or whose note says that we took it off.
func (c rbacReader) Expand(ctx context.Context, step plan.Step) ([]plan.Target, error) {
	if err := c.checkAccount(ctx, step); err != nil {
		return nil, err
	}
	all, err := c.bindings(ctx)
	if err != nil {
		return nil, err
	}
	a, found := accountOf(step.Target), []plan.Target{}
	for _, b := range all {
		noted := slices.ContainsFunc(strings.Split(b.Annotations[AnnotationRemoved], ","), func(text string) bool {
			return text == "ServiceAccount/"+a.namespace+"/"+a.name || text == "User//"+a.user()
		})
		if noted || slices.ContainsFunc(b.subjects, a.names) {
			found = append(found, plan.Target{Kind: b.kind, Scope: c.options.Cluster, Namespace: b.Namespace, Name: b.Name, UID: string(b.UID)})
		}
	}
	return found, nil
}

// checkAccount makes sure that the step's service account is the one that bears the name now.
func (c rbacReader) checkAccount(ctx context.Context, step plan.Step) error {
	t := step.Target
	if err := c.inCluster(t); err != nil {
		return err
	}
	if step.Closure == nil {
		return fmt.Errorf("%s: needs the closure of the account's bindings: %w", step.Action, activities.ErrRefused)
	}
	sa, err := c.api.CoreV1().ServiceAccounts(t.Namespace).Get(ctx, t.Name, metav1.GetOptions{})
	if err != nil {
		return apiError("get "+t.String(), err, false)
	}
	if string(sa.UID) != t.UID {
		return fmt.Errorf("%s: another account bears the name now (%s, not %s): %w", t, sa.UID, t.UID, activities.ErrConflict)
	}
	return nil
}

// bindings lists all bindings of the cluster, those of the cluster first, then by namespace and name.
func (s *System) bindings(ctx context.Context) ([]binding, error) {
	var out []binding
	wide, err := s.api.RbacV1().ClusterRoleBindings().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, apiError("list cluster role bindings", err, false)
	}
	for _, b := range wide.Items {
		out = append(out, binding{b.ObjectMeta, plan.ClusterBinding, b.RoleRef, b.Subjects})
	}
	narrow, err := s.api.RbacV1().RoleBindings("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, apiError("list role bindings", err, false)
	}
	for _, b := range narrow.Items {
		out = append(out, binding{b.ObjectMeta, plan.RoleBinding, b.RoleRef, b.Subjects})
	}
	slices.SortFunc(out, func(a, b binding) int {
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
	return out, nil
}

// binding reads one binding by name and refuses one that only bears the name.
func (s *System) binding(ctx context.Context, t plan.Target) (binding, error) {
	out := binding{kind: t.Kind}
	if err := s.inCluster(t); err != nil {
		return out, err
	}
	switch t.Kind {
	case plan.ClusterBinding:
		b, err := s.api.RbacV1().ClusterRoleBindings().Get(ctx, t.Name, metav1.GetOptions{})
		if err != nil {
			return out, apiError("get "+t.String(), err, false)
		}
		out.ObjectMeta, out.role, out.subjects = b.ObjectMeta, b.RoleRef, b.Subjects
	case plan.RoleBinding:
		b, err := s.api.RbacV1().RoleBindings(t.Namespace).Get(ctx, t.Name, metav1.GetOptions{})
		if err != nil {
			return out, apiError("get "+t.String(), err, false)
		}
		out.ObjectMeta, out.role, out.subjects = b.ObjectMeta, b.RoleRef, b.Subjects
	default:
		return out, fmt.Errorf("%s: is no binding: %w", t, activities.ErrRefused)
	}
	if string(out.UID) != t.UID {
		return out, fmt.Errorf("%s: another binding bears the name now (%s, not %s): %w", t, out.UID, t.UID, activities.ErrConflict)
	}
	return out, nil
}

// Capture records the binding's subjects.
func (c rbacReader) Capture(ctx context.Context, _ plan.Step, t plan.Target) (plan.PreImage, error) {
	b, err := c.binding(ctx, t)
	if err != nil {
		return plan.PreImage{}, err
	}
	return imageOf(t, b.state())
}

type cutRBAC struct{ rbacReader }

// Apply takes the account off every binding found. With no binding to cut it does nothing and says so.
func (c cutRBAC) Apply(ctx context.Context, in plan.Intent) (plan.Receipt, error) {
	r := c.receipt(in)
	for _, image := range in.PreImages {
		effect, err := c.applyOne(ctx, in, image)
		fault.Point("apply.call/during")
		if err != nil {
			return r, fmt.Errorf("cut %s off %s: %w", in.Step.Target, image.Target, err)
		}
		r.Effects = append(r.Effects, effect)
	}
	residual, err := c.residual(ctx, accountOf(in.Step.Target))
	if err != nil {
		return r, err
	}
	if len(residual) > 0 {
		r.Detail["residual"] = strings.Join(residual, "; ")
	}
	r.Phase, r.At = plan.Applied, c.now()
	return r, nil
}

// residual lists the bindings that still reach the account by one of its own groups. They cannot be cut for one account.
func (s *System) residual(ctx context.Context, a account) ([]string, error) {
	all, err := s.bindings(ctx)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, b := range all {
		for _, subject := range b.subjects {
			if subject.Kind == rbacv1.GroupKind && strings.HasPrefix(subject.Name, "system:serviceaccounts") && slices.Contains(a.groups(), subject.Name) {
				out = append(out, fmt.Sprintf("%s %s of group %s", b.kind, b.Name, subject.Name))
			}
		}
	}
	return out, nil
}

func (c cutRBAC) applyOne(ctx context.Context, in plan.Intent, image plan.PreImage) (plan.Effect, error) {
	var pre bindingState
	if err := stateOf(image, &pre); err != nil {
		return plan.Effect{}, err
	}
	want := pre.cut(accountOf(in.Step.Target))
	if !same(want, pre) && pre.Removed != "" {
		return plan.Effect{}, fmt.Errorf("another account's cut stands on it: %w", activities.ErrConflict)
	}
	hold, err := c.signHold(in, image)
	if err != nil {
		return plan.Effect{}, err
	}
	err = c.switchTo(ctx, image.Target, pre, want, map[string]string{AnnotationRemoved: want.Removed, AnnotationHold: hold})
	if err != nil {
		return plan.Effect{}, err
	}
	did := "removed " + want.Removed
	if same(want, pre) {
		did = "was so before"
	}
	return effectOf(image.Target, did, "", want)
}

// Undo puts back exactly the subjects that were taken off.
func (c cutRBAC) Undo(ctx context.Context, in plan.Intent, _ plan.Receipt) error {
	var errs []error
	for _, image := range slices.Backward(in.PreImages) {
		var pre bindingState
		if err := stateOf(image, &pre); err != nil {
			errs = append(errs, err)
			continue
		}
		want := pre.cut(accountOf(in.Step.Target))
		if same(want, pre) {
			continue
		}
		if err := c.switchTo(ctx, image.Target, want, pre, map[string]string{AnnotationRemoved: "", AnnotationHold: ""}); err != nil {
			errs = append(errs, fmt.Errorf("restore %s on %s: %w", in.Step.Target, image.Target, err))
		}
	}
	return errors.Join(errs...)
}

// switchTo patches the binding from one state to the other, and does nothing where it is there already, under the hold
// of now. Anything else is someone else's change.
func (c cutRBAC) switchTo(ctx context.Context, t plan.Target, from, to bindingState, annotations map[string]string) error {
	lifted := from // the subjects put back by someone who left our note
	if lifted.Removed == "" {
		lifted.Removed = to.Removed
	} else {
		lifted.Subjects = to.Subjects
	}
	return persist(ctx, func(ctx context.Context) error {
		b, err := c.binding(ctx, t)
		switch {
		case err != nil:
			return err
		case same(b.state(), to) && b.Annotations[AnnotationHold] == annotations[AnnotationHold]:
			return nil
		case !same(b.state(), to) && !same(b.state(), from) && !same(b.state(), lifted):
			return fmt.Errorf("was changed by someone else: %w", activities.ErrConflict)
		}
		raw, err := newPatch(b.ObjectMeta).set("/subjects", to.Subjects).annotate(b.ObjectMeta, annotations).encode()
		if err != nil {
			return err
		}
		return c.patchBinding(ctx, t, raw)
	})
}

func (s *System) patchBinding(ctx context.Context, t plan.Target, raw []byte) (err error) {
	options := metav1.PatchOptions{FieldManager: "tourniquet"}
	if t.Kind == plan.ClusterBinding {
		_, err = s.api.RbacV1().ClusterRoleBindings().Patch(ctx, t.Name, types.JSONPatchType, raw, options)
	} else {
		_, err = s.api.RbacV1().RoleBindings(t.Namespace).Patch(ctx, t.Name, types.JSONPatchType, raw, options)
	}
	return apiError("patch "+t.String(), err, true)
}
