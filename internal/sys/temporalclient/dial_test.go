package temporalclient_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"tourniquet.dev/tourniquet/internal/sys/temporalclient"
)

// frontend answers DescribeNamespace, after failing with code for the first calls.
type frontend struct {
	workflowservice.UnimplementedWorkflowServiceServer
	fail   int64
	code   codes.Code
	calls  atomic.Int64
	bearer atomic.Value
}

func (f *frontend) DescribeNamespace(ctx context.Context, r *workflowservice.DescribeNamespaceRequest) (*workflowservice.DescribeNamespaceResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	f.bearer.Store(strings.Join(md.Get("authorization"), ","))
	if f.calls.Add(1) <= f.fail {
		return nil, status.Error(f.code, "not now")
	}
	return &workflowservice.DescribeNamespaceResponse{}, nil
}

func (f *frontend) GetSystemInfo(context.Context, *workflowservice.GetSystemInfoRequest) (*workflowservice.GetSystemInfoResponse, error) {
	return &workflowservice.GetSystemInfoResponse{Capabilities: &workflowservice.GetSystemInfoResponse_Capabilities{}}, nil
}

func serve(t *testing.T, f *frontend, opts ...grpc.ServerOption) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(opts...)
	workflowservice.RegisterWorkflowServiceServer(s, f)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-done })
	return l.Addr().String()
}

func options(t *testing.T, address string) temporalclient.Options {
	ring, _ := newRing(t)
	return temporalclient.Options{Address: address, Namespace: "ns", Identity: "test", Ring: ring,
		Logger: slog.New(slog.DiscardHandler), PollAgain: time.Millisecond}
}

func TestDialWaitsUntilTheNamespaceAnswers(t *testing.T) {
	f := &frontend{fail: 2, code: codes.NotFound}
	c, err := temporalclient.Dial(t.Context(), options(t, serve(t, f)))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if got := f.calls.Load(); got < 3 {
		t.Errorf("%d calls, want 3", got)
	}
}

func TestDialEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	f := &frontend{fail: 1 << 60, code: codes.NotFound}
	opts := options(t, serve(t, f))
	opts.Logger = slog.New(slog.NewTextHandler(writer(func() { cancel(nil) }), &slog.HandlerOptions{Level: slog.LevelDebug}))
	if _, err := temporalclient.Dial(ctx, opts); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want Canceled", err)
	}
}

// writer calls f at each log line, so that the test ends Dial's wait as soon as it waits.
type writer func()

func (w writer) Write(p []byte) (int, error) { w(); return len(p), nil }

func TestDialGivesUpAtOnceWhenRefused(t *testing.T) {
	for _, code := range []codes.Code{codes.PermissionDenied, codes.Unauthenticated} {
		f := &frontend{fail: 1 << 60, code: code}
		if _, err := temporalclient.Dial(t.Context(), options(t, serve(t, f))); err == nil {
			t.Errorf("%v: no error", code)
		}
		if got := f.calls.Load(); got != 1 {
			t.Errorf("%v: %d calls, want 1", code, got)
		}
	}
}

func TestDialNeedsItsOptions(t *testing.T) {
	good := options(t, "127.0.0.1:1")
	for name, change := range map[string]func(*temporalclient.Options){
		"no ring":             func(o *temporalclient.Options) { o.Ring = nil },
		"no address":          func(o *temporalclient.Options) { o.Address = "" },
		"no namespace":        func(o *temporalclient.Options) { o.Namespace = "" },
		"no identity":         func(o *temporalclient.Options) { o.Identity = "" },
		"no logger":           func(o *temporalclient.Options) { o.Logger = nil },
		"a missing API key":   func(o *temporalclient.Options) { o.APIKeyFile = "/nonexistent" },
		"a missing cert":      func(o *temporalclient.Options) { o.CertFile, o.KeyFile = "/nonexistent", "/nonexistent" },
		"a CA without a cert": func(o *temporalclient.Options) { o.CAFile = os.DevNull },
	} {
		opts := good
		change(&opts)
		if _, err := temporalclient.Dial(t.Context(), opts); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func TestDialWithMutualTLSAndAPIKey(t *testing.T) {
	dir := t.TempDir()
	cert, key, pool := selfSigned(t, dir)
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	f := &frontend{}
	address := serve(t, f, grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12,
	})))
	keyFile := filepath.Join(dir, "api-key")
	if err := os.WriteFile(keyFile, []byte("k-123\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	opts := options(t, address)
	opts.CertFile, opts.KeyFile, opts.CAFile, opts.ServerName, opts.APIKeyFile = cert, key, cert, "temporal.test", keyFile
	c, err := temporalclient.Dial(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if got := f.bearer.Load(); got != "Bearer k-123" {
		t.Errorf("authorization %q", got)
	}
	opts.ServerName = "other.test"
	if _, err := temporalclient.Dial(t.Context(), opts); err == nil || !strings.Contains(err.Error(), "x509") {
		t.Errorf("another server's name: %v", err)
	}
	opts.ServerName, opts.CAFile = "temporal.test", ""
	if _, err := temporalclient.Dial(t.Context(), opts); err == nil || !strings.Contains(err.Error(), "x509") {
		t.Errorf("an unknown authority: %v", err)
	}
}

func selfSigned(t *testing.T, dir string) (cert, key string, pool *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "temporal.test"}, DNSNames: []string{"temporal.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, data []byte) string {
		var out bytes.Buffer
		if err := pem.Encode(&out, &pem.Block{Type: kind, Bytes: data}); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cert, key = write("cert", "CERTIFICATE", der), write("key", "PRIVATE KEY", raw)
	pool = x509.NewCertPool()
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool.AddCert(parsed)
	return cert, key, pool
}
