package actions_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	client "k8s.io/client-go/kubernetes"

	"tourniquet.dev/tourniquet/activities/conformance"
	"tourniquet.dev/tourniquet/activities/kubernetes"
	deploy "tourniquet.dev/tourniquet/deploy/kubernetes"
	"tourniquet.dev/tourniquet/internal/plan"
)

// thief is what somebody with the enforcer's own token can try.
type thief struct {
	*town
	api *client.Clientset
}

func newThief(t *testing.T) thief {
	t.Helper()
	w := newTown(t)
	return thief{w, w.as(t, w.token(t, deploy.ContainAccount))}
}

// merge patches an object with a merge patch.
func merge(change map[string]any) []byte {
	raw, err := json.Marshal(change)
	if err != nil {
		panic(err) // maps of strings
	}
	return raw
}

func (h thief) patchBinding(ctx context.Context, name string, subjects []rbacv1.Subject, annotations map[string]any) error {
	change := map[string]any{"metadata": map[string]any{"annotations": annotations}}
	if subjects != nil {
		change["subjects"] = subjects
	}
	_, err := h.api.RbacV1().RoleBindings(h.namespace).Patch(ctx, name, types.MergePatchType, merge(change), metav1.PatchOptions{})
	return err
}

func (h thief) patchPod(ctx context.Context, namespace, name string, change map[string]any, sub ...string) error {
	_, err := h.api.CoreV1().Pods(namespace).Patch(ctx, name, types.StrategicMergePatchType, merge(change), metav1.PatchOptions{}, sub...)
	return err
}

// wantForbidden runs each attempt and wants a 403 of RBAC or of the leash, and everything as it was.
func wantForbidden(t *testing.T, w *town, attempts map[string]func(context.Context) error) {
	t.Helper()
	before := w.snapshot(t)
	for name, try := range attempts {
		t.Run(name, func(t *testing.T) {
			if err := try(t.Context()); !apierrors.IsForbidden(err) {
				t.Errorf("%v, want it forbidden", err)
			} else if strings.Contains(err.Error(), "resulted in error") {
				t.Errorf("forbidden by a faulty expression only: %v", err)
			}
		})
	}
	conformance.WantSame(t, conformance.World{Snapshot: w.snapshot}, before)
}

