// Package browser drives Debian's Chromium, headless, for end-to-end tests and for pictures of our pages. Tests of the Slack
// stand-in, of the Temporal Web UI and of the demo use it.
//
// It never downloads a browser, never uses a person's profile (each Open makes a fresh one and removes it), and leaves no process
// behind after Close.
package browser

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// ErrMissing means that there is no Chromium on this machine; its text says what to install.
var ErrMissing = errors.New("no Chromium found in PATH: install it with `apt-get install chromium`")

// Find gives the path of Chromium, or ErrMissing.
func Find() (string, error) {
	for _, name := range []string{"chromium", "chromium-browser"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", ErrMissing
}

const (
	startTimeout = 60 * time.Second
	closeTimeout = 10 * time.Second

	defaultWidth, defaultHeight = 1280, 900 // pixels
)

// A Browser is one Chromium with one tab. Its methods run one after the other; each ends with its ctx, which should have a deadline.
type Browser struct {
	tab   context.Context // chromedp's handle on the tab: its API has no other
	close func()

	mu       sync.Mutex
	problems []string
}

// Open starts a browser with an empty profile, a page of 1280 by 900 pixels and light colours. The caller closes it.
func Open(ctx context.Context) (*Browser, error) {
	path, err := Find()
	if err != nil {
		return nil, err
	}
	opts := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path), chromedp.Headless, chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck, chromedp.DisableGPU,
		chromedp.WindowSize(defaultWidth, defaultHeight),
		// Without these Chromium looks for its maker's hosts at every start.
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true),
		chromedp.Flag("disable-default-apps", true),
		chromedp.Flag("disable-extensions", true),
		chromedp.Flag("disable-breakpad", true),
		chromedp.Flag("disable-dev-shm-usage", true),
		chromedp.Flag("disable-features", "Translate,OptimizationHints,MediaRouter,DialMediaRouteProvider"),
		chromedp.Flag("metrics-recording-only", true),
		chromedp.Flag("no-proxy-server", true), // our pages are on loopback
		chromedp.Flag("password-store", "basic"),
		chromedp.Flag("force-color-profile", "srgb"),
		chromedp.Flag("hide-scrollbars", true),
	}
	if os.Getuid() == 0 {
		opts = append(opts, chromedp.NoSandbox) // Chromium refuses to start for root otherwise
	}
	allocator, endAllocator := chromedp.NewExecAllocator(context.WithoutCancel(ctx), opts...)
	tab, endTab := chromedp.NewContext(allocator)
	b := &Browser{tab: tab}
	b.close = sync.OnceFunc(func() {
		graceful, cancel := context.WithTimeout(tab, closeTimeout)
		_ = chromedp.Cancel(graceful) // what it leaves, the allocator's end kills
		cancel()
		endTab()
		endAllocator() // waits for the processes and removes the profile
	})
	started := make(chan error, 1)
	go func() { started <- chromedp.Listen(tab, b.listen) }() // starts the browser
	timer := time.NewTimer(startTimeout)
	defer timer.Stop()
	select {
	case err = <-started:
	case <-ctx.Done():
		err = ctx.Err()
	case <-timer.C:
		err = fmt.Errorf("no answer within %s", startTimeout)
	}
	if err != nil {
		endTab()
		endAllocator()
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	if err := b.Viewport(ctx, defaultWidth, defaultHeight, false); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

// Close ends the browser and removes its profile. It returns when no process of it is left, and may be called again.
func (b *Browser) Close() { b.close() }

func (b *Browser) listen(event any) {
	var text string
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		d := e.ExceptionDetails
		text = fmt.Sprintf("%s %s:%d", d.Text, d.URL, d.LineNumber+1)
		if d.Exception != nil {
			text += " " + d.Exception.Description
		}
	case *log.EventEntryAdded:
		if e.Entry.Level != log.EntryLevelError {
			return
		}
		text = e.Entry.Text + " " + e.Entry.URL
	default:
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.problems = append(b.problems, text)
}

// Problems gives the uncaught errors of the pages so far, and what the browser itself logged as errors: failed loads, refusals by
// a content security policy.
func (b *Browser) Problems() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string{}, b.problems...)
}

// run does one action in the tab, until ctx ends.
func run[T any](ctx context.Context, b *Browser, what string, action chromedp.Action[T]) (T, error) {
	tab, cancel := context.WithCancelCause(b.tab)
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
	defer stop()
	out, err := chromedp.Run(tab, action)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return out, fmt.Errorf("%s: %w", what, err)
	}
	return out, nil
}

