package telemetry_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"tourniquet.dev/tourniquet/internal/sys/telemetry"
)

// Secrets in the forms that we know, made up for this test. Each is put together here so that no scanner takes it for one.
var (
	accessKey  = "AKIA" + "QXYZ234567ABCDEF"
	sessionKey = "ASIA" + "QXYZ234567ABCDEF"
	secretKey  = "wJalrXUtnFEMI" + "/K7MDENG/bPxRfiCYEXAMPLEKEZ"
	session    = "IQoJb3JpZ2luX2Vj" + strings.Repeat("Ab3/+", 40) + "=="
	jwt        = "eyJ" + "hbGciOiJSUzI1NiJ9.eyJpc3MiOiJrdWJlcm5ldGVzIn0.c2lnbmF0dXJl_x-y"
	github     = "gh" + "p_abcdefghijklmnopqrstuvwxyz0123456789"
	slack      = "xo" + "xb-1234567890-abcdefABCDEF"
	key        = "-----BEGIN " + "RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMIIEpAIBAAKCAQEA1c2k\n0123ABCDEFGHIJKLMNOP==\n-----END RSA PRIVATE KEY-----"
)

func hidden(t *testing.T, text string) {
	t.Helper()
	for _, secret := range []string{accessKey, sessionKey, secretKey, session, jwt, github, slack, "MIIEpAIBAAKCAQEA1c2k", "0123ABCDEFGHIJKLMNOP", "s3cr3t-canary"} {
		if strings.Contains(text, secret) {
			t.Errorf("%q is shown in %s", secret, text)
		}
	}
}

// I33: planted secrets are found nowhere in a log, wherever in a record they stand.
func TestI33LogsHoldNoSecret(t *testing.T) {
	for _, secret := range []string{accessKey, sessionKey, secretKey, session, jwt, github, slack, key} {
		for name, log := range map[string]func(*slog.Logger, string){
			"a value":        func(l *slog.Logger, s string) { l.Info("x", telemetry.KeyResource, s) },
			"inside text":    func(l *slog.Logger, s string) { l.Info("x", "a", "before "+s+" after") },
			"an error":       func(l *slog.Logger, s string) { l.Error("x", telemetry.KeyErr, fmt.Errorf("call: %w", errors.New(s))) },
			"a struct":       func(l *slog.Logger, s string) { l.Info("x", "a", struct{ B []string }{[]string{s}}) },
			"a group":        func(l *slog.Logger, s string) { l.WithGroup("g").With("a", s).Info("x") },
			"a message":      func(l *slog.Logger, s string) { l.Info(s) },
			"a key":          func(l *slog.Logger, s string) { l.Info("x", s, 1) },
			"a shell line":   func(l *slog.Logger, s string) { l.Info("x", "a", "export K='"+s+"'; run") },
			"a line of many": func(l *slog.Logger, s string) { l.Info("x", "a", "b\n"+s+"\nc\t"+s+"\x01"+s) },
			"quoted in JSON": func(l *slog.Logger, s string) { l.Info("x", "a", fmt.Sprintf(`{"k":%q}`, s)) },
		} {
			var out bytes.Buffer
			log(telemetry.NewLogger(&out, "test", slog.LevelInfo), secret)
			hidden(t, out.String())
			var record map[string]any
			if err := json.Unmarshal(out.Bytes(), &record); err != nil {
				t.Errorf("%s of %q breaks the record: %v\n%s", name, secret, err, out.String())
			}
			if record["role"] != "test" {
				t.Errorf("role %v", record["role"])
			}
		}
	}
}

func TestRedactKeepsWhatIsNoSecret(t *testing.T) {
	for _, text := range []string{
		"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		"da39a3ee5e6b4b0d3255bfef95601890afd80709",
		"72bedba2-38e2-41dc-b7fa-50b6aa679f73",
		"arn:aws:iam::123456789012:role/payments-api",
		"/var/run/secrets/kubernetes.io/serviceaccount/token",
		"incident/5f2c1a containment/abc/0123456789ab",
		"an AKIA prefix alone", "the bearer of this",
		strings.Repeat("a", 200),
	} {
		if got := telemetry.Redact(text); got != text {
			t.Errorf("got %q, want %q unchanged", got, text)
		}
	}
	if got := telemetry.Redact("key " + accessKey + " used"); got != "key AKIA************CDEF used" {
		t.Errorf("got %q: two keys can no longer be told apart", got)
	}
}

