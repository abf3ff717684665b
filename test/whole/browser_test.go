// Package whole_test runs all parts together, each its own process, and presses the buttons in a real browser.
package whole_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tourniquet.dev/tourniquet/dev/browser"
	"tourniquet.dev/tourniquet/dev/stack"
	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/internal/identity"
	"tourniquet.dev/tourniquet/internal/sys/keys"
)

// world is the stack, started once for the package, with one pod and one access key in it.
var world struct {
	*stack.Stack
	pod *corev1.Pod
	key string
}

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if _, err := browser.Find(); err != nil {
		fmt.Println("SKIP-REASON:", err) // each test says so too
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "tourniquet-whole-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(context.Background(), 25*time.Minute)
	defer cancel()
	s, err := stack.Start(ctx, stack.Options{Dir: filepath.Join(dir, "state"), Lag: time.Second, BindRoles: []string{"reader"}, Log: os.Stdout})
	if err != nil {
		fmt.Fprintln(os.Stderr, "start the stack:", err)
		return 1
	}
	defer s.Stop()
	world.Stack = s
	if err := seed(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "seed:", err)
		return 1
	}
	return m.Run()
}

func seed(ctx context.Context) (err error) {
	key, _, err := world.MakeUser(ctx, "cart-ci", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:ListAllMyBuckets","sts:AssumeRole"],"Resource":"*"}]}`)
	if err != nil {
		return err
	}
	world.key = key
	if err := world.Settle(ctx); err != nil {
		return err
	}
	c, err := world.Kubernetes.Client()
	if err != nil {
		return err
	}
	if _, err := c.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}, metav1.CreateOptions{}); err != nil {
		return err
	}
	if _, err := c.CoreV1().ServiceAccounts("shop").Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "cart"}}, metav1.CreateOptions{}); err != nil {
		return err
	}
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "reader"}, Rules: []rbacv1.PolicyRule{{Verbs: []string{"get", "list"}, APIGroups: []string{""}, Resources: []string{"secrets"}}}}
	if _, err := c.RbacV1().Roles("shop").Create(ctx, role, metav1.CreateOptions{}); err != nil {
		return err
	}
	binding := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "cart"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "reader"},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "shop", Name: "cart"}}}
	if _, err := c.RbacV1().RoleBindings("shop").Create(ctx, binding, metav1.CreateOptions{}); err != nil {
		return err
	}
	world.pod, err = c.CoreV1().Pods("shop").Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "cart-1", Labels: map[string]string{"app": "cart"}},
		Spec: corev1.PodSpec{NodeName: stack.Node, ServiceAccountName: "cart", Containers: []corev1.Container{{Name: "cart", Image: "cart:1", Env: []corev1.EnvVar{{Name: "AWS_ACCESS_KEY_ID", Value: key}}}}}}, metav1.CreateOptions{})
	return err
}

// detect sends a detection as the node's sensor would: signed by the node's key, through intake.
func detect(ctx context.Context, t *testing.T, uid string) {
	t.Helper()
	signer, err := keys.LoadNodeSigner(world.Path("keys", "node.key"), world.Path("node.json"))
	if err != nil {
		t.Fatal(err)
	}
	w := &detection.Workload{Cluster: stack.Cluster, Node: stack.Node, Namespace: "shop", Pod: world.pod.Name, PodUID: string(world.pod.UID), ServiceAccount: "cart"}
	e, err := signer.Sign(authz.TypeDetection, detection.Detection{V: 1, UID: uid, Time: time.Now().UTC().Truncate(time.Millisecond), Source: detection.Source{Kind: detection.Sensor, Name: stack.Node, UID: uid},
		Rule: "credential-file-read", Title: "Credential file read by an unexpected process <!channel>", Severity: detection.High, Confidence: 90,
		Attacks: []detection.Attack{{TechniqueID: "T1552.001", TacticID: "credential-access", Version: "19"}}, Workload: w,
		Identities: []identity.Identity{{Kind: identity.AccessKey, Scope: stack.Account, Name: world.key, Link: identity.Attested, Evidence: "pod specification"},
			{Kind: identity.ServiceAccount, Scope: stack.Cluster, Namespace: "shop", Name: "cart", Link: identity.Attested, Evidence: "pod specification"}}})
	if err != nil {
		t.Fatal(err)
	}
	body, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	token, err := os.ReadFile(world.Path("keys", "sensor-token"))
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, world.IntakeURL+"/v1/detections", bytes.NewReader(append(body, '\n')))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	req.Header.Set("Content-Type", "application/x-ndjson")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var reply map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&reply); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("intake answered %d %v %v", resp.StatusCode, reply, err)
	}
}

