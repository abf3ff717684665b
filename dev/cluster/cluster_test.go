package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"tourniquet.dev/tourniquet/dev/cluster"
)

// parentEnv makes this test binary a process that starts a cluster and waits to be killed.
const parentEnv = "TOURNIQUET_TEST_CLUSTER_PARENT"

func TestMain(m *testing.M) {
	if dir := os.Getenv(parentEnv); dir != "" {
		beParent(dir)
	}
	os.Exit(m.Run())
}

func beParent(dir string) {
	if _, err := cluster.Start(context.Background(), cluster.Options{StateDir: dir, Ephemeral: true}); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin) // until the test dies
	os.Exit(1)
}

// start starts a cluster; the first time on a machine this builds it.
func start(t *testing.T, dir string) *cluster.Cluster {
	t.Helper()
	c, err := cluster.Start(t.Context(), cluster.Options{StateDir: dir, Ephemeral: true, Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func client(t *testing.T, kubeconfig []byte, err error) kubernetes.Interface {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return clients
}

// eventually tries until it succeeds: for what the API server caches.
func eventually(t *testing.T, try func(ctx context.Context) error) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), 20*time.Millisecond, 30*time.Second, true, func(ctx context.Context) (bool, error) {
		last = try(ctx)
		return last == nil, nil
	})
	if err != nil {
		t.Fatalf("%v: %v", err, last)
	}
}

func namespace(t *testing.T, admin kubernetes.Interface, name string) {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := admin.CoreV1().Namespaces().Create(t.Context(), ns, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	sa := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	if _, err := admin.CoreV1().ServiceAccounts(name).Create(t.Context(), sa, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func pod(name string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{
		Containers: []corev1.Container{{Name: "main", Image: "example.test/none"}},
	}}
}

func TestCluster(t *testing.T) {
	c := start(t, t.TempDir())
	admin := client(t, c.Kubeconfig(), nil)

	t.Run("a bound token names its pod", func(t *testing.T) { testBoundToken(t, c, admin) })
	t.Run("a user has the rights that RBAC gives", func(t *testing.T) { testUser(t, c, admin) })
	t.Run("an admission policy refuses", func(t *testing.T) { testAdmissionPolicy(t, admin) })
	t.Run("the audit log tells who did what", func(t *testing.T) { testAudit(t, c) })
	t.Run("the state folder admits no second cluster", func(t *testing.T) {
		other, err := cluster.Start(t.Context(), cluster.Options{StateDir: filepath.Dir(c.KubeconfigPath()), BinDir: t.TempDir()})
		if err == nil {
			t.Error("two clusters on one state folder", other.Stop())
		} else if !errors.Is(err, syscall.EWOULDBLOCK) {
			t.Error(err)
		}
	})
}

func testBoundToken(t *testing.T, c *cluster.Cluster, admin kubernetes.Interface) {
	namespace(t, admin, "bound")
	p, err := admin.CoreV1().Pods("bound").Create(t.Context(), pod("worker"), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	token, err := c.ServiceAccountToken(t.Context(), cluster.TokenRequest{
		Namespace: "bound", ServiceAccount: "default", Pod: p.Name, PodUID: p.UID, Lifetime: 10 * time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig, err := c.TokenKubeconfig(token)
	bearer := client(t, kubeconfig, err)
	me, err := bearer.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("system:serviceaccount:bound:default", me.Status.UserInfo.Username); diff != "" {
		t.Errorf("who the token is (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(authenticationv1.ExtraValue{string(p.UID)}, me.Status.UserInfo.Extra["authentication.kubernetes.io/pod-uid"]); diff != "" {
		t.Errorf("pod the token is bound to (-want +got):\n%s", diff)
	}
}

func testUser(t *testing.T, c *cluster.Cluster, admin kubernetes.Interface) {
	kubeconfig, err := c.UserKubeconfig("alice", "responders")
	alice := client(t, kubeconfig, err)
	if _, err := alice.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Fatalf("a user without a role listed nodes: %v", err)
	}
	bind := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "responders-view"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: "responders"}},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
	}
	if _, err := admin.RbacV1().ClusterRoleBindings().Create(t.Context(), bind, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func(ctx context.Context) error {
		_, err := alice.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		return err
	})
}

func testAdmissionPolicy(t *testing.T, admin kubernetes.Interface) {
	namespace(t, admin, "policed")
	fail := admissionv1.Fail
	policy := &admissionv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "no-host-network"},
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			FailurePolicy: &fail,
			MatchConstraints: &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{{
				RuleWithOperations: admissionv1.RuleWithOperations{
					Operations: []admissionv1.OperationType{admissionv1.Create},
					Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
				},
			}}},
			Validations: []admissionv1.Validation{{Expression: "!has(object.spec.hostNetwork) || !object.spec.hostNetwork", Message: "no host network here"}},
		},
	}
	if _, err := admin.AdmissionregistrationV1().ValidatingAdmissionPolicies().Create(t.Context(), policy, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	binding := &admissionv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "no-host-network"},
		Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: "no-host-network", ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
		},
	}
	if _, err := admin.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings().Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	wide := pod("wide")
	wide.Spec.HostNetwork = true
	dryRun := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	eventually(t, func(ctx context.Context) error { // the policy takes a moment to be compiled
		_, err := admin.CoreV1().Pods("policed").Create(ctx, wide, dryRun)
		if err == nil || !strings.Contains(err.Error(), "no host network here") {
			return fmt.Errorf("want the policy's refusal, got %w", err)
		}
		return nil
	})
	if _, err := admin.CoreV1().Pods("policed").Create(t.Context(), pod("narrow"), dryRun); err != nil {
		t.Errorf("the policy refuses what it allows: %v", err)
	}
}

