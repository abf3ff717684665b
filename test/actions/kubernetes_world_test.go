package actions_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	client "k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"tourniquet.dev/tourniquet/activities/conformance"
	"tourniquet.dev/tourniquet/activities/kubernetes"
	deploy "tourniquet.dev/tourniquet/deploy/kubernetes"
	"tourniquet.dev/tourniquet/dev/cluster"
	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/trust"
)

const clusterName = "test"

// signerOf makes the enforcer's key and a trust file that knows it.
func signerOf(t *testing.T) (*authz.Signer, *trust.File) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return authz.NewSigner(private), &trust.File{
		Keys:     []trust.Key{{ID: trust.KeyID(public), Role: trust.RoleContainKubernetes, Public: base64.StdEncoding.EncodeToString(public)}},
		Ceilings: trust.Ceilings{MaxApproved: 24 * time.Hour},
	}
}

var worlds atomic.Int64

// town is a namespace of its own in the shared cluster, with our two roles looking at it.
type town struct {
	*cluster.Cluster
	namespace string
	admin     *client.Clientset
	link      *link
	contain   *kubernetes.System
	look      *kubernetes.System
	trust     *trust.File
	index     int
}

func newTown(t *testing.T) *town {
	t.Helper()
	c := startCluster(t)
	n := int(worlds.Add(1))
	w := &town{Cluster: c, namespace: fmt.Sprintf("town-%d", n), admin: must(c.Client())(t), index: n}
	must(w.admin.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}}, metav1.CreateOptions{}))(t)
	config := must(c.RESTConfig())(t)
	bare := rest.CopyConfig(config)
	bare.CertData, bare.KeyData, bare.CertFile, bare.KeyFile = nil, nil, "", "" // the caller's token is passed on, nothing else
	w.link = newLink(t, c.URL(), must(rest.TransportFor(bare))(t), kubernetesWrite)
	signer, file := signerOf(t)
	w.trust = file
	known := func() *trust.File { return file }
	w.contain = must(kubernetes.New(kubernetes.Options{Kubeconfig: w.through(t, w.token(t, deploy.ContainAccount)), Cluster: clusterName, Signer: signer, Trust: known}))(t)
	w.look = must(kubernetes.New(kubernetes.Options{Kubeconfig: w.direct(t, w.token(t, deploy.InvestigateAccount)), Cluster: clusterName, Trust: known}))(t)
	return w
}

func kubernetesWrite(r *http.Request, _ []byte) bool {
	return r.Method != http.MethodGet && !strings.HasSuffix(r.URL.Path, "reviews")
}

func (w *town) token(t *testing.T, account string) string {
	t.Helper()
	return must(w.ServiceAccountToken(t.Context(), cluster.TokenRequest{Namespace: deploy.Namespace, ServiceAccount: account}))(t)
}

func (w *town) direct(t *testing.T, token string) string {
	t.Helper()
	return writeFile(t, must(w.TokenKubeconfig(token))(t))
}

// through is a kubeconfig that goes by the link.
func (w *town) through(t *testing.T, token string) string {
	t.Helper()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.link.server.Certificate().Raw})
	return writeFile(t, must(clientcmd.Write(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"c": {Server: w.link.server.URL, CertificateAuthorityData: ca}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"u": {Token: token}},
		Contexts:       map[string]*clientcmdapi.Context{"x": {Cluster: "c", AuthInfo: "u"}},
		CurrentContext: "x",
	}))(t))
}

func writeFile(t *testing.T, raw []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// as is a client with an account's token.
func (w *town) as(t *testing.T, token string) *client.Clientset {
	t.Helper()
	config := must(clientcmd.RESTConfigFromKubeConfig(must(w.TokenKubeconfig(token))(t)))(t)
	config.QPS = -1
	return must(client.NewForConfig(config))(t)
}

func (w *town) account(t *testing.T, name string) plan.Target {
	t.Helper()
	sa := must(w.admin.CoreV1().ServiceAccounts(w.namespace).Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}))(t)
	return plan.Target{Kind: plan.ServiceAccount, Scope: clusterName, Namespace: w.namespace, Name: name, UID: string(sa.UID)}
}

// podOf makes a pod of a service account, as its controller would have.
func (w *town) podOf(t *testing.T, name, account, ownerKind string) plan.Target {
	t.Helper()
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "shop", "pod-template-hash": "5d4f8"}, Annotations: map[string]string{"theirs": "stays"}},
		Spec: corev1.PodSpec{ServiceAccountName: account, NodeName: "node-1", AutomountServiceAccountToken: new(bool),
			Containers: []corev1.Container{{Name: "app", Image: "registry.example/shop:1"}}},
	}
	if ownerKind != "" {
		yes := true
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: ownerKind, Name: "shop-5d4f8", UID: "00000000-0000-4000-8000-000000000001", Controller: &yes}}
	}
	made := must(w.admin.CoreV1().Pods(w.namespace).Create(t.Context(), p, metav1.CreateOptions{}))(t)
	return plan.Target{Kind: plan.Pod, Scope: clusterName, Namespace: w.namespace, Name: name, UID: string(made.UID)}
}

