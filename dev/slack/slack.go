// Package slack is a stand-in for Slack: a server that an unmodified slack-go client drives through OptionAPIURL, and a
// web page that shows the channel with its working buttons. The demo, the end-to-end tests and the attack corpora use it.
//
// It keeps a workspace in memory (users, user groups, channels, messages, threads, modals, files, ephemerals), checks
// blocks and modals against Slack's limits, sends signed callbacks when somebody clicks, holds the app to Slack's three
// seconds, and misbehaves on request (Fault). Everything it is ever sent stays readable through the admin API, for tests
// that look for canary secrets or for injected markup.
//
// It is never part of the product, listens on loopback only by its callers' choice, checks nobody's password (the page acts
// as whomever it is told), and knows no Socket Mode: apps.connections.open and its WebSocket are left out entirely, as are
// the Events API, slash commands and messages by people.
package slack

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"
)

// Errors of Act, Click, Submit and CloseView. The callback that comes with ErrNotAcknowledged says what happened.
var (
	ErrNotAcknowledged = errors.New("the app did not acknowledge the callback")
	ErrImpossible      = errors.New("nobody could do this on the page")
)

// Options say what the workspace and its one app look like. Every field may stay empty but BotToken and SigningSecret.
type Options struct {
	AppID         string
	AppName       string
	TeamID        string
	BotToken      string // what the app must send; anything else is invalid_auth
	SigningSecret string // signs callbacks

	// InteractivityURL receives the callbacks; SetInteractivityURL changes it.
	InteractivityURL string
	// BaseURL is where the app reaches this server, such as http://127.0.0.1:8080; empty means the last API call's Host.
	BaseURL string
	// Scopes are the granted bot scopes; empty grants all, else a method outside them answers missing_scope.
	Scopes []string
	// Workspace is who and what exists; the zero value means DefaultWorkspace.
	Workspace Workspace

	Now        func() time.Time // the wall clock unless set
	AckTimeout time.Duration    // Slack's 3 s unless set
	Client     *http.Client     // sends the callbacks
}

const (
	botUserID = "U0STANDIN00"
	botID     = "B0STANDIN00"

	triggerLife       = 3 * time.Second
	ackTimeout        = 3 * time.Second
	responseURLLife   = 30 * time.Minute
	responseURLUses   = 5
	maxAPIBody        = 4 << 20
	maxFileBytes      = 32 << 20
	verificationToken = "stand-in-verification-token" //nolint:gosec // Slack's deprecated field, meant to be worthless
)

// A Server is one workspace with one installed app. It is safe for concurrent use; Close ends the page's event streams.
type Server struct {
	opts    Options
	scopes  map[string]bool
	handler http.Handler
	closed  chan struct{}
	once    sync.Once

	mu       sync.Mutex
	state    state
	watchers map[chan struct{}]bool
}

// New makes a workspace. It opens no port: serve Handler.
func New(opts Options) *Server {
	if opts.AppID == "" {
		opts.AppID = "A0STANDIN00"
	}
	if opts.AppName == "" {
		opts.AppName = "Tourniquet"
	}
	if opts.TeamID == "" {
		opts.TeamID = "T0STANDIN00"
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.AckTimeout == 0 {
		opts.AckTimeout = ackTimeout
	}
	if opts.Client == nil {
		opts.Client = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	if len(opts.Workspace.Users) == 0 && len(opts.Workspace.Channels) == 0 {
		opts.Workspace = DefaultWorkspace()
	}
	s := &Server{opts: opts, closed: make(chan struct{}), watchers: map[chan struct{}]bool{}}
	if len(opts.Scopes) > 0 {
		s.scopes = map[string]bool{}
		for _, scope := range opts.Scopes {
			s.scopes[scope] = true
		}
	}
	s.state = newState(opts)
	s.handler = s.routes()
	return s
}

// Handler serves the Web API under /api/, the page under / and the admin API under /admin/.
func (s *Server) Handler() http.Handler { return s.handler }

// Close ends the page's event streams, so that an http.Server around Handler can shut down.
func (s *Server) Close() { s.once.Do(func() { close(s.closed) }) }

// SetInteractivityURL says where callbacks go from now on.
func (s *Server) SetInteractivityURL(url string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.interactivityURL = url
	s.changed()
}

// SetUser adds a user or replaces one, such as to deactivate an approver between two clicks.
func (s *Server) SetUser(u User) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.setUser(u)
	s.changed()
}

// SetUserGroup adds a user group or replaces one.
func (s *Server) SetUserGroup(g UserGroup) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.groups[g.ID] = g
	s.changed()
}

// Click presses the button actionID of a message as user and waits for the app's acknowledgement. The callback is
// returned with ErrNotAcknowledged too; ErrImpossible means that there is no such user, message or button.
func (s *Server) Click(ctx context.Context, user, channel, ts, actionID string) (Callback, error) {
	return s.Act(ctx, Interaction{User: user, Channel: channel, TS: ts, ActionID: actionID})
}

// changed wakes every page. The caller holds mu.
func (s *Server) changed() {
	for w := range s.watchers {
		select {
		case w <- struct{}{}:
		default: // it has a wake-up pending already
		}
	}
}