func testAudit(t *testing.T, c *cluster.Cluster) {
	kubeconfig, err := c.UserKubeconfig("mallory")
	mallory := client(t, kubeconfig, err)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "loot"}, StringData: map[string]string{"k": "canary-value"}}
	if _, err := mallory.CoreV1().Secrets("default").Create(t.Context(), secret, metav1.CreateOptions{}); !apierrors.IsForbidden(err) {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	got, err := c.AwaitAudit(ctx, func(e cluster.AuditEvent) bool { return e.User.Username == "mallory" })
	if err != nil {
		t.Fatal(err)
	}
	want := cluster.AuditEvent{
		Verb:     "create",
		Object:   cluster.AuditObject{Resource: "secrets", Namespace: "default", Name: "loot"},
		Response: cluster.AuditResponse{Code: http.StatusForbidden, Reason: "Forbidden"},
	}
	shown := cluster.AuditEvent{Verb: got.Verb, Object: got.Object, Response: got.Response, RequestBody: got.RequestBody}
	shown.Response.Message = ""
	if shown.Object.Name == "" {
		want.Object.Name = "" // a create carries its name in the body, which is not read before authorization
	}
	if diff := cmp.Diff(want, shown); diff != "" {
		t.Errorf("audit event (-want +got):\n%s", diff)
	}
	if log, _ := os.ReadFile(c.AuditLog()); strings.Contains(string(log), "canary-value") {
		t.Error("the audit log holds a secret's value")
	}
}

func TestStateOutlivesARestart(t *testing.T) {
	dir := t.TempDir()
	first := start(t, dir)
	admin := client(t, first.Kubeconfig(), nil)
	namespace(t, admin, "kept")
	token, err := first.ServiceAccountToken(t.Context(), cluster.TokenRequest{Namespace: "kept", ServiceAccount: "default"})
	if err != nil {
		t.Fatal(err)
	}
	pids := children(t, os.Getpid())
	if len(pids) != 2 {
		t.Fatalf("child processes %v, want etcd and kube-apiserver", pids)
	}
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}
	if left := alive(pids); len(left) != 0 {
		t.Fatalf("Stop left processes %v", left)
	}
	if err := first.Stop(); err != nil {
		t.Errorf("second Stop: %v", err)
	}

	second := start(t, dir)
	kubeconfig, err := second.TokenKubeconfig(token)
	bearer := client(t, kubeconfig, err)
	me, err := bearer.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("token of before the restart: %v", err)
	}
	if want := "system:serviceaccount:kept:default"; me.Status.UserInfo.Username != want {
		t.Errorf("token is %q, want %q", me.Status.UserInfo.Username, want)
	}
}

func TestFailedStartSaysWhyAndLeavesNothing(t *testing.T) {
	for _, ends := range []string{"etcd", "kube-apiserver"} {
		t.Run(ends+" ends", func(t *testing.T) {
			bin := t.TempDir()
			for _, name := range []string{"etcd", "kube-apiserver"} {
				script := "#!/bin/sh\nexec sleep 600\n"
				if name == ends {
					script = "#!/bin/sh\necho " + name + " cannot go on\nexit 3\n"
				}
				if err := os.WriteFile(filepath.Join(bin, name), []byte(script), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			c, err := cluster.Start(t.Context(), cluster.Options{StateDir: t.TempDir(), BinDir: bin})
			if err == nil {
				t.Fatal("started without servers", c.Stop())
			}
			for _, want := range []string{ends + " ended: exit status 3", ends + " cannot go on"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
			if pids := children(t, os.Getpid()); len(pids) != 0 {
				t.Errorf("processes left: %v", pids)
			}
		})
	}
}

func TestServersDieWithTheirParent(t *testing.T) {
	parent := exec.Command(os.Args[0])
	parent.Env = append(os.Environ(), parentEnv+"="+t.TempDir())
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parent.StdinPipe(); err != nil { // closes when this process ends
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	said := make([]byte, 4096)
	n, err := out.Read(said)
	if err != nil || string(said[:n]) != "ready\n" {
		_ = parent.Process.Kill()
		t.Fatalf("parent said %q, %v", said[:n], err)
	}
	pids := children(t, parent.Process.Pid)
	if len(pids) != 2 {
		t.Errorf("parent has processes %v, want two", pids)
	}
	_ = parent.Process.Kill()
	_ = parent.Wait()
	eventually(t, func(context.Context) error {
		if left := alive(pids); len(left) != 0 {
			return fmt.Errorf("processes %v outlive their parent", left)
		}
		return nil
	})
}

// children lists the processes that pid has started, from /proc.
func children(t *testing.T, pid int) []int {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, f := range files {
		b, _ := os.ReadFile(f) // a thread may have ended since
		for _, word := range strings.Fields(string(b)) {
			child, err := strconv.Atoi(word)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, child)
		}
	}
	return pids
}

// alive returns those of the processes that run; a dead one that its parent has not yet collected does not.
func alive(pids []int) []int {
	var left []int
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err == nil && !strings.Contains(string(b), ") Z ") {
			left = append(left, pid)
		}
	}
	return left
}