func TestStolenTokenOnBindings(t *testing.T) {
	t.Parallel()
	h := newThief(t)
	sa, other := h.account(t, "shop"), h.account(t, "other")
	jane := rbacv1.Subject{Kind: "User", APIGroup: rbacv1.GroupName, Name: "jane"}
	self := rbacv1.Subject{Kind: "ServiceAccount", Namespace: deploy.Namespace, Name: deploy.ContainAccount}
	controller := rbacv1.Subject{Kind: "ServiceAccount", Namespace: "kube-system", Name: "deployment-controller"}
	all := []rbacv1.Subject{subject(sa), subject(other), jane, controller}
	h.bindRole(t, "writes", "writer", all...)
	h.bindRole(t, "vault", "not-bindable", subject(sa))
	h.bindWide(t, h.namespace+"-wide", jane)
	note := func(s ...rbacv1.Subject) map[string]any {
		var out []string
		for _, s := range s {
			out = append(out, s.Kind+"/"+s.Namespace+"/"+s.Name)
		}
		return map[string]any{kubernetes.AnnotationRemoved: strings.Join(out, ",")}
	}
	patch := func(subjects []rbacv1.Subject, notes map[string]any) func(context.Context) error {
		return func(ctx context.Context) error { return h.patchBinding(ctx, "writes", subjects, notes) }
	}
	none := map[string]any{}
	wantForbidden(t, h.town, map[string]func(context.Context) error{
		"add itself":                patch(append(all[:4:4], self), none),
		"add itself and note it":    patch(append(all[:4:4], self), note(self)),
		"swap someone for itself":   patch([]rbacv1.Subject{self, subject(other), jane, controller}, note(subject(sa))),
		"remove without a note":     patch([]rbacv1.Subject{subject(other), jane, controller}, none),
		"remove and note another":   patch([]rbacv1.Subject{subject(other), jane, controller}, note(jane)),
		"remove a person":           patch([]rbacv1.Subject{subject(sa), subject(other), controller}, note(jane)),
		"remove a controller":       patch([]rbacv1.Subject{subject(sa), subject(other), jane}, note(controller)),
		"repeat a subject":          patch(append(all[:4:4], subject(sa)), none),
		"note what was not removed": patch(nil, note(self)),
		"write others' annotations": patch(nil, map[string]any{"theirs": "x"}),
		"cut a role it may not bind": func(ctx context.Context) error {
			return h.patchBinding(ctx, "vault", []rbacv1.Subject{}, note(subject(sa)))
		},
		"delete a binding": func(ctx context.Context) error {
			return h.api.RbacV1().RoleBindings(h.namespace).Delete(ctx, "writes", metav1.DeleteOptions{})
		},
		"widen its own rights":           func(ctx context.Context) error { return h.widen(ctx) },
		"add itself to a cluster role":   func(ctx context.Context) error { return h.joinWide(ctx, self) },
		"make a binding":                 func(ctx context.Context) error { return h.bindItself(ctx, self) },
		"edit a role":                    func(ctx context.Context) error { return h.editRole(ctx) },
		"change labels":                  func(ctx context.Context) error { return h.labelBinding(ctx) },
		"put a finalizer on a binding":   func(ctx context.Context) error { return h.finalizeBinding(ctx) },
		"mint a token of other accounts": func(ctx context.Context) error { return h.mint(ctx) },
	})
	if err := patch([]rbacv1.Subject{subject(other), jane, controller}, note(subject(sa)))(t.Context()); err != nil {
		t.Fatal("the proper cut is refused:", err)
	}
	left := []rbacv1.Subject{subject(other), jane, controller}
	wantForbidden(t, h.town, map[string]func(context.Context) error{
		"edit the note":                 patch(nil, note(self)),
		"drop the note":                 patch(nil, map[string]any{kubernetes.AnnotationRemoved: nil}),
		"restore someone else":          patch(append(left[:3:3], self), map[string]any{kubernetes.AnnotationRemoved: nil}),
		"restore one more":              patch(append(left[:3:3], subject(sa), self), map[string]any{kubernetes.AnnotationRemoved: nil}),
		"restore and keep the note":     patch(append(left[:3:3], subject(sa)), none),
		"remove another under a note":   patch([]rbacv1.Subject{jane, controller}, note(subject(sa), subject(other))),
		"remove another, same old note": patch([]rbacv1.Subject{jane, controller}, none),
	})
	if err := patch(append(left[:3:3], subject(sa)), map[string]any{kubernetes.AnnotationRemoved: nil})(t.Context()); err != nil {
		t.Fatal("the exact restore is refused:", err)
	}
}

func (h thief) widen(ctx context.Context) error {
	_, err := h.api.RbacV1().ClusterRoles().Patch(ctx, "tourniquet-contain", types.JSONPatchType,
		[]byte(`[{"op":"add","path":"/rules/-","value":{"apiGroups":[""],"resources":["secrets"],"verbs":["get"]}}]`), metav1.PatchOptions{})
	return err
}

func (h thief) joinWide(ctx context.Context, self rbacv1.Subject) error {
	_, err := h.api.RbacV1().ClusterRoleBindings().Patch(ctx, h.namespace+"-wide", types.MergePatchType, merge(map[string]any{"subjects": []rbacv1.Subject{self}}), metav1.PatchOptions{})
	return err
}

func (h thief) bindItself(ctx context.Context, self rbacv1.Subject) error {
	_, err := h.api.RbacV1().RoleBindings(h.namespace).Create(ctx, &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "mine"},
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "writer"}, Subjects: []rbacv1.Subject{self}}, metav1.CreateOptions{})
	return err
}

func (h thief) editRole(ctx context.Context) error {
	_, err := h.api.RbacV1().Roles(h.namespace).Patch(ctx, "writer", types.MergePatchType, merge(map[string]any{"rules": []any{}}), metav1.PatchOptions{})
	return err
}

func (h thief) labelBinding(ctx context.Context) error {
	_, err := h.api.RbacV1().RoleBindings(h.namespace).Patch(ctx, "writes", types.MergePatchType,
		merge(map[string]any{"metadata": map[string]any{"labels": map[string]any{"x": "y"}}}), metav1.PatchOptions{})
	return err
}