// TestApproveInABrowser: the card appears, Approve opens a modal that names the plan, its submission contains, the card
// changes, and Release takes everything off again. The Web UI shows where the incident stands.
func TestApproveInABrowser(t *testing.T) {
	if _, err := browser.Find(); err != nil {
		t.Skipf("SKIP-REASON: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	b, err := browser.Open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			shot(ctx, t, b, "failed")
			t.Fatalf("%s: %v", what, err)
		}
	}
	must("open the page", b.Navigate(ctx, world.SlackURL+"?user=U0ALICE0000&channel="+stack.Channel))
	detect(ctx, t, fmt.Sprintf("test:%d", time.Now().UnixNano()))
	must("card with a button", b.WaitVisible(ctx, `[data-action-id="approve"]`))
	shot(ctx, t, b, "card")
	must("press Approve", b.Click(ctx, `[data-action-id="approve"]`))
	must("modal", b.WaitVisible(ctx, `#modal [data-action-id="reason"]`))
	shot(ctx, t, b, "modal")
	must("give a reason", b.Type(ctx, `#modal [data-action-id="reason"]`, "stolen key in use"))
	must("submit", b.Click(ctx, `#modal [data-submit]`))
	must("no modal", b.WaitGone(ctx, `#modal [data-submit]`))
	must("card after the decision", b.WaitVisible(ctx, `[data-action-id="release"]`))
	must("options are gone", b.WaitGone(ctx, `[data-action-id="approve"]`))
	shot(ctx, t, b, "contained")
	must("every step checked", b.Wait(ctx, `document.body.innerText.includes("Take the service account's rights away") && !document.body.innerText.includes("not checked yet")`))
	shot(ctx, t, b, "checked")
	c, err := world.Kubernetes.Client()
	must("client", err)
	binding, err := c.RbacV1().RoleBindings("shop").Get(ctx, "cart", metav1.GetOptions{})
	must("read the binding", err)
	if len(binding.Subjects) != 0 {
		t.Errorf("after containment the binding still has %v", binding.Subjects)
	}
	releaseEverything(ctx, t, b, must)
	must("the pod's labels are back", poll(ctx, func() bool {
		binding, err := c.RbacV1().RoleBindings("shop").Get(ctx, "cart", metav1.GetOptions{})
		pod, err2 := c.CoreV1().Pods("shop").Get(ctx, "cart-1", metav1.GetOptions{})
		return err == nil && err2 == nil && len(binding.Subjects) == 1 && pod.Labels["app"] == "cart"
	}))
	if p := b.Problems(); len(p) > 0 {
		t.Errorf("the page has problems: %v", p)
	}
	webUI(ctx, t, b, must)
}

// webUI looks at the list of the Temporal Web UI: it names the incident and its containments.
func webUI(ctx context.Context, t *testing.T, b *browser.Browser, must func(string, error)) {
	t.Helper()
	must("open the list", b.Navigate(ctx, world.UIURL+"/namespaces/default/workflows"))
	must("incident in the list", b.Wait(ctx, `document.body.innerText.includes("incident/")`))
	shot(ctx, t, b, "webui-list")
}

// releaseEverything presses Release on every plan that the card says is on.
func releaseEverything(ctx context.Context, t *testing.T, b *browser.Browser, must func(string, error)) {
	t.Helper()
	for range 2 {
		must("press Release", b.Click(ctx, `[data-action-id="release"]`))
		must("modal", b.WaitVisible(ctx, `#modal [data-action-id="reason"]`))
		must("give a reason", b.Type(ctx, `#modal [data-action-id="reason"]`, "key rotated"))
		var before int
		must("count", b.Evaluate(ctx, `document.querySelectorAll('[data-action-id="release"]').length`, &before))
		must("submit", b.Click(ctx, `#modal [data-submit]`))
		must("no modal", b.WaitGone(ctx, `#modal [data-submit]`))
		must("one plan less is on", b.Wait(ctx, fmt.Sprintf(`document.querySelectorAll('[data-action-id="release"]').length < %d`, before)))
	}
	shot(ctx, t, b, "released")
}

func poll(ctx context.Context, ok func() bool) error {
	for tick := time.NewTicker(100 * time.Millisecond); ; {
		if ok() {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// shot keeps a picture when TOURNIQUET_SHOTS names a folder.
func shot(ctx context.Context, t *testing.T, b *browser.Browser, name string) {
	if dir := os.Getenv("TOURNIQUET_SHOTS"); dir != "" {
		if err := b.Screenshot(ctx, filepath.Join(dir, name+".png")); err != nil {
			t.Logf("screenshot: %v", err)
		}
	}
}
