package actions_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	client "k8s.io/client-go/kubernetes"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/activities/conformance"
	"tourniquet.dev/tourniquet/activities/kubernetes"
	deploy "tourniquet.dev/tourniquet/deploy/kubernetes"
	"tourniquet.dev/tourniquet/dev/cluster"
	"tourniquet.dev/tourniquet/internal/plan"
)

// asPod is a client with a token bound to the pod.
func (w *town) asPod(t *testing.T, account string, pod plan.Target) *client.Clientset {
	t.Helper()
	token := must(w.ServiceAccountToken(t.Context(), cluster.TokenRequest{Namespace: pod.Namespace, ServiceAccount: account, Pod: pod.Name, PodUID: types.UID(pod.UID)}))(t)
	return w.as(t, token)
}

func tryWrite(t *testing.T, api *client.Clientset, namespace string) error {
	t.Helper()
	made, err := api.CoreV1().ConfigMaps(namespace).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "x-"}}, metav1.CreateOptions{})
	if err == nil && made.Name == "" {
		t.Error("made nothing")
	}
	return err
}

func TestBlockedPodCannotWriteAndItsSiblingCan(t *testing.T) {
	t.Parallel()
	w := newTown(t)
	sa := w.account(t, "shop")
	w.bindRole(t, "writes", "writer", subject(sa))
	bad, good := w.podOf(t, "shop-1", "shop", "ReplicaSet"), w.podOf(t, "shop-2", "shop", "ReplicaSet")
	badAPI, goodAPI := w.asPod(t, "shop", bad), w.asPod(t, "shop", good)
	world := w.world(plan.KubernetesBlockWrites, bad)
	in := conformance.Intend(t, world)
	if err := errors.Join(tryWrite(t, badAPI, w.namespace), tryWrite(t, goodAPI, w.namespace)); err != nil {
		t.Fatal("both write before:", err)
	}
	r, err := world.Action.Apply(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return apierrors.IsForbidden(tryWrite(t, badAPI, w.namespace)) })
	if err := tryWrite(t, badAPI, w.namespace); err == nil || !strings.Contains(err.Error(), "quarantined by Tourniquet") {
		t.Errorf("the blocked pod writes: %v", err)
	}
	if err := tryWrite(t, goodAPI, w.namespace); err != nil {
		t.Errorf("its sibling cannot write: %v", err)
	}
	if _, err := badAPI.CoreV1().ConfigMaps(w.namespace).Get(t.Context(), "none", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("reads go on: %v", err)
	}
	if err := world.Action.Undo(t.Context(), in, r); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return tryWrite(t, badAPI, w.namespace) == nil })
}

// eventually waits for what the API server learns by its own watch, in about a millisecond.
func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for range 2000 {
		if ok() {
			return
		}
	}
	t.Fatal("did not happen")
}

func TestTheClusterCannotBeBlocked(t *testing.T) {
	t.Parallel()
	w := newTown(t)
	name := w.namespace + "-controller"
	must(w.admin.CoreV1().ServiceAccounts("kube-system").Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}))(t)
	none := false
	pod := must(w.admin.CoreV1().Pods("kube-system").Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{ServiceAccountName: name, AutomountServiceAccountToken: &none, Containers: []corev1.Container{{Name: "x", Image: "x"}}}}, metav1.CreateOptions{}))(t)
	w.bindRole(t, "writes", "writer", rbacv1.Subject{Kind: "ServiceAccount", Namespace: "kube-system", Name: name})
	target := plan.Target{Kind: plan.Pod, Scope: clusterName, Namespace: "kube-system", Name: name, UID: string(pod.UID)}
	api, world := w.asPod(t, name, target), w.world(plan.KubernetesBlockWrites, target)
	if _, err := world.Action.Apply(t.Context(), conformance.Intend(t, world)); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if err := tryWrite(t, api, w.namespace); err != nil {
			t.Fatal("one of the cluster's own pods was blocked:", err)
		}
	}
}

