package process_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"tourniquet.dev/tourniquet/sensor/process"
)

// api is as much of an API server as an informer asks for: a list, and a watch that sends what the test says.
type api struct {
	*httptest.Server
	list    string
	watch   chan string
	mu      sync.Mutex
	queries []string
}

func newAPI(t *testing.T, list ...string) *api {
	t.Helper()
	items := ""
	for i, pod := range list {
		if i > 0 {
			items += ","
		}
		items += pod
	}
	a := &api{
		list:  `{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"10"},"items":[` + items + `]}`,
		watch: make(chan string),
	}
	a.Server = httptest.NewServer(http.HandlerFunc(a.serve))
	t.Cleanup(a.Close)
	return a
}

func (a *api) serve(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/api/v1/pods" {
		http.NotFound(w, r)
		return
	}
	query := r.URL.Query()
	a.mu.Lock()
	a.queries = append(a.queries, query.Get("fieldSelector"))
	a.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	if query.Get("watch") == "" {
		fmt.Fprint(w, a.list)
		return
	}
	if query.Get("sendInitialEvents") == "true" { // as a server that does not know it
		w.WriteHeader(http.StatusUnprocessableEntity)
		fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Invalid","code":422}`)
		return
	}
	w.(http.Flusher).Flush()
	for {
		select {
		case line := <-a.watch:
			fmt.Fprintln(w, line)
			w.(http.Flusher).Flush()
		case <-r.Context().Done():
			return
		}
	}
}

