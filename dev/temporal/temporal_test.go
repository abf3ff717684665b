package temporal_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	sdktemporal "go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"tourniquet.dev/tourniquet/dev/port"
	"tourniquet.dev/tourniquet/dev/temporal"
)

var (
	stateKey = sdktemporal.NewSearchAttributeKeyKeyword("TestState")
	scoreKey = sdktemporal.NewSearchAttributeKeyInt64("TestScore")

	stateOnly = map[string]enumspb.IndexedValueType{"TestState": enumspb.INDEXED_VALUE_TYPE_KEYWORD}
	both      = map[string]enumspb.IndexedValueType{"TestState": enumspb.INDEXED_VALUE_TYPE_KEYWORD, "TestScore": enumspb.INDEXED_VALUE_TYPE_INT}
)

// start starts a server and stops it at the end of the test.
func start(t *testing.T, opts temporal.Options) *temporal.Server {
	t.Helper()
	var said lockedBuffer // the server's last goroutines may outlive the test, so not t.Output
	opts.Log = &said
	begin := time.Now()
	s, err := temporal.Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("ready after %s", time.Since(begin).Round(time.Millisecond))
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the server said:\n%s", said.String())
		}
	})
	return s
}

func dial(t *testing.T, s *temporal.Server) client.Client {
	t.Helper()
	c, err := client.DialContext(t.Context(), client.Options{HostPort: s.Addr(), Namespace: s.Namespace()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func greet(ctx workflow.Context, name string) (string, error) {
	if err := workflow.UpsertTypedSearchAttributes(ctx, stateKey.ValueSet("greeted")); err != nil {
		return "", err
	}
	return "hello " + name, nil
}

// run runs a workflow to its end.
func run(t *testing.T, c client.Client, id string, attributes ...sdktemporal.SearchAttributeUpdate) {
	t.Helper()
	w := worker.New(c, "test", worker.Options{})
	w.RegisterWorkflow(greet)
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	started, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: id, TaskQueue: "test", TypedSearchAttributes: sdktemporal.NewSearchAttributes(attributes...),
	}, greet, id)
	if err != nil {
		t.Fatal(err)
	}
	var said string
	if err := started.Get(ctx, &said); err != nil {
		t.Fatal(err)
	}
	if said != "hello "+id {
		t.Errorf("workflow said %q", said)
	}
}

// list waits until the query finds n workflows: visibility is written a moment after the fact.
func list(t *testing.T, c client.Client, query string, n int) []string {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for {
		found, err := c.ListWorkflow(t.Context(), &workflowservice.ListWorkflowExecutionsRequest{Query: query})
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, e := range found.GetExecutions() {
			ids = append(ids, e.GetExecution().GetWorkflowId())
		}
		if len(ids) == n {
			return ids
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s finds %v, want %d", query, ids, n)
		}
	}
}

func TestServerKeepsWorkflowsAndGainsSearchAttributes(t *testing.T) {
	db := filepath.Join(t.TempDir(), "temporal.db")
	first := start(t, temporal.Options{Database: db, SearchAttributes: stateOnly, NoUI: true})
	run(t, dial(t, first), "one", stateKey.ValueSet("new"))
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := port.Check(portOf(t, first.Addr())); err != nil {
		t.Errorf("Stop left the frontend: %v", err)
	}

	second := start(t, temporal.Options{Database: db, SearchAttributes: both, NoUI: true})
	c := dial(t, second)
	run(t, c, "two", stateKey.ValueSet("new"), scoreKey.ValueSet(7))
	if diff := cmp.Diff([]string{"two", "one"}, list(t, c, "TestState = 'greeted'", 2)); diff != "" {
		t.Errorf("workflows by state (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"two"}, list(t, c, "TestScore = 7", 1)); diff != "" {
		t.Errorf("workflows by score (-want +got):\n%s", diff)
	}
	ns, err := c.WorkflowService().DescribeNamespace(t.Context(), &workflowservice.DescribeNamespaceRequest{Namespace: second.Namespace()})
	if err != nil {
		t.Fatal(err)
	}
	if got := ns.GetConfig().GetWorkflowExecutionRetentionTtl().AsDuration(); got != temporal.DefaultRetention {
		t.Errorf("retention %s, want %s", got, temporal.DefaultRetention)
	}
}

func TestWebUIIsServedWithItsSettings(t *testing.T) {
	s := start(t, temporal.Options{
		Database: filepath.Join(t.TempDir(), "temporal.db"), Namespace: "incidents",
		CodecEndpoint: "http://127.0.0.1:1/codec", ReadOnlyUI: true,
	})
	if page := get(t, s.UIURL()+"/namespaces/incidents/workflows"); !strings.Contains(page, "<html") {
		t.Errorf("no page: %.200s", page)
	}
	var settings struct {
		DefaultNamespace    string
		DisableWriteActions bool
		Codec               struct{ Endpoint string }
	}
	if err := json.Unmarshal([]byte(get(t, s.UIURL()+"/api/v1/settings")), &settings); err != nil {
		t.Fatal(err)
	}
	if settings.DefaultNamespace != "incidents" || !settings.DisableWriteActions || settings.Codec.Endpoint != "http://127.0.0.1:1/codec" {
		t.Errorf("settings of the Web UI: %+v", settings)
	}
	if listed := get(t, s.UIURL()+"/api/v1/namespaces/incidents/workflows"); !strings.HasPrefix(listed, "{") {
		t.Errorf("the Web UI does not reach the server: %.200s", listed)
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s, %v: %.200s", url, response.Status, err, body)
	}
	return string(body)
}

func TestStartRefuses(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	file("old.db.schema", "0000\n")
	held := file("held.db.lock", "")
	lock, err := os.Open(held)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	number := taken.Addr().(*net.TCPAddr).Port
	for name, tc := range map[string]struct {
		opts temporal.Options
		want error
	}{
		"a database of another schema":     {temporal.Options{Database: file("old.db", "")}, temporal.ErrSchema},
		"a database without a schema hash": {temporal.Options{Database: file("foreign.db", "")}, temporal.ErrSchema},
		"a database in use":                {temporal.Options{Database: filepath.Join(dir, "held.db")}, syscall.EWOULDBLOCK},
		"a taken port":                     {temporal.Options{Database: filepath.Join(dir, "a.db"), Port: number}, port.ErrTaken},
		"a taken port of the Web UI":       {temporal.Options{Database: filepath.Join(dir, "b.db"), UIPort: number}, port.ErrTaken},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := temporal.Start(t.Context(), tc.opts)
			if err == nil {
				t.Fatal("started", s.Stop())
			}
			if !errors.Is(err, tc.want) {
				t.Errorf("Start = %v, want %v", err, tc.want)
			}
		})
	}
}

func TestSearchAttributeThatChangedItsTypeIsRefused(t *testing.T) {
	db := filepath.Join(t.TempDir(), "temporal.db")
	s := start(t, temporal.Options{Database: db, SearchAttributes: stateOnly, NoUI: true})
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	changed := map[string]enumspb.IndexedValueType{"TestState": enumspb.INDEXED_VALUE_TYPE_INT}
	again, err := temporal.Start(t.Context(), temporal.Options{Database: db, SearchAttributes: changed, NoUI: true})
	if err == nil {
		t.Fatal("started", again.Stop())
	}
	if !strings.Contains(err.Error(), "TestState is Keyword in the database and Int here") {
		t.Error(err)
	}
}

// A lockedBuffer may be written to by the server's goroutines while a test reads it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func portOf(t *testing.T, addr string) int {
	t.Helper()
	tcp, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return tcp.Port
}