func TestCutAccountLosesItsRights(t *testing.T) {
	t.Parallel()
	w := newTown(t)
	sa := w.account(t, "shop")
	w.bindRole(t, "writes", "writer", subject(sa))
	api := w.asPod(t, "shop", w.podOf(t, "shop-1", "shop", "ReplicaSet"))
	world := w.world(plan.KubernetesCutRBAC, sa)
	in := conformance.Intend(t, world)
	eventually(t, func() bool { return tryWrite(t, api, w.namespace) == nil })
	r, err := world.Action.Apply(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return apierrors.IsForbidden(tryWrite(t, api, w.namespace)) })
	if err := world.Action.Undo(t.Context(), in, r); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return tryWrite(t, api, w.namespace) == nil })
}

func TestRightsByGroupAreResidual(t *testing.T) {
	t.Parallel()
	w := newTown(t)
	sa := w.account(t, "shop")
	group := rbacv1.Subject{Kind: "Group", APIGroup: rbacv1.GroupName, Name: "system:serviceaccounts:" + w.namespace}
	w.bindRole(t, "writes", "writer", subject(sa))
	w.bindRole(t, "everybody", "writer", group)
	w.bindWide(t, w.namespace+"-wide", subject(sa)) // this right is gone for good
	world := w.world(plan.KubernetesCutRBAC, sa)
	in := conformance.Intend(t, world)
	r, err := world.Action.Apply(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(r.Detail["residual"], "everybody") {
		t.Errorf("residual: %q", r.Detail["residual"])
	}
	o, err := world.Reader.Verify(t.Context(), in, r)
	if err != nil || o.Finding != plan.Asserted || !strings.Contains(strings.Join(o.Witnesses, "\n"), "still allows") {
		t.Errorf("%v, %s, %q", err, o.Finding, o.Witnesses)
	}
	// A grant made after the cut breaks it.
	w.bindRole(t, "new", "writer", subject(sa))
	if o, err = world.Reader.Verify(t.Context(), in, r); err != nil || o.Finding != plan.NotHolding {
		t.Errorf("%v, %s, %q", err, o.Finding, o.Witnesses)
	}
}

// The gate keeps the first hold's pre-image for the second one, and undoes the last one only.
func TestLastReleaseOfTwoIncidentsRestores(t *testing.T) {
	t.Parallel()
	for _, action := range []plan.Action{plan.KubernetesIsolatePod, plan.KubernetesBlockWrites, plan.KubernetesCutRBAC} {
		t.Run(string(action), func(t *testing.T) {
			t.Parallel()
			w := newTown(t)
			target := w.account(t, "shop")
			w.bindRole(t, "writes", "writer", subject(target))
			pod := w.podOf(t, "shop-1", "shop", "ReplicaSet")
			if action != plan.KubernetesCutRBAC {
				target = pod
			}
			world := w.world(action, target)
			before, first := w.snapshot(t), conformance.Intend(t, world)
			if _, err := world.Action.Apply(t.Context(), first); err != nil {
				t.Fatal(err)
			}
			world.Step.Index += 10_000
			second := conformance.Intend(t, world)
			second.IncidentID, second.PreImages = "ibbbbbbbbbbbb", first.PreImages
			if len(second.Targets) != len(first.Targets) {
				t.Fatalf("the second incident finds %d targets, the first found %d", len(second.Targets), len(first.Targets))
			}
			r, err := world.Action.Apply(t.Context(), second)
			if err != nil {
				t.Fatal(err)
			}
			if o, err := world.Reader.Verify(t.Context(), second, r); err != nil || o.Finding == plan.NotHolding {
				t.Errorf("%v, %s, %q", err, o.Finding, o.Witnesses)
			}
			if err := world.Action.Undo(t.Context(), second, r); err != nil {
				t.Fatal(err)
			}
			conformance.WantSame(t, world, before)
		})
	}
}

func TestAChangeBetweenReadAndWriteIsNotClobbered(t *testing.T) {
	t.Parallel()
	for action, between := range map[plan.Action]func(*testing.T, *town){
		plan.KubernetesIsolatePod: func(t *testing.T, w *town) {
			// The first change is our own policy; the pod's patch is the second.
			w.link.before(func() { w.link.before(func() { w.setLabels(t, "shop-1", map[string]string{"app": "other"}) }) })
		},
		plan.KubernetesCutRBAC: func(t *testing.T, w *town) {
			w.link.before(func() {
				b := must(w.admin.RbacV1().RoleBindings(w.namespace).Get(t.Context(), "writes", metav1.GetOptions{}))(t)
				b.Subjects = append(b.Subjects, rbacv1.Subject{Kind: "User", APIGroup: rbacv1.GroupName, Name: "joe"})
				must(w.admin.RbacV1().RoleBindings(w.namespace).Update(t.Context(), b, metav1.UpdateOptions{}))(t)
			})
		},
	} {
		t.Run(string(action), func(t *testing.T) {
			t.Parallel()
			w := newTown(t)
			target := w.account(t, "shop")
			w.bindRole(t, "writes", "writer", subject(target))
			if pod := w.podOf(t, "shop-1", "shop", "ReplicaSet"); action != plan.KubernetesCutRBAC {
				target = pod
			}
			world := w.world(action, target)
			in := conformance.Intend(t, world)
			between(t, w)
			if _, err := world.Action.Apply(t.Context(), in); !errors.Is(err, activities.ErrConflict) {
				t.Errorf("%v, want ErrConflict", err)
			}
			if labels := w.pod(t, "shop-1").Labels; labels[kubernetes.LabelQuarantine] != "" {
				t.Errorf("someone's labels were overwritten: %v", labels)
			}
			if !w.named(t, "writes", target) && action == plan.KubernetesCutRBAC {
				t.Error("someone's subjects were overwritten")
			}
		})
	}
}

func TestStaticPodIsRefused(t *testing.T) {
	t.Parallel()
	w := newTown(t)
	w.account(t, "shop")
	world := w.world(plan.KubernetesIsolatePod, w.podOf(t, "shop-1", "shop", "Node"))
	if _, err := world.Action.Expand(t.Context(), world.Step); !errors.Is(err, activities.ErrRefused) {
		t.Errorf("%v, want ErrRefused", err)
	}
}

func TestWorkloadFacts(t *testing.T) {
	t.Parallel()
	w := newTown(t)
	sa := w.account(t, "shop")
	account := must(w.admin.CoreV1().ServiceAccounts(w.namespace).Get(t.Context(), "shop", metav1.GetOptions{}))(t)
	account.Annotations = map[string]string{"eks.amazonaws.com/role-arn": "arn:aws:iam::111122223333:role/app/shop"}
	must(w.admin.CoreV1().ServiceAccounts(w.namespace).Update(t.Context(), account, metav1.UpdateOptions{}))(t)
	must(w.admin.RbacV1().Roles(w.namespace).Create(t.Context(), &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "secretive"},
		Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"get"}}}}, metav1.CreateOptions{}))(t)
	w.bindRole(t, "writes", "secretive", subject(sa))
	w.bindRole(t, "everybody", "writer", rbacv1.Subject{Kind: "Group", APIGroup: rbacv1.GroupName, Name: "system:serviceaccounts:" + w.namespace})
	sibling := w.podOf(t, "shop-2", "shop", "ReplicaSet")
	yes := true
	pod := must(w.admin.CoreV1().Pods(w.namespace).Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "shop-1", Labels: map[string]string{"app": "shop"}},
		Spec: corev1.PodSpec{ServiceAccountName: "shop", NodeName: "node-1", HostNetwork: true, Containers: []corev1.Container{{Name: "app", Image: "registry.example/shop:1",
			SecurityContext: &corev1.SecurityContext{Privileged: &yes},
			Env: []corev1.EnvVar{{Name: "AWS_ACCESS_KEY_ID", Value: "AKIAABCDEFGHIJKLMNOP"}, {Name: "DB", ValueFrom: &corev1.EnvVarSource{
				SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "db"}, Key: "password"}}}}}}}}, metav1.CreateOptions{}))(t)
	must(w.admin.CoreV1().Services(w.namespace).Create(t.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "shop"},
		Spec: corev1.ServiceSpec{Selector: map[string]string{"app": "shop"}, Ports: []corev1.ServicePort{{Port: 80}}}}, metav1.CreateOptions{}))(t)

	f, err := w.look.Workload(t.Context(), w.namespace, "shop-1", string(pod.UID))
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case f.ServiceAccount != "shop", f.AccountUID != sa.UID, f.Node != "node-1", !f.HostNetwork, !f.Privileged, !f.TokenMounted:
		t.Errorf("pod: %+v", f)
	case f.RoleARN != "arn:aws:iam::111122223333:role/app/shop", !slices.Equal(f.KeyIDs, []string{"AKIAABCDEFGHIJKLMNOP"}):
		t.Errorf("cloud identity: %q %q", f.RoleARN, f.KeyIDs)
	case len(f.Siblings) != 1 || f.Siblings[0].UID != sibling.UID, len(f.Services) != 1, len(f.Policies) != 0:
		t.Errorf("neighbours: %v %v %v", f.Siblings, f.Services, f.Policies)
	case len(f.Secrets) != 1 || f.Secrets[0].Name != "db", !slices.ContainsFunc(f.Gaps, func(g string) bool { return strings.Contains(g, "may not list") }):
		t.Errorf("secrets: %v, gaps %q", f.Secrets, f.Gaps)
	}
	var bindings []string
	for _, r := range f.Rules {
		if r.Namespace == w.namespace {
			bindings = append(bindings, r.Binding+" "+r.Role)
		}
	}
	slices.Sort(bindings)
	if want := []string{"everybody (group system:serviceaccounts:" + w.namespace + ") writer", "writes secretive"}; !slices.Equal(bindings, want) {
		t.Errorf("rules by %q, want %q", bindings, want)
	}
	if _, err := w.look.Workload(t.Context(), w.namespace, "shop-1", "another"); !errors.Is(err, activities.ErrConflict) {
		t.Errorf("another pod of the name: %v", err)
	}
}