func (h thief) finalizeBinding(ctx context.Context) error {
	_, err := h.api.RbacV1().RoleBindings(h.namespace).Patch(ctx, "writes", types.MergePatchType,
		merge(map[string]any{"metadata": map[string]any{"finalizers": []string{"x.example/y"}}}), metav1.PatchOptions{})
	return err
}

func (h thief) mint(ctx context.Context) error {
	_, err := h.api.CoreV1().ServiceAccounts(h.namespace).CreateToken(ctx, "shop", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	return err
}

func TestStolenTokenOnPods(t *testing.T) {
	t.Parallel()
	h := newThief(t)
	h.account(t, "shop")
	h.podOf(t, "shop-1", "shop", "ReplicaSet")
	patch := func(change map[string]any, sub ...string) func(context.Context) error {
		return func(ctx context.Context) error { return h.patchPod(ctx, h.namespace, "shop-1", change, sub...) }
	}
	meta := func(labels, annotations map[string]any) map[string]any {
		return map[string]any{"metadata": map[string]any{"labels": labels, "annotations": annotations}}
	}
	image := map[string]any{"spec": map[string]any{"containers": []any{map[string]any{"name": "app", "image": "evil.example/x"}}}}
	quarantine := map[string]any{"app": nil, "pod-template-hash": nil, kubernetes.LabelQuarantine: "i"}
	both := "app=shop,pod-template-hash=5d4f8"
	wantForbidden(t, h.town, map[string]func(context.Context) error{
		"change the image":             patch(image),
		"take labels without a note":   patch(meta(quarantine, nil)),
		"note other labels":            patch(meta(quarantine, map[string]any{kubernetes.AnnotationPreImage: "app=bank,pod-template-hash=5d4f8"})),
		"note one more":                patch(meta(quarantine, map[string]any{kubernetes.AnnotationPreImage: both + ",x=y"})),
		"take labels, no quarantine":   patch(meta(map[string]any{"app": nil}, map[string]any{kubernetes.AnnotationPreImage: "app=shop"})),
		"put the pod behind a Service": patch(meta(map[string]any{"app": "bank"}, nil)),
		"add a label":                  patch(meta(map[string]any{"x": "y"}, nil)),
		"write others' annotations":    patch(meta(nil, map[string]any{"theirs": "gone"})),
		"take others' annotations":     patch(meta(nil, map[string]any{"theirs": nil})),
		"take the owner":               patch(map[string]any{"metadata": map[string]any{"ownerReferences": []any{map[string]any{"$patch": "replace"}}}}),
		"put a finalizer":              patch(map[string]any{"metadata": map[string]any{"finalizers": []string{"x.example/y"}}}),
		"write the status":             patch(map[string]any{"status": map[string]any{"phase": "Failed"}}, "status"),
		"add a debug container":        patch(map[string]any{"spec": map[string]any{"ephemeralContainers": []any{}}}, "ephemeralcontainers"),
		"delete it": func(ctx context.Context) error {
			return h.api.CoreV1().Pods(h.namespace).Delete(ctx, "shop-1", metav1.DeleteOptions{})
		},
		"evict it": func(ctx context.Context) error {
			return h.api.CoreV1().Pods(h.namespace).EvictV1(ctx, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: "shop-1"}})
		},
		"make a pod": func(ctx context.Context) error {
			_, err := h.api.CoreV1().Pods(h.namespace).Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "x"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "x", Image: "x"}}}}, metav1.CreateOptions{})
			return err
		},
		"exec into it": func(ctx context.Context) error {
			return h.api.CoreV1().RESTClient().Post().Resource("pods").Namespace(h.namespace).Name("shop-1").SubResource("exec").Param("command", "sh").Do(ctx).Error()
		},
		"read secrets": func(ctx context.Context) error {
			_, err := h.api.CoreV1().Secrets("").List(ctx, metav1.ListOptions{})
			return err
		},
		"label the cluster's own pods": func(ctx context.Context) error { return h.touchSystemPod(ctx, t) },
	})
	if err := patch(meta(quarantine, map[string]any{kubernetes.AnnotationPreImage: both}))(t.Context()); err != nil {
		t.Fatal("the proper swap is refused:", err)
	}
	back := map[string]any{"app": "shop", "pod-template-hash": "5d4f8", kubernetes.LabelQuarantine: nil}
	gone := map[string]any{kubernetes.AnnotationPreImage: nil}
	wantForbidden(t, h.town, map[string]func(context.Context) error{
		"edit the note":        patch(meta(nil, map[string]any{kubernetes.AnnotationPreImage: "app=bank"})),
		"drop the note":        patch(meta(nil, gone)),
		"restore other labels": patch(meta(map[string]any{"app": "bank", "pod-template-hash": "5d4f8"}, gone)),
		"restore one more":     patch(meta(map[string]any{"app": "shop", "pod-template-hash": "5d4f8", "x": "y"}, gone)),
	})
	if err := patch(meta(back, gone))(t.Context()); err != nil {
		t.Fatal("the exact restore is refused:", err)
	}
}

