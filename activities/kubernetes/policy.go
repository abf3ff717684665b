package kubernetes

import (
	"context"
	"fmt"

	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/internal/canonical"
	"tourniquet.dev/tourniquet/internal/plan"
)

// policyFor is our deny-all NetworkPolicy: it selects nothing but the quarantine label.
func (s *System) policyFor(in plan.Intent, t plan.Target, incident string) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: in.ObjectName(), Namespace: t.Namespace,
			Labels:      map[string]string{LabelIncident: in.IncidentID, LabelPod: t.UID},
			Annotations: map[string]string{AnnotationIntent: in.Key}},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{LabelQuarantine: incident}},
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress},
		},
	}
}

// policyDigest names what a policy of ours says and whose it is.
func policyDigest(p *networkingv1.NetworkPolicy) (string, error) {
	return canonical.Digest(map[string]any{"intent": p.Annotations[AnnotationIntent], "pod": p.Labels[LabelPod], "spec": p.Spec})
}

// ownPolicies lists the policies that we made for a pod.
func (s *System) ownPolicies(ctx context.Context, t plan.Target) ([]networkingv1.NetworkPolicy, error) {
	list, err := s.api.NetworkingV1().NetworkPolicies(t.Namespace).List(ctx, metav1.ListOptions{LabelSelector: LabelPod + "=" + t.UID})
	if err != nil {
		return nil, apiError("list our network policies for "+t.String(), err, false)
	}
	return list.Items, nil
}

// ensurePolicy creates our policy. One that stands already is compared, never updated.
func (s *System) ensurePolicy(ctx context.Context, in plan.Intent, t plan.Target, incident string) error {
	want := s.policyFor(in, t, incident)
	policies := s.api.NetworkingV1().NetworkPolicies(t.Namespace)
	_, err := policies.Create(ctx, want, metav1.CreateOptions{FieldManager: "tourniquet"})
	if !apierrors.IsAlreadyExists(err) {
		return apiError("create network policy "+want.Name, err, true)
	}
	found, err := policies.Get(ctx, want.Name, metav1.GetOptions{})
	if err != nil {
		return apiError("get network policy "+want.Name, err, false)
	}
	has, err := policyDigest(found)
	if err != nil {
		return err
	}
	if wants, err := policyDigest(want); err != nil || has != wants {
		return fmt.Errorf("network policy %s: stands and says something else: %w", want.Name, activities.ErrConflict)
	}
	return nil
}

// deletePolicies deletes the policies that we made for a pod, but for those that stood before.
func (s *System) deletePolicies(ctx context.Context, t plan.Target, before map[string]string) error {
	found, err := s.ownPolicies(ctx, t)
	if err != nil {
		return err
	}
	for _, p := range found {
		if _, stays := before[p.Name]; stays {
			continue
		}
		if len(p.Spec.Ingress)+len(p.Spec.Egress) > 0 || p.Annotations[AnnotationIntent] == "" {
			return fmt.Errorf("network policy %s: was changed by someone else: %w", p.Name, activities.ErrConflict)
		}
		err := s.api.NetworkingV1().NetworkPolicies(t.Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{
			Preconditions: &metav1.Preconditions{UID: &p.UID, ResourceVersion: &p.ResourceVersion}})
		if err != nil && !apierrors.IsNotFound(err) {
			return apiError("delete network policy "+p.Name, err, true)
		}
	}
	return nil
}

func isNotFound(err error) bool { return apierrors.IsNotFound(err) }
