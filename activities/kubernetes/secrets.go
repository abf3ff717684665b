package kubernetes

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"tourniquet.dev/tourniquet/internal/blast"
)

// secrets names the secrets in the namespaces that the account's rules reach. It asks for names only, never for
// content. RBAC cannot grant names alone, so by default our account may not list secrets at all: then the names come
// from what refers to them, and that others may exist is a gap.
func (w *workload) secrets(ctx context.Context) error {
	for _, namespace := range w.secretNamespaces() {
		list, err := w.metadata.Resource(schema.GroupVersionResource{Version: "v1", Resource: "secrets"}).
			Namespace(namespace).List(ctx, metav1.ListOptions{Limit: maxListed})
		if apierrors.IsForbidden(err) {
			if err := w.referredSecrets(ctx, namespace); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return apiError("list names of secrets", err, false)
		}
		for _, m := range list.Items {
			w.facts.Secrets = append(w.facts.Secrets, blast.Object{Kind: "Secret", Namespace: m.Namespace, Name: m.Name, UID: string(m.UID)})
		}
		if list.Continue != "" {
			w.gap("more than %d secrets in namespace %q", maxListed, namespace)
		}
	}
	return nil
}

// secretNamespaces are those whose secrets a rule reads; one empty name stands for all.
func (w *workload) secretNamespaces() []string {
	found := map[string]bool{}
	for _, r := range w.facts.Rules {
		reads := slices.ContainsFunc(r.Verbs, func(v string) bool { return v == "*" || v == "get" || v == "list" || v == "watch" })
		core := slices.Contains(r.APIGroups, "") || slices.Contains(r.APIGroups, "*")
		if reads && core && (slices.Contains(r.Resources, "secrets") || slices.Contains(r.Resources, "*")) {
			if r.Namespace == "" {
				return []string{""}
			}
			found[r.Namespace] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// referredSecrets names the secrets that pods and service accounts of a namespace refer to.
func (w *workload) referredSecrets(ctx context.Context, namespace string) error {
	names := map[string]bool{} // namespace/name
	pods, err := w.api.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{Limit: maxListed})
	if err != nil {
		return apiError("list pods", err, false)
	}
	for _, p := range pods.Items {
		for _, name := range secretsOf(&p.Spec) {
			names[p.Namespace+"/"+name] = true
		}
	}
	accounts, err := w.api.CoreV1().ServiceAccounts(namespace).List(ctx, metav1.ListOptions{Limit: maxListed})
	if err != nil {
		return apiError("list service accounts", err, false)
	}
	for _, a := range accounts.Items {
		for _, ref := range a.Secrets {
			names[a.Namespace+"/"+ref.Name] = true
		}
		for _, ref := range a.ImagePullSecrets {
			names[a.Namespace+"/"+ref.Name] = true
		}
	}
	for _, r := range w.facts.Rules { // a rule that names them says that they are worth naming
		if slices.Contains(r.Resources, "secrets") && r.Namespace != "" && (namespace == "" || namespace == r.Namespace) {
			for _, name := range r.ResourceNames {
				names[r.Namespace+"/"+name] = true
			}
		}
	}
	for _, full := range slices.Sorted(maps.Keys(names)) {
		ns, name, _ := strings.Cut(full, "/")
		w.facts.Secrets = append(w.facts.Secrets, blast.Object{Kind: "Secret", Namespace: ns, Name: name})
	}
	w.gap("%s", fmt.Sprintf("secrets in namespace %q are known only where a pod, a service account or a rule refers to them: we may not list them", namespace))
	return nil
}

// secretsOf lists the names of the secrets that a pod refers to.
func secretsOf(spec *corev1.PodSpec) []string {
	var out []string
	for _, v := range spec.Volumes {
		if v.Secret != nil {
			out = append(out, v.Secret.SecretName)
		}
		if v.Projected != nil {
			for _, source := range v.Projected.Sources {
				if source.Secret != nil {
					out = append(out, source.Secret.Name)
				}
			}
		}
	}
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		for _, e := range c.EnvFrom {
			if e.SecretRef != nil {
				out = append(out, e.SecretRef.Name)
			}
		}
		for _, e := range c.Env {
			if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil {
				out = append(out, e.ValueFrom.SecretKeyRef.Name)
			}
		}
	}
	for _, ref := range spec.ImagePullSecrets {
		out = append(out, ref.Name)
	}
	return slices.DeleteFunc(out, func(name string) bool { return name == "" })
}
