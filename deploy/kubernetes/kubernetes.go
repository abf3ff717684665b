// Package kubernetes holds what Tourniquet needs in a cluster before any incident: accounts, rights, the write block and
// the leash on the enforcer's own account. It is data with an installer; the demo and the tests call it with an
// administrator's rights, which no process of the product has.
package kubernetes

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
)

// Peacetime is the manifest, several YAML documents in one.
//
//go:embed peacetime.yaml
var Peacetime []byte

// The accounts in the manifest.
const (
	Namespace          = "tourniquet-system"
	ContainAccount     = "contain-kubernetes"
	InvestigateAccount = "investigate"
	SensorAccount      = "sensor"
)

// BindRole is the cluster role that lets the enforcer change bindings of these roles and cluster roles. Without names
// it grants nothing: an empty list of names would mean all.
func BindRole(roles, clusterRoles []string) []byte {
	var rules []map[string]any
	for resource, names := range map[string][]string{"roles": roles, "clusterroles": clusterRoles} {
		if len(names) > 0 {
			rules = append(rules, map[string]any{"apiGroups": []string{"rbac.authorization.k8s.io"}, "resources": []string{resource},
				"verbs": []string{"bind"}, "resourceNames": names})
		}
	}
	out, err := json.Marshal(map[string]any{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
		"metadata": map[string]any{"name": "tourniquet-bind"}, "rules": rules})
	if err != nil {
		panic(err) // maps of strings always marshal
	}
	return out
}

// resources are the kinds in the manifest.
var resources = map[string]schema.GroupVersionResource{
	"Namespace":                        {Version: "v1", Resource: "namespaces"},
	"ServiceAccount":                   {Version: "v1", Resource: "serviceaccounts"},
	"ConfigMap":                        {Version: "v1", Resource: "configmaps"},
	"Role":                             {Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "roles"},
	"RoleBinding":                      {Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "rolebindings"},
	"ClusterRole":                      {Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterroles"},
	"ClusterRoleBinding":               {Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterrolebindings"},
	"ValidatingAdmissionPolicy":        {Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingadmissionpolicies"},
	"ValidatingAdmissionPolicyBinding": {Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingadmissionpolicybindings"},
}

// Install applies the peacetime manifest and further documents, in order, and returns when the leash is in force: the
// API server takes up a new policy within about a second, and until then the enforcer's token must not exist. It may be
// called again. A list of blocked pods that stands already is left as it is. The caller needs the group system:masters.
func Install(ctx context.Context, config *rest.Config, more ...[]byte) error {
	api, err := dynamic.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("install: %w", err)
	}
	for _, manifest := range append([][]byte{Peacetime}, more...) {
		objects, err := split(manifest)
		if err != nil {
			return err
		}
		for _, o := range objects {
			if err := install(ctx, api, o); err != nil {
				return fmt.Errorf("install %s %s: %w", o.GetKind(), o.GetName(), err)
			}
		}
	}
	return waitForLeash(ctx, config)
}

// waitForLeash asks, as the enforcer's account but with every right, for things that only the leash refuses. Nothing is
// made: the requests are dry runs.
func waitForLeash(ctx context.Context, config *rest.Config) error {
	ours := rest.CopyConfig(config)
	ours.Impersonate = rest.ImpersonationConfig{UserName: "system:serviceaccount:" + Namespace + ":" + ContainAccount, Groups: []string{"system:masters"}}
	api, err := dynamic.NewForConfig(ours)
	if err != nil {
		return fmt.Errorf("wait for the leash: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, leashWithin)
	defer cancel()
	tick := time.NewTicker(leashPoll)
	defer tick.Stop()
	for {
		loose, err := looseEnds(ctx, api)
		if err == nil && len(loose) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the leash: not in force on %v: %w", loose, errors.Join(err, ctx.Err()))
		case <-tick.C:
		}
	}
}

const (
	leashWithin = time.Minute // it takes about a second
	leashPoll   = 50 * time.Millisecond
)

// looseEnds are the resources that the leash does not hold yet.
func looseEnds(ctx context.Context, api dynamic.Interface) (loose []string, err error) {
	for _, probe := range []struct {
		resource schema.GroupVersionResource
		object   map[string]any
	}{
		{resources["ConfigMap"], map[string]any{"apiVersion": "v1", "kind": "ConfigMap"}},
		{resources["RoleBinding"], map[string]any{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
			"roleRef": map[string]any{"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}}},
		{schema.GroupVersionResource{Version: "v1", Resource: "pods"}, map[string]any{"apiVersion": "v1", "kind": "Pod",
			"spec": map[string]any{"serviceAccountName": SensorAccount, "containers": []any{map[string]any{"name": "x", "image": "x"}}}}},
		{schema.GroupVersionResource{Group: "networking.k8s.io", Version: "v1", Resource: "networkpolicies"},
			map[string]any{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "spec": map[string]any{"podSelector": map[string]any{}}}},
	} {
		probe.object["metadata"] = map[string]any{"name": "leash-probe"}
		_, err := api.Resource(probe.resource).Namespace(Namespace).Create(ctx, &unstructured.Unstructured{Object: probe.object}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		switch {
		case err == nil:
			loose = append(loose, probe.resource.Resource)
		case !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "tourniquet-leash-"):
			return loose, err
		}
	}
	return loose, nil
}

func install(ctx context.Context, api dynamic.Interface, o *unstructured.Unstructured) error {
	resource, ok := resources[o.GetKind()]
	if !ok {
		return errors.New("is of no kind that is installed")
	}
	in := api.Resource(resource).Namespace(o.GetNamespace())
	if o.GetKind() == "ConfigMap" {
		if _, err := in.Get(ctx, o.GetName(), metav1.GetOptions{}); err == nil {
			return nil
		}
	}
	raw, err := o.MarshalJSON()
	if err != nil {
		return err
	}
	force := true
	_, err = in.Patch(ctx, o.GetName(), types.ApplyPatchType, raw, metav1.PatchOptions{FieldManager: "tourniquet-install", Force: &force})
	return err
}

// split reads the YAML documents of a manifest.
func split(manifest []byte) ([]*unstructured.Unstructured, error) {
	var out []*unstructured.Unstructured
	reader := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(manifest)))
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read manifest: %w", err)
		}
		o := &unstructured.Unstructured{}
		if err := yaml.UnmarshalStrict(document, &o.Object); err != nil {
			return nil, fmt.Errorf("read manifest: %w", err)
		}
		if len(o.Object) > 0 {
			out = append(out, o)
		}
	}
}
