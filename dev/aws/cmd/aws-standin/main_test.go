package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tourniquet.dev/tourniquet/dev/aws"
)

func credentials(t *testing.T, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "admin.json")
	if err := os.WriteFile(path, []byte(`{"accessKeyId":"AKIATESTTESTTESTTEST","secretAccessKey":"made-for-this-test-only"}`), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRefusedAtStart(t *testing.T) {
	good := credentials(t, 0o600)
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"no credentials":     {nil, "-bootstrap is required"},
		"readable by others": {[]string{"-bootstrap", credentials(t, 0o644)}, "want 600"},
		"a short account":    {[]string{"-bootstrap", good, "-account", "12"}, "12 digits"},
		"a negative lag":     {[]string{"-bootstrap", good, "-lag", "-1s"}, "not negative"},
		"one word too many":  {[]string{"-bootstrap", good, "x"}, "unknown argument"},
	} {
		t.Run(name, func(t *testing.T) {
			err := run(t.Context(), tc.args, io.Discard, io.Discard)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestServesUntilItIsStopped(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	socket := filepath.Join(t.TempDir(), "admin.sock")
	out, in := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, []string{"-bootstrap", credentials(t, 0o600), "-admin", "unix:" + socket, "-buckets", "reports"}, in, io.Discard)
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var ready struct{ Name, URL, Account, AccessKeyID string }
	if err := json.Unmarshal([]byte(line), &ready); err != nil || ready.Name != aws.Label || ready.Account != aws.DefaultAccount || strings.Contains(line, "made-for-this-test-only") {
		t.Errorf("ready line %s, %v", line, err)
	}
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("admin socket: %v, %v", info, err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	for _, get := range []func() (*http.Response, error){
		func() (*http.Response, error) { return http.Get(ready.URL) },
		func() (*http.Response, error) { return client.Get("http://admin/state") },
	} {
		response, err := get()
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if err != nil || !strings.Contains(string(body), aws.Label) {
			t.Errorf("got %s, %v", body, err)
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("stopped with %v", err)
	}
}