func (a *api) kubeconfig(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config")
	config := fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"c",
		"clusters":[{"name":"c","cluster":{"server":%q}}],
		"contexts":[{"name":"c","context":{"cluster":"c","user":"u"}}],"users":[{"name":"u","user":{}}]}`, a.URL)
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func podJSON(uid, name, containerID string, annotations map[string]string) string {
	notes, _ := json.Marshal(annotations) // strings only
	return fmt.Sprintf(`{"kind":"Pod","apiVersion":"v1",
		"metadata":{"name":%q,"namespace":"shop","uid":%q,"resourceVersion":"11","labels":{"app":"shop"},"annotations":%s,
			"managedFields":[{"manager":"kubelet"}],
			"ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"shop-1","uid":"rs-uid","controller":true}]},
		"spec":{"nodeName":"node-1","serviceAccountName":"shop-sa","containers":[{"name":"app","image":"shop:1","env":[{"name":"PASSWORD","value":"x"}]}]},
		"status":{"podIPs":[{"ip":"10.0.0.5"}],"containerStatuses":[{"name":"app","image":"shop:1","imageID":"sha256:1","containerID":"containerd://%s"}]}}`,
		name, uid, notes, containerID)
}

func runPods(t *testing.T, o process.PodOptions) *process.Pods {
	t.Helper()
	o.Node = "node-1"
	o.OnError = func(err error) { t.Logf("informer: %v", err) }
	pods, err := process.NewPods(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { pods.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return pods
}

func await(t *testing.T, pods *process.Pods, c process.Container) process.Pod {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	pod, err := pods.Await(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

func TestAPodIsFoundByUidAndByContainer(t *testing.T) {
	a := newAPI(t, podJSON(uid, "shop-1-x", id, map[string]string{"tourniquet.dev/order": "signed", "other/note": "y"}))
	pods := runPods(t, process.PodOptions{Kubeconfig: a.kubeconfig(t), Annotations: []string{"tourniquet.dev/"}})
	want := process.Pod{
		UID: uid, Namespace: "shop", Name: "shop-1-x", Node: "node-1", ServiceAccount: "shop-sa", Version: "11",
		Labels: map[string]string{"app": "shop"}, Annotations: map[string]string{"tourniquet.dev/order": "signed"},
		Owner: process.Owner{Kind: "ReplicaSet", Name: "shop-1", UID: "rs-uid"}, IPs: []string{"10.0.0.5"},
		Containers: []process.PodContainer{{Name: "app", ID: id, Image: "shop:1", ImageID: "sha256:1"}},
	}
	if diff := cmp.Diff(want, await(t, pods, process.Container{PodUID: uid})); diff != "" {
		t.Error(diff)
	}
	got, ok := pods.Lookup(process.Container{ID: id})
	if c, found := got.Container(id); !ok || !found || c.Name != "app" {
		t.Errorf("by container: %+v, %v", got, ok)
	}
	if pod, ok := pods.Lookup(process.Container{PodUID: uid2, ID: id2}); ok {
		t.Errorf("found %+v", pod)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, selector := range a.queries {
		if selector != "spec.nodeName=node-1" {
			t.Errorf("asked for %q", selector)
		}
	}
}

func TestAPodIsAwaitedChangedAndDeleted(t *testing.T) {
	a := newAPI(t)
	changes := make(chan process.Pod, 10)
	pods := runPods(t, process.PodOptions{Kubeconfig: a.kubeconfig(t), Annotations: []string{"tourniquet.dev/"}, OnChange: func(p process.Pod) { changes <- p }})
	a.watch <- `{"type":"ADDED","object":` + podJSON(uid, "p", id, nil) + `}`
	await(t, pods, process.Container{PodUID: uid, ID: id})
	a.watch <- `{"type":"MODIFIED","object":` + podJSON(uid, "p", id2, map[string]string{"tourniquet.dev/order": "x"}) + `}`
	await(t, pods, process.Container{ID: id2})
	if pod, ok := pods.Lookup(process.Container{ID: id}); ok {
		t.Errorf("found by a container that it has not any more: %+v", pod)
	}
	a.watch <- `{"type":"DELETED","object":` + podJSON(uid, "p", id2, nil) + `}`
	var orders []string
	for range 3 {
		p := <-changes
		orders = append(orders, fmt.Sprintf("%s %v", p.Annotations["tourniquet.dev/order"], !p.Deleted.IsZero()))
	}
	if diff := cmp.Diff([]string{" false", "x false", " true"}, orders); diff != "" {
		t.Error(diff)
	}
	pod, ok := pods.Lookup(process.Container{PodUID: uid})
	if !ok || pod.Deleted.IsZero() {
		t.Errorf("a pod deleted just now: %+v, %v", pod, ok)
	}
}

func TestAPodOfTheSameNameIsAnotherPod(t *testing.T) {
	a := newAPI(t)
	pods := runPods(t, process.PodOptions{Kubeconfig: a.kubeconfig(t)})
	a.watch <- `{"type":"ADDED","object":` + podJSON(uid, "p", id, nil) + `}`
	a.watch <- `{"type":"MODIFIED","object":` + podJSON(uid2, "p", id2, nil) + `}` // the deletion between was missed
	if pod := await(t, pods, process.Container{PodUID: uid2}); !pod.Deleted.IsZero() {
		t.Errorf("%+v", pod)
	}
	if pod := await(t, pods, process.Container{PodUID: uid}); pod.Deleted.IsZero() {
		t.Errorf("%+v", pod)
	}
}

func TestAStaticPodIsFoundByItsHash(t *testing.T) {
	a := newAPI(t, podJSON(uid, "etcd", id, map[string]string{"kubernetes.io/config.hash": hash}))
	pods := runPods(t, process.PodOptions{Kubeconfig: a.kubeconfig(t)})
	pod := await(t, pods, process.Container{PodUID: hash, Static: true})
	if diff := cmp.Diff(process.Pod{UID: uid, Name: "etcd", ConfigHash: hash}, pod, cmpopts.IgnoreFields(process.Pod{},
		"Namespace", "Node", "ServiceAccount", "Labels", "Annotations", "Owner", "Containers", "IPs", "Version")); diff != "" {
		t.Error(diff)
	}
}

func TestWaitingForAPodEnds(t *testing.T) {
	a := newAPI(t)
	pods := runPods(t, process.PodOptions{Kubeconfig: a.kubeconfig(t)})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := pods.Await(ctx, process.Container{PodUID: uid}); err == nil {
		t.Error("no error")
	}
}