func (h thief) touchSystemPod(ctx context.Context, t *testing.T) error {
	none := false
	_, err := h.admin.CoreV1().Pods("kube-system").Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: h.namespace},
		Spec: corev1.PodSpec{AutomountServiceAccountToken: &none, Containers: []corev1.Container{{Name: "x", Image: "x"}}}}, metav1.CreateOptions{})
	if err != nil && strings.Contains(err.Error(), "serviceaccount") { // no controller makes the default account here
		must(h.admin.CoreV1().ServiceAccounts("kube-system").Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{}))(t)
		return h.touchSystemPod(ctx, t)
	}
	if err != nil {
		return err
	}
	return h.patchPod(ctx, "kube-system", h.namespace, map[string]any{"metadata": map[string]any{"labels": map[string]any{kubernetes.LabelQuarantine: "i"}}})
}

func TestStolenTokenOnPoliciesAndTheList(t *testing.T) {
	t.Parallel()
	h := newThief(t)
	policy := func(edit func(*networkingv1.NetworkPolicy)) *networkingv1.NetworkPolicy {
		p := &networkingv1.NetworkPolicy{
			ObjectMeta: metav1.ObjectMeta{Name: "tourniquet-x", Labels: map[string]string{kubernetes.LabelIncident: "i"}},
			Spec: networkingv1.NetworkPolicySpec{PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{kubernetes.LabelQuarantine: "i"}},
				PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}},
		}
		edit(p)
		return p
	}
	create := func(edit func(*networkingv1.NetworkPolicy)) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := h.api.NetworkingV1().NetworkPolicies(h.namespace).Create(ctx, policy(edit), metav1.CreateOptions{})
			return err
		}
	}
	theirs := policy(func(p *networkingv1.NetworkPolicy) {
		p.Name, p.Labels, p.Spec.PodSelector = "theirs", nil, metav1.LabelSelector{}
	})
	must(h.admin.NetworkingV1().NetworkPolicies(h.namespace).Create(t.Context(), theirs, metav1.CreateOptions{}))(t)
	wearsOurName := policy(func(p *networkingv1.NetworkPolicy) {
		p.Name, p.Spec.PodSelector = "tourniquet-theirs", metav1.LabelSelector{}
	})
	must(h.admin.NetworkingV1().NetworkPolicies(h.namespace).Create(t.Context(), wearsOurName, metav1.CreateOptions{}))(t)
	list := func(change map[string]any) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := h.api.CoreV1().ConfigMaps(deploy.Namespace).Patch(ctx, kubernetes.BlockedPods, types.MergePatchType, merge(change), metav1.PatchOptions{})
			return err
		}
	}
	remove := func(name string) func(context.Context) error {
		return func(ctx context.Context) error {
			return h.api.NetworkingV1().NetworkPolicies(h.namespace).Delete(ctx, name, metav1.DeleteOptions{})
		}
	}
	wantForbidden(t, h.town, map[string]func(context.Context) error{
		"deny a whole namespace": create(func(p *networkingv1.NetworkPolicy) { p.Spec.PodSelector = metav1.LabelSelector{} }),
		"deny other pods":        create(func(p *networkingv1.NetworkPolicy) { p.Spec.PodSelector.MatchLabels = map[string]string{"app": "bank"} }),
		"deny by one more label": create(func(p *networkingv1.NetworkPolicy) { p.Spec.PodSelector.MatchLabels["app"] = "bank" }),
		"deny by expression": create(func(p *networkingv1.NetworkPolicy) {
			p.Spec.PodSelector.MatchExpressions = []metav1.LabelSelectorRequirement{{Key: "x", Operator: metav1.LabelSelectorOpDoesNotExist}}
		}),
		"allow a quarantined pod":     create(func(p *networkingv1.NetworkPolicy) { p.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{{}} }),
		"deny one way only":           create(func(p *networkingv1.NetworkPolicy) { p.Spec.PolicyTypes = p.Spec.PolicyTypes[:1] }),
		"under another name":          create(func(p *networkingv1.NetworkPolicy) { p.Name = "x" }),
		"delete others' policy":       remove("theirs"),
		"delete what wears our name":  remove("tourniquet-theirs"),
		"edit a policy":               func(ctx context.Context) error { return h.editPolicy(ctx) },
		"list what is no pod":         list(map[string]any{"data": map[string]any{"pods": "system:admin"}}),
		"other data on the list":      list(map[string]any{"data": map[string]any{"x": "y"}}),
		"drop the list's key":         list(map[string]any{"data": map[string]any{"pods": nil}}),
		"label the list":              list(map[string]any{"metadata": map[string]any{"labels": map[string]any{"x": "y"}}}),
		"freeze the list":             list(map[string]any{"immutable": true}),
		"annotate the list otherwise": list(map[string]any{"metadata": map[string]any{"annotations": map[string]any{"x": "y"}}}),
		"delete the list": func(ctx context.Context) error {
			return h.api.CoreV1().ConfigMaps(deploy.Namespace).Delete(ctx, kubernetes.BlockedPods, metav1.DeleteOptions{})
		},
		"loosen the leash": func(ctx context.Context) error {
			return h.api.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings().Delete(ctx, "tourniquet-leash-pods", metav1.DeleteOptions{})
		},
		"write a policy of admission": func(ctx context.Context) error {
			_, err := h.api.AdmissionregistrationV1().ValidatingAdmissionPolicies().Create(ctx, &admissionv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: "x"}}, metav1.CreateOptions{})
			return err
		},
	})
	if err := create(func(*networkingv1.NetworkPolicy) {})(t.Context()); err != nil {
		t.Fatal("our own policy is refused:", err)
	}
	if err := remove("tourniquet-x")(t.Context()); err != nil {
		t.Fatal("deleting our own policy is refused:", err)
	}
}

