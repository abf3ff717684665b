package browser_test

import (
	"context"
	"errors"
	"image/png"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tourniquet.dev/tourniquet/dev/browser"
)

const pageHTML = `<!doctype html><title>t</title>
<input id="name"><select id="pick"><option value="a">A</option><option value="b">B</option></select>
<button id="go" onclick="setTimeout(() => { out.textContent = 'hello ' + document.querySelector('#name').value + pick.value; out.hidden = false }, 30)">go</button>
<p id="out" hidden></p><p id="scheme"></p>
<script>matchMedia('(prefers-color-scheme: dark)').matches && (scheme.textContent = 'dark')</script>`

func TestBrowserClicksTypesAndLeavesNoProcess(t *testing.T) {
	if _, err := browser.Find(); errors.Is(err, browser.ErrMissing) {
		t.Skipf("SKIP-REASON: %v", err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte(pageHTML))
	}))
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	t.Setenv("TMPDIR", t.TempDir()) // the fresh profile goes there
	before := profiles(t)
	b, err := browser.Open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()

	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(b.Viewport(ctx, 640, 400, true))
	must(b.Navigate(ctx, server.URL))
	must(b.WaitText(ctx, "#scheme", "dark"))
	must(b.Type(ctx, "#name", "world "))
	must(b.Choose(ctx, "#pick", "b"))
	must(b.Click(ctx, "#go"))
	must(b.WaitVisible(ctx, "#out"))
	if got, err := b.Text(ctx, "#out"); err != nil || got != "hello world b" {
		t.Errorf("text of #out = %q, %v", got, err)
	}
	if err := b.Choose(ctx, "#pick", "zzz"); err == nil {
		t.Error("an option that does not exist was chosen")
	}
	shot := filepath.Join(t.TempDir(), "shot.png")
	must(b.Screenshot(ctx, shot))
	f, err := os.Open(shot)
	must(err)
	defer f.Close()
	if size, err := png.DecodeConfig(f); err != nil || size.Width != 640 || size.Height != 400 {
		t.Errorf("screenshot is %dx%d, %v", size.Width, size.Height, err)
	}
	short, end := context.WithTimeout(ctx, 50*time.Millisecond)
	defer end()
	if err := b.WaitVisible(short, "#never"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting for nothing ended with %v", err)
	}
	if len(profiles(t)) <= len(before) {
		t.Error("no process of the browser was found while it ran: the check below would prove nothing")
	}

	b.Close()
	if left := profiles(t); len(left) > len(before) {
		t.Errorf("processes left after Close: %q", left)
	}
	if entries, _ := os.ReadDir(os.Getenv("TMPDIR")); len(entries) > 0 {
		t.Errorf("left in the temporary folder: %v", entries)
	}
}

// profiles lists the command lines of processes that name this test's temporary folder.
func profiles(t *testing.T) []string {
	t.Helper()
	var found []string
	entries, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range entries {
		line, _ := os.ReadFile(path) // the process may be gone
		if strings.Contains(string(line), os.Getenv("TMPDIR")+"/") {
			found = append(found, strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return found
}

func TestMissingChromiumSaysWhatToInstall(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := browser.Open(t.Context())
	if !errors.Is(err, browser.ErrMissing) || !strings.Contains(err.Error(), "apt-get install chromium") {
		t.Errorf("Open without Chromium = %v", err)
	}
}
