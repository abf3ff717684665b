package kubernetes

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"tourniquet.dev/tourniquet/internal/blast"
	"tourniquet.dev/tourniquet/internal/plan"
)

// The bounds of one investigation. What lies beyond them is a stated gap.
const (
	maxListed  = 500
	roleARNKey = "eks.amazonaws.com/role-arn"
)

var (
	keyIDForm   = regexp.MustCompile(`\b(AKIA|ASIA)[A-Z0-9]{16}\b`)
	roleARNForm = regexp.MustCompile(`^arn:aws[a-z-]*:iam::[0-9]{12}:role/[\w+=,.@/-]{1,600}$`)
)

// Workload gathers what the cluster knows of a pod and its service account. What cannot be read is a gap in the facts,
// never "no reach"; an error means that not even the pod is known.
func (s *System) Workload(ctx context.Context, namespace, pod, podUID string) (*blast.KubernetesFacts, error) {
	p, err := s.pod(ctx, plan.Target{Kind: plan.Pod, Scope: s.options.Cluster, Namespace: namespace, Name: pod, UID: podUID})
	if err != nil {
		return nil, err
	}
	w := &workload{System: s, pod: p, facts: &blast.KubernetesFacts{
		Cluster: s.options.Cluster, Namespace: namespace, Pod: pod, PodUID: podUID, Node: p.Spec.NodeName,
		ServiceAccount: p.Spec.ServiceAccountName, Labels: orEmpty(p.Labels), HostNetwork: p.Spec.HostNetwork,
	}}
	if w.facts.ServiceAccount == "" {
		w.facts.ServiceAccount = "default"
	}
	w.ofPod()
	for _, look := range []func(context.Context) error{w.owner, w.serviceAccount, w.rights, w.neighbours, w.selectedBy, w.secrets} {
		if err := look(ctx); err != nil {
			w.gap("%v", err)
		}
	}
	return w.facts, nil
}

// workload gathers the facts of one pod.
type workload struct {
	*System
	pod   *corev1.Pod
	facts *blast.KubernetesFacts
}

func (w *workload) gap(format string, args ...any) {
	w.facts.Gaps = append(w.facts.Gaps, fmt.Sprintf(format, args...))
}

// ofPod reads what the pod's own object says.
func (w *workload) ofPod() {
	spec, f := w.pod.Spec, w.facts
	keys := map[string]bool{}
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		f.Images = append(f.Images, c.Image)
		f.Privileged = f.Privileged || (c.SecurityContext != nil && c.SecurityContext.Privileged != nil && *c.SecurityContext.Privileged)
		for _, e := range c.Env {
			for _, id := range keyIDForm.FindAllString(e.Value, -1) {
				keys[id] = true
			}
		}
	}
	f.KeyIDs = slices.Sorted(maps.Keys(keys))
	f.TokenMounted = spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken
	for _, v := range spec.Volumes {
		f.HostPath = f.HostPath || v.HostPath != nil
		f.TokenMounted = f.TokenMounted || (v.Projected != nil && slices.ContainsFunc(v.Projected.Sources, func(p corev1.VolumeProjection) bool { return p.ServiceAccountToken != nil }))
	}
}

// owner follows the chain of controllers to its top, where we may read it.
func (w *workload) owner(ctx context.Context) error {
	ref := metav1.GetControllerOf(w.pod)
	if ref == nil {
		return nil
	}
	w.facts.Owner = blast.Object{Kind: ref.Kind, Namespace: w.pod.Namespace, Name: ref.Name, UID: string(ref.UID)}
	if ref.Kind != "ReplicaSet" {
		return nil
	}
	set, err := w.metadata.Resource(schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "replicasets"}).
		Namespace(w.pod.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
	if err != nil {
		return apiError("owner of replica set "+ref.Name, err, false)
	}
	if top := metav1.GetControllerOf(set); top != nil && set.UID == ref.UID {
		w.facts.Owner = blast.Object{Kind: top.Kind, Namespace: w.pod.Namespace, Name: top.Name, UID: string(top.UID)}
	}
	return nil
}

