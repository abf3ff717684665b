package kubernetes

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/internal/plan"
)

// maxProbes bounds the rights that are asked about for one binding.
const maxProbes = 4

// Verify asks the API server's own authorizer, as a review that changes nothing, for rights that the cut bindings gave.
// All denied is verified; a right that comes by a group is stated and leaves the cut asserted.
func (c rbacReader) Verify(ctx context.Context, in plan.Intent, _ plan.Receipt) (plan.Observation, error) {
	v := &review{System: c.System, account: accountOf(in.Step.Target)}
	for _, t := range in.Targets {
		b, err := c.binding(ctx, t)
		if errors.Is(err, activities.ErrConflict) {
			v.saw("%v: it grants nothing", err)
			continue
		}
		if err != nil {
			return c.observation(in), fmt.Errorf("verify %s: %w", t, err)
		}
		if slices.ContainsFunc(b.subjects, v.names) {
			v.broken = true
			v.saw("%s names %s", t, v.user())
			continue
		}
		v.saw("%s does not name %s; %s", t, v.user(), c.witnessHold(t, b.Annotations[AnnotationHold]))
		if err := v.probe(ctx, b); err != nil {
			return c.observation(in), fmt.Errorf("verify %s: %w", t, err)
		}
	}
	if err := v.others(ctx, in.Targets); err != nil {
		return c.observation(in), err
	}
	out := c.observation(in)
	out.Witnesses = v.witnesses
	switch {
	case v.broken:
	case v.denied > 0 && v.residual == 0:
		out.Finding = plan.Verified
	default:
		out.Finding = plan.Asserted
	}
	return out, nil
}

// review gathers what an observation of one account sees.
type review struct {
	*System
	account
	broken           bool
	denied, residual int
	witnesses        []string
}

func (v *review) saw(format string, args ...any) {
	v.witnesses = append(v.witnesses, fmt.Sprintf(format, args...))
}

// others looks for bindings that name the account and were not cut: made since, or restored by someone.
func (v *review) others(ctx context.Context, cut []plan.Target) error {
	all, err := v.bindings(ctx)
	if err != nil {
		return err
	}
	for _, b := range all {
		known := slices.ContainsFunc(cut, func(t plan.Target) bool { return t.UID == string(b.UID) })
		if !known && slices.ContainsFunc(b.subjects, v.names) {
			v.broken = true
			v.saw("%s %s names %s and was not cut", b.kind, b.Name, v.user())
		}
	}
	return nil
}

// probe asks about a few of the rights that the binding's role gives.
func (v *review) probe(ctx context.Context, b binding) error {
	rules, err := v.rulesOf(ctx, b.role, b.Namespace)
	if err != nil {
		v.saw("not seen: rights of role %s: %v", b.role.Name, err)
		return nil
	}
	for i, rule := range rules {
		if i == maxProbes {
			return nil
		}
		spec := authorizationv1.SubjectAccessReviewSpec{User: v.user(), Groups: v.groups()}
		what := ""
		if len(rule.NonResourceURLs) > 0 {
			spec.NonResourceAttributes = &authorizationv1.NonResourceAttributes{Verb: pick(rule.Verbs, "get"), Path: pick(rule.NonResourceURLs, "/")}
			what = spec.NonResourceAttributes.Verb + " " + spec.NonResourceAttributes.Path
		} else {
			spec.ResourceAttributes = resourceProbe(rule, b.Namespace)
			what = strings.TrimSpace(spec.ResourceAttributes.Verb + " " + spec.ResourceAttributes.Resource + " " + spec.ResourceAttributes.Name)
		}
		answer, err := v.api.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{Spec: spec}, metav1.CreateOptions{})
		if err != nil {
			return apiError("review access of "+v.user(), err, false)
		}
		if !answer.Status.Allowed {
			v.denied++
			v.saw("the API server's authorizer denies %s: %s in %q", v.user(), what, b.Namespace)
			continue
		}
		v.residual++
		v.saw("the API server still allows %s: %s in %q (%.200s)", v.user(), what, b.Namespace, answer.Status.Reason)
	}
	return nil
}

func resourceProbe(rule rbacv1.PolicyRule, namespace string) *authorizationv1.ResourceAttributes {
	resource, sub, _ := strings.Cut(pick(rule.Resources, "pods"), "/")
	group := pick(rule.APIGroups, "")
	out := &authorizationv1.ResourceAttributes{Namespace: namespace, Verb: pick(rule.Verbs, "get"), Group: group, Resource: resource, Subresource: sub}
	if len(rule.ResourceNames) > 0 {
		out.Name = rule.ResourceNames[0]
	}
	return out
}

// pick is the first concrete value of a rule's list, or a stand-in where the list says everything.
func pick(list []string, any string) string {
	for _, v := range list {
		if v != "*" {
			return strings.TrimSuffix(v, "*")
		}
	}
	return any
}

// rulesOf reads the rules of the role that a binding refers to.
func (s *System) rulesOf(ctx context.Context, ref rbacv1.RoleRef, namespace string) ([]rbacv1.PolicyRule, error) {
	if ref.Kind == "Role" {
		role, err := s.api.RbacV1().Roles(namespace).Get(ctx, ref.Name, metav1.GetOptions{})
		if err != nil {
			return nil, apiError("get role "+ref.Name, err, false)
		}
		return role.Rules, nil
	}
	role, err := s.api.RbacV1().ClusterRoles().Get(ctx, ref.Name, metav1.GetOptions{})
	if err != nil {
		return nil, apiError("get cluster role "+cmp.Or(ref.Name, "?"), err, false)
	}
	return role.Rules, nil
}