// Navigate loads a page and waits for its load event.
func (b *Browser) Navigate(ctx context.Context, url string) error {
	_, err := run(ctx, b, "navigate to "+url, chromedp.Navigate(url))
	return err
}

// WaitVisible waits until the first element that the CSS selector finds can be seen.
func (b *Browser) WaitVisible(ctx context.Context, selector string) error {
	_, err := run(ctx, b, "wait for "+selector, chromedp.WaitVisible(chromedp.CSS(selector)))
	return err
}

// WaitGone waits until the CSS selector finds nothing that can be seen.
func (b *Browser) WaitGone(ctx context.Context, selector string) error {
	return b.Wait(ctx, fmt.Sprintf("![...document.querySelectorAll(%s)].some((e) => e.getClientRects().length)", quote(selector)))
}

// WaitText waits until the visible text of the first element that the CSS selector finds contains text.
func (b *Browser) WaitText(ctx context.Context, selector, text string) error {
	return b.Wait(ctx, fmt.Sprintf("document.querySelector(%s)?.innerText.includes(%s)", quote(selector), quote(text)))
}

// Wait waits until a JavaScript expression is true; the page is asked at each frame it draws.
func (b *Browser) Wait(ctx context.Context, expression string) error {
	_, err := run(ctx, b, "wait until "+expression, chromedp.Poll[chromedp.Void](expression, chromedp.WithPollingTimeout(0)))
	return err
}

// Click waits for the element and clicks it with the mouse. An element that the page replaces before the mouse got there is
// looked for again.
func (b *Browser) Click(ctx context.Context, selector string) error {
	for {
		_, err := run(ctx, b, "click "+selector, chromedp.Click(chromedp.CSS(selector), chromedp.NodeVisible))
		if !replaced(err) || ctx.Err() != nil {
			return err
		}
	}
}

// replaced reports whether the browser says that a node, found a moment ago, is no more: nothing was clicked then.
func replaced(err error) bool {
	return err != nil && strings.Contains(err.Error(), "node") && strings.Contains(err.Error(), "(-32000)")
}

// Type waits for the element and types text into it, key by key.
func (b *Browser) Type(ctx context.Context, selector, text string) error {
	_, err := run(ctx, b, "type into "+selector, chromedp.SendKeys(chromedp.CSS(selector), text, chromedp.NodeVisible))
	return err
}

// Choose waits for a <select>, picks the option with this value, and tells the page.
func (b *Browser) Choose(ctx context.Context, selector, value string) error {
	if err := b.WaitVisible(ctx, selector); err != nil {
		return err
	}
	got, err := run(ctx, b, "choose in "+selector, chromedp.Evaluate[string](fmt.Sprintf(
		`(() => { const s = document.querySelector(%s); s.value = %s; s.dispatchEvent(new Event('change', {bubbles: true})); return s.value })()`,
		quote(selector), quote(value))))
	if err == nil && got != value {
		err = fmt.Errorf("choose in %s: there is no option %q", selector, value)
	}
	return err
}

// Text waits for the element and gives its visible text.
func (b *Browser) Text(ctx context.Context, selector string) (string, error) {
	return run(ctx, b, "read "+selector, chromedp.Text(chromedp.CSS(selector), chromedp.NodeVisible))
}

// Evaluate runs a JavaScript expression and decodes its result into out, a pointer.
func (b *Browser) Evaluate(ctx context.Context, expression string, out any) error {
	raw, err := run(ctx, b, "evaluate "+expression, chromedp.Evaluate[string]("JSON.stringify("+expression+") ?? 'null'"))
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(raw), out); err != nil {
		return fmt.Errorf("decode result of %s: %w", expression, err)
	}
	return nil
}

// Viewport sets the size of the page in pixels, and whether it prefers dark colours.
func (b *Browser) Viewport(ctx context.Context, width, height int64, dark bool) error {
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	media := chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
		return err
	})
	_, err := run(ctx, b, "set viewport", chromedp.Steps(chromedp.EmulateViewport(width, height), media))
	return err
}

// Screenshot writes what the viewport shows to a PNG file.
func (b *Browser) Screenshot(ctx context.Context, path string) error {
	png, err := run(ctx, b, "take screenshot", chromedp.CaptureScreenshot())
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, png, 0o600); err != nil {
		return fmt.Errorf("write screenshot: %w", err)
	}
	return nil
}

func quote(text string) string {
	out, err := json.Marshal(text)
	if err != nil {
		panic(err) // a string always encodes
	}
	return string(out)
}
