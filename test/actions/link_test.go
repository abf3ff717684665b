package actions_test

import (
	"bytes"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"
)

// link is a proxy between an action and its system that can be broken at any change.
type link struct {
	server  *httptest.Server
	isWrite func(*http.Request, []byte) bool

	mu      sync.Mutex
	writes  int
	at      int // the change at which it breaks; 0: whole
	applied bool
	forGood bool
	broken  bool
	first   func() // called before the next change goes through
}

// before has f called, once, between what the action read and what it writes.
func (l *link) before(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.first = f
}

func (l *link) takeFirst() func() {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.first
	l.first = nil
	return f
}

func newLink(t *testing.T, target string, transport http.RoundTripper, isWrite func(*http.Request, []byte) bool) *link {
	t.Helper()
	to, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	l := &link{isWrite: isWrite}
	proxy := &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Host = r.In.Host // it is part of AWS's signature
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	l.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		write := isWrite(r, body)
		if write {
			if first := l.takeFirst(); first != nil {
				first()
			}
		}
		forward, answer := l.judge(write)
		if !forward {
			panic(http.ErrAbortHandler)
		}
		if !answer {
			proxy.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		}
		proxy.ServeHTTP(w, r)
	}))
	l.server.Config.ErrorLog = log.New(io.Discard, "", 0) // aborted handlers are the point
	if to.Scheme == "https" {
		l.server.StartTLS()
	} else {
		l.server.Start()
	}
	t.Cleanup(l.server.Close)
	return l
}

// judge says whether a request goes through and whether its answer comes back.
func (l *link) judge(write bool) (forward, answer bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken {
		return false, false
	}
	if !write {
		return true, true
	}
	l.writes++
	if l.at == 0 {
		return true, true
	}
	if l.at--; l.at > 0 {
		return true, true
	}
	l.broken = l.forGood
	return l.applied, false
}

func (l *link) Writes() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.writes
}

func (l *link) Cut(n int, applied bool)  { l.arm(n, applied, true) }
func (l *link) Lose(n int, applied bool) { l.arm(n, applied, false) }

func (l *link) arm(n int, applied, forGood bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.at, l.applied, l.forGood = n, applied, forGood
}

func (l *link) Heal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.at, l.broken = 0, false
}
