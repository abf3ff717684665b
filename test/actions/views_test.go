package actions_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/client-go/kubernetes/scheme"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

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