func (w *workload) serviceAccount(ctx context.Context) error {
	sa, err := w.api.CoreV1().ServiceAccounts(w.pod.Namespace).Get(ctx, w.facts.ServiceAccount, metav1.GetOptions{})
	if err != nil {
		return apiError("service account "+w.facts.ServiceAccount, err, false)
	}
	w.facts.AccountUID = string(sa.UID)
	if arn := sa.Annotations[roleARNKey]; roleARNForm.MatchString(arn) {
		w.facts.RoleARN = arn
	} else if arn != "" {
		w.gap("service account %s: annotation %s is no role ARN", sa.Name, roleARNKey)
	}
	if w.pod.Spec.AutomountServiceAccountToken == nil && sa.AutomountServiceAccountToken != nil && !*sa.AutomountServiceAccountToken &&
		!slices.ContainsFunc(w.pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Projected != nil }) {
		w.facts.TokenMounted = false
	}
	return nil
}

// rights resolves every binding that reaches the account, by its name or by one of its groups, into rules.
func (w *workload) rights(ctx context.Context) error {
	all, err := w.bindings(ctx)
	if err != nil {
		return err
	}
	a := account{w.pod.Namespace, w.facts.ServiceAccount}
	for _, b := range all {
		through := ""
		for _, subject := range b.subjects {
			if a.names(subject) {
				through = "named"
				break
			}
			if subject.Kind == rbacv1.GroupKind && slices.Contains(a.groups(), subject.Name) {
				through = "group " + subject.Name
			}
		}
		if through == "" {
			continue
		}
		kind := "RoleBinding"
		if b.kind == plan.ClusterBinding {
			kind = "ClusterRoleBinding"
		}
		name := b.Name
		if through != "named" {
			name += " (" + through + ")"
		}
		w.facts.Bindings = append(w.facts.Bindings, blast.Object{Kind: kind, Namespace: b.Namespace, Name: b.Name, UID: string(b.UID)})
		rules, err := w.rulesOf(ctx, b.role, b.Namespace)
		if err != nil {
			w.gap("rights by %s %s: %v", kind, b.Name, err)
			continue
		}
		for _, r := range rules {
			if len(r.Resources) > 0 {
				w.facts.Rules = append(w.facts.Rules, blast.Rule{Namespace: b.Namespace, Binding: name, Role: b.role.Name, Verbs: r.Verbs,
					APIGroups: r.APIGroups, Resources: r.Resources, ResourceNames: r.ResourceNames})
			}
		}
	}
	return nil
}

// neighbours are the other pods of the same service account.
func (w *workload) neighbours(ctx context.Context) error {
	list, err := w.api.CoreV1().Pods(w.pod.Namespace).List(ctx, metav1.ListOptions{Limit: maxListed})
	if err != nil {
		return apiError("list pods", err, false)
	}
	for _, p := range list.Items {
		if p.UID != w.pod.UID && p.Spec.ServiceAccountName == w.pod.Spec.ServiceAccountName {
			w.facts.Siblings = append(w.facts.Siblings, blast.Object{Kind: "Pod", Namespace: p.Namespace, Name: p.Name, UID: string(p.UID)})
		}
	}
	if list.Continue != "" {
		w.gap("more than %d pods in namespace %s", maxListed, w.pod.Namespace)
	}
	return nil
}

// selectedBy are the Services and NetworkPolicies that select the pod.
func (w *workload) selectedBy(ctx context.Context) error {
	services, err := w.api.CoreV1().Services(w.pod.Namespace).List(ctx, metav1.ListOptions{Limit: maxListed})
	if err != nil {
		return apiError("list services", err, false)
	}
	set := labels.Set(w.pod.Labels)
	for _, service := range services.Items {
		if len(service.Spec.Selector) > 0 && labels.SelectorFromSet(service.Spec.Selector).Matches(set) {
			w.facts.Services = append(w.facts.Services, blast.Object{Kind: "Service", Namespace: service.Namespace, Name: service.Name, UID: string(service.UID)})
		}
	}
	policies, err := w.api.NetworkingV1().NetworkPolicies(w.pod.Namespace).List(ctx, metav1.ListOptions{Limit: maxListed})
	if err != nil {
		return apiError("list network policies", err, false)
	}
	for _, policy := range policies.Items {
		selector, err := metav1.LabelSelectorAsSelector(&policy.Spec.PodSelector)
		if err == nil && selector.Matches(set) {
			w.facts.Policies = append(w.facts.Policies, blast.Object{Kind: "NetworkPolicy", Namespace: policy.Namespace, Name: policy.Name, UID: string(policy.UID)})
		}
	}
	if services.Continue != "" || policies.Continue != "" {
		w.gap("more than %d services or network policies in namespace %s", maxListed, w.pod.Namespace)
	}
	return nil
}
