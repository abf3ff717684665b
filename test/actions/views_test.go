package actions_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"

	"tourniquet.dev/tourniquet/activities/kubernetes"
	"tourniquet.dev/tourniquet/internal/plan"
)

// TestKubernetesViewsAreOfTheRealTypes decodes each manifest of the views as strictly as the API server does.
func TestKubernetesViewsAreOfTheRealTypes(t *testing.T) {
	const incident, uid = "iabcdefghijkl", "0a1b2c3d-0000-4000-8000-00000000beef"
	strict := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme.Scheme, scheme.Scheme, json.SerializerOptions{Yaml: true, Strict: true})
	p := &plan.Plan{APIVersion: plan.APIVersion, Kind: plan.Kind, IncidentID: incident}
	for i, a := range []plan.Action{plan.KubernetesIsolatePod, plan.KubernetesBlockWrites} {
		p.Steps = append(p.Steps, plan.Step{Index: i, Action: a, DurationSeconds: 60, Expiry: plan.Release,
			Target: plan.Target{Kind: plan.Pod, Scope: clusterName, Namespace: "shop", Name: "web", UID: uid}})
	}
	digest := must(p.Digest())(t)
	var got []runtime.Object
	for _, v := range must(plan.Views(p))(t) {
		if v.Language == plan.YAML {
			object, _, err := strict.Decode([]byte(v.Apply), nil, nil)
			if err != nil {
				t.Fatalf("%s: %v\n%s", v.File, err, v.Apply)
			}
			got = append(got, object)
		}
	}
	in := plan.Intent{IncidentID: incident, PlanDigest: digest, Step: p.Steps[0]}
	want := []runtime.Object{
		&networkingv1.NetworkPolicy{TypeMeta: metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy"},
			ObjectMeta: metav1.ObjectMeta{Name: in.ObjectName(), Namespace: "shop", Labels: map[string]string{kubernetes.LabelIncident: incident, kubernetes.LabelPod: uid},
				Annotations: map[string]string{kubernetes.AnnotationIntent: "<intent>"}},
			Spec: networkingv1.NetworkPolicySpec{PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{kubernetes.LabelQuarantine: incident}},
				PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}}},
		&corev1.ConfigMap{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
			ObjectMeta: metav1.ObjectMeta{Name: kubernetes.BlockedPods, Namespace: kubernetes.DefaultNamespace}, Data: map[string]string{"pods": "<uids on the list>," + uid}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestAPersonCutsByTheViews applies the patches of the views to the real API server by hand, the words in brackets filled
// in: they do what the actions do, on this pod and this binding only, and take it back.
func TestAPersonCutsByTheViews(t *testing.T) {
	w := newTown(t)
	sa, person := w.account(t, "shop"), rbacv1.Subject{Kind: "User", APIGroup: rbacv1.GroupName, Name: "jane"}
	w.bindRole(t, "writes", "writer", person, subject(sa))
	pod := w.podOf(t, "web", "shop", "ReplicaSet")
	p := &plan.Plan{APIVersion: plan.APIVersion, Kind: plan.Kind, IncidentID: "iabcdefghijkl", Steps: []plan.Step{
		{Action: plan.KubernetesIsolatePod, Target: pod, DurationSeconds: 60, Expiry: plan.Release},
		{Index: 1, Action: plan.KubernetesCutRBAC, Target: sa, DurationSeconds: 60, Expiry: plan.Release},
	}}
	files := map[string]string{}
	for _, v := range must(plan.Views(p))(t) {
		files[v.File], files[v.UndoFile()] = v.Apply, v.Undo
	}
	patchPod := func(file string) error {
		_, err := w.admin.CoreV1().Pods(w.namespace).Patch(t.Context(), "web", types.JSONPatchType, []byte(files[file]), metav1.PatchOptions{})
		return err
	}
	for _, step := range []struct {
		file string
		want map[string]string
	}{
		{"step-00-label-in-place.json", map[string]string{"app": "shop", "pod-template-hash": "5d4f8", kubernetes.LabelQuarantine: p.IncidentID}},
		{"step-00-label-in-place.undo.json", map[string]string{"app": "shop", "pod-template-hash": "5d4f8"}},
		{"step-00-labels.json", map[string]string{kubernetes.LabelQuarantine: p.IncidentID}},
	} {
		if err := patchPod(step.file); err != nil {
			t.Fatalf("%s: %v\n%s", step.file, err, files[step.file])
		}
		if diff := cmp.Diff(step.want, w.pod(t, "web").Labels); diff != "" {
			t.Errorf("%s: %s", step.file, diff)
		}
	}
	bindings := w.admin.RbacV1().RoleBindings(w.namespace)
	b := must(bindings.Get(t.Context(), "writes", metav1.GetOptions{}))(t)
	filled := strings.NewReplacer("<binding uid>", string(b.UID), "<index>", "1")
	cut := must(bindings.Patch(t.Context(), "writes", types.JSONPatchType, []byte(filled.Replace(files["step-01-subject.json"])), metav1.PatchOptions{}))(t)
	if diff := cmp.Diff([]rbacv1.Subject{person}, cut.Subjects); diff != "" {
		t.Error(diff)
	}
	back := must(bindings.Patch(t.Context(), "writes", types.JSONPatchType, []byte(filled.Replace(files["step-01-subject.undo.json"])), metav1.PatchOptions{}))(t)
	if diff := cmp.Diff(b.Subjects, back.Subjects); diff != "" {
		t.Error(diff)
	}
	w.replacePod(t, "web", "shop", "ReplicaSet")
	if err := patchPod("step-00-labels.json"); err == nil {
		t.Error("another pod of that name was isolated")
	}
}