// Not parallel: it weakens the policy that the others rely on.
func TestVerifyNoticesAWeakenedPolicy(t *testing.T) {
	w := newTown(t)
	w.account(t, "shop")
	world := w.world(plan.KubernetesBlockWrites, w.podOf(t, "shop-1", "shop", "ReplicaSet"))
	in := conformance.Intend(t, world)
	r, err := world.Action.Apply(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	find := func(want plan.Finding) {
		t.Helper()
		o, err := world.Reader.Verify(t.Context(), in, r)
		if err != nil || o.Finding != want {
			t.Errorf("%v, finding %s, want %s: %q", err, o.Finding, want, o.Witnesses)
		}
	}
	find(plan.Asserted)
	bindings := w.admin.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings()
	b := must(bindings.Get(t.Context(), kubernetes.BlockedPods, metav1.GetOptions{}))(t)
	b.Spec.ValidationActions = []admissionv1.ValidationAction{admissionv1.Audit}
	must(bindings.Update(t.Context(), b, metav1.UpdateOptions{}))(t)
	find(plan.NotHolding)
	if err := bindings.Delete(t.Context(), kubernetes.BlockedPods, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	find(plan.NotHolding)
	if err := deploy.Install(t.Context(), must(w.RESTConfig())(t), nil...); err != nil {
		t.Fatal(err)
	}
	find(plan.Asserted)
}