func TestSecretIsNeverPrinted(t *testing.T) {
	s := telemetry.NewSecret("s3cr3t-canary")
	type holder struct {
		S telemetry.Secret
		P *telemetry.Secret
	}
	h := holder{s, &s}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		hidden(t, fmt.Sprintf(verb+" "+verb+" "+verb, s, h, &s))
		if strings.Contains(fmt.Sprintf("%x", s), fmt.Sprintf("%x", "s3cr3t")) {
			t.Error("shown as hex")
		}
	}
	data, err := json.Marshal(map[string]any{"a": h, "b": s})
	if err != nil {
		t.Fatal(err)
	}
	hidden(t, string(data))
	var out bytes.Buffer
	telemetry.NewLogger(&out, "test", slog.LevelInfo).Info("x", "a", s, "b", h)
	hidden(t, out.String())
	if s.Reveal() != "s3cr3t-canary" || !strings.Contains(out.String(), telemetry.Redacted) {
		t.Errorf("revealed %q, logged %s", s.Reveal(), out.String())
	}
}

func TestHandler(t *testing.T) {
	registry := telemetry.NewRegistry("intake", "v1")
	var sick error
	h := telemetry.Handler(registry, func(context.Context) error { return sick })
	get := func(path string) (int, string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
		return w.Code, w.Body.String()
	}
	if code, body := get("/metrics"); code != 200 || !strings.Contains(body, `tourniquet_build_info{role="intake",version="v1"} 1`) {
		t.Errorf("%d %s", code, body)
	}
	if code, _ := get("/healthz"); code != 200 {
		t.Errorf("healthy: %d", code)
	}
	sick = errors.New("s3cr3t-canary")
	code, body := get("/healthz")
	if hidden(t, body); code != 503 {
		t.Errorf("unhealthy: %d", code)
	}
	if code, _ := get("/debug/pprof/"); code != 404 {
		t.Errorf("something else is served: %d", code)
	}
	problems, err := testutil.GatherAndLint(registry, "tourniquet_build_info")
	if err != nil || len(problems) > 0 {
		t.Error(problems, err)
	}
}

func TestServerIsOnLoopbackOnly(t *testing.T) {
	for _, address := range []string{":0", "0.0.0.0:0", "[::]:0", "192.0.2.1:0", "example.com:0", "nonsense"} {
		if s, err := telemetry.Listen(t.Context(), address, false, http.NotFoundHandler()); err == nil {
			t.Errorf("%s is bound as %s", address, s.Addr())
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	s, err := telemetry.Listen(ctx, "127.0.0.1:0", false, telemetry.Handler(telemetry.NewRegistry("a", "b"), nil))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.Addr()+"/healthz", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(response.Body)
	_ = response.Body.Close()
	if string(body) != "ok\n" {
		t.Errorf("got %q", body)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Whatever is logged, a record stays one line of JSON, and a key id planted in it does not show.
func FuzzLog(f *testing.F) {
	for _, s := range []string{key, jwt, "-----BEGIN X-----\\", "-----BEGIN X-----\"", "bearer \\u0041aaaaaaaa", base64.StdEncoding.EncodeToString([]byte(key)), "Signature=%3D\\\\aaaaaaaaaaaaaaaaaaaa"} {
		f.Add(s)
	}
	f.Add("\n00000000000000000000000000000000000000A")
	f.Fuzz(func(t *testing.T, s string) {
		var out bytes.Buffer
		telemetry.NewLogger(&out, "test", slog.LevelInfo).Info("x", s, s+" "+accessKey+" "+s)
		if bytes.Count(out.Bytes(), []byte("\n")) != 1 || !json.Valid(out.Bytes()) || bytes.Contains(out.Bytes(), []byte(accessKey)) {
			t.Errorf("%q", out.String())
		}
	})
}