// bindRole gives subjects a role of this namespace.
func (w *town) bindRole(t *testing.T, binding, role string, subjects ...rbacv1.Subject) {
	t.Helper()
	rules := []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"get", "create"}}}
	_, err := w.admin.RbacV1().Roles(w.namespace).Create(t.Context(), &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: role}, Rules: rules}, metav1.CreateOptions{})
	if err != nil && !strings.Contains(err.Error(), "already exists") {
		t.Fatal(err)
	}
	must(w.admin.RbacV1().RoleBindings(w.namespace).Create(t.Context(), &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: binding},
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role}, Subjects: subjects}, metav1.CreateOptions{}))(t)
}

// bindWide gives subjects the cluster role app-wide.
func (w *town) bindWide(t *testing.T, binding string, subjects ...rbacv1.Subject) {
	t.Helper()
	rules := []rbacv1.PolicyRule{{APIGroups: []string{"apps"}, Resources: []string{"deployments"}, Verbs: []string{"list"}}}
	_, err := w.admin.RbacV1().ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "app-wide"}, Rules: rules}, metav1.CreateOptions{})
	if err != nil && !strings.Contains(err.Error(), "already exists") {
		t.Fatal(err)
	}
	must(w.admin.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: binding},
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "app-wide"}, Subjects: subjects}, metav1.CreateOptions{}))(t)
}

func subject(t plan.Target) rbacv1.Subject {
	return rbacv1.Subject{Kind: "ServiceAccount", Namespace: t.Namespace, Name: t.Name}
}

// world is a world whose snapshot is the pods, policies and bindings of the namespace, its cluster bindings, and what
// the list of blocked pods says of its pods.
func (w *town) world(action plan.Action, target plan.Target) conformance.World {
	entry, _ := plan.Lookup(action)
	step := plan.Step{Index: w.index, Action: action, Target: target, DurationSeconds: 3600, Expiry: plan.Release}
	if entry.Closure != "" {
		step.Closure = &plan.Closure{Of: fmt.Sprintf(entry.Closure, target.Name), Max: 10}
	}
	return conformance.World{Action: w.contain.Actions()[action], Reader: w.look.Readers()[action], Step: step, Link: w.link,
		Finding: plan.Asserted, Snapshot: w.snapshot, Patience: 500 * time.Millisecond}
}

func (w *town) snapshot(t *testing.T) any {
	t.Helper()
	out := map[string]any{}
	pods := must(w.admin.CoreV1().Pods(w.namespace).List(t.Context(), metav1.ListOptions{}))(t)
	list := w.blocked(t)
	for _, p := range pods.Items {
		out["pod "+p.Name] = []any{string(p.UID), ours(p.ObjectMeta)}
		out["blocked "+p.Name] = strings.Contains(list.Data["pods"], string(p.UID))
		for key, value := range list.Annotations {
			if strings.Contains(value, string(p.UID)) {
				out["hold of "+p.Name] = key
			}
		}
	}
	for _, p := range must(w.admin.NetworkingV1().NetworkPolicies(w.namespace).List(t.Context(), metav1.ListOptions{}))(t).Items {
		out["policy "+p.Name] = []any{p.Spec, ours(p.ObjectMeta)}
	}
	for _, b := range must(w.admin.RbacV1().RoleBindings(w.namespace).List(t.Context(), metav1.ListOptions{}))(t).Items {
		out["binding "+b.Name] = []any{b.Subjects, b.RoleRef, ours(b.ObjectMeta)}
	}
	for _, b := range must(w.admin.RbacV1().ClusterRoleBindings().List(t.Context(), metav1.ListOptions{}))(t).Items {
		if strings.HasPrefix(b.Name, w.namespace+"-") {
			out["cluster binding "+b.Name] = []any{b.Subjects, b.RoleRef, ours(b.ObjectMeta)}
		}
	}
	return out
}

// ours is what of an object's metadata we may change; no annotations and none at all are the same.
func ours(m metav1.ObjectMeta) []map[string]string {
	annotations := map[string]string{}
	for k, v := range m.Annotations {
		annotations[k] = v
	}
	return []map[string]string{m.Labels, annotations}
}

func (w *town) blocked(t *testing.T) *corev1.ConfigMap {
	t.Helper()
	return must(w.admin.CoreV1().ConfigMaps(deploy.Namespace).Get(t.Context(), kubernetes.BlockedPods, metav1.GetOptions{}))(t)
}

func (w *town) pod(t *testing.T, name string) *corev1.Pod {
	t.Helper()
	return must(w.admin.CoreV1().Pods(w.namespace).Get(t.Context(), name, metav1.GetOptions{}))(t)
}

func (w *town) setLabels(t *testing.T, name string, labels map[string]string) {
	t.Helper()
	p := w.pod(t, name)
	p.Labels = labels
	must(w.admin.CoreV1().Pods(w.namespace).Update(t.Context(), p, metav1.UpdateOptions{}))(t)
}

// replacePod deletes a pod and makes another of the same name.
func (w *town) replacePod(t *testing.T, name, account, owner string) {
	t.Helper()
	none := int64(0)
	if err := w.admin.CoreV1().Pods(w.namespace).Delete(t.Context(), name, metav1.DeleteOptions{GracePeriodSeconds: &none}); err != nil {
		t.Fatal(err)
	}
	w.podOf(t, name, account, owner)
}

func (w *town) policies(t *testing.T) []networkingv1.NetworkPolicy {
	t.Helper()
	return must(w.admin.NetworkingV1().NetworkPolicies(w.namespace).List(t.Context(), metav1.ListOptions{}))(t).Items
}