func (h thief) editPolicy(ctx context.Context) error {
	_, err := h.api.NetworkingV1().NetworkPolicies(h.namespace).Patch(ctx, "theirs", types.MergePatchType, merge(map[string]any{"spec": map[string]any{"egress": []any{map[string]any{}}}}), metav1.PatchOptions{})
	return err
}

func TestReadOnlyRoleCannotWrite(t *testing.T) {
	t.Parallel()
	w := newTown(t)
	w.account(t, "shop")
	target := w.podOf(t, "shop-1", "shop", "ReplicaSet")
	signer, _ := signerOf(t)
	s := must(kubernetes.New(kubernetes.Options{Kubeconfig: w.direct(t, w.token(t, deploy.InvestigateAccount)), Cluster: clusterName, Signer: signer}))(t)
	for action := range s.Actions() {
		if action == plan.KubernetesCutRBAC {
			continue // names an account; the others cover every kind of write but that of bindings
		}
		t.Run(string(action), func(t *testing.T) {
			world := w.world(action, target)
			before, in := w.snapshot(t), conformance.Intend(t, world)
			if _, err := s.Actions()[action].Apply(t.Context(), in); err == nil {
				t.Error("the read-only role could apply")
			}
			conformance.WantSame(t, world, before)
		})
	}
	api := w.as(t, w.token(t, deploy.InvestigateAccount))
	if _, err := api.CoreV1().Secrets(w.namespace).List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("list secrets: %v, want it forbidden", err)
	}
}
