package slack

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// args are a call's arguments: form values, or the fields of a JSON body with strings unquoted and the rest as JSON text.
type args map[string]string

// apiError is what ok:false says.
type apiError struct {
	code     string
	messages []string
	needed   string
}

func (e *apiError) Error() string { return e.code }

func refuse(code string) error { return &apiError{code: code} }

type reply map[string]any

// A method runs with the mutex held.
type method struct {
	scope string // empty: any token will do
	run   func(s *Server, a args) (reply, error)
}

var methods = map[string]method{
	"auth.test":                    {"", (*Server).authTest},
	"chat.postMessage":             {"chat:write", (*Server).postMessage},
	"chat.update":                  {"chat:write", (*Server).updateMessage},
	"chat.postEphemeral":           {"chat:write", (*Server).postEphemeral},
	"chat.getPermalink":            {"", (*Server).permalink},
	"conversations.open":           {"im:write", (*Server).openConversation},
	"conversations.history":        {"channels:history", (*Server).history},
	"conversations.replies":        {"channels:history", (*Server).replies},
	"users.info":                   {"users:read", (*Server).userInfo},
	"users.lookupByEmail":          {"users:read.email", (*Server).userByEmail},
	"usergroups.users.list":        {"usergroups:read", (*Server).groupMembers},
	"files.getUploadURLExternal":   {"files:write", (*Server).uploadURL},
	"files.completeUploadExternal": {"files:write", (*Server).completeUpload},
	"views.open":                   {"", (*Server).openViewCall},
	"views.update":                 {"", (*Server).updateViewCall},
}

// serveAPI answers POST and GET /api/<method>.
func (s *Server) serveAPI(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("method")
	a, token, err := readArgs(w, r)
	if err != nil {
		writeJSON(w, http.StatusOK, reply{"ok": false, "error": "invalid_form_data"})
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.learnedURL = "http://" + r.Host
	now := s.opts.Now()
	call := Call{At: now, Method: name, Args: a}
	defer func() {
		s.state.calls = append(s.state.calls, call)
		s.changed()
	}()
	if faults := s.takeFaults(name, apiFaults...); len(faults) > 0 {
		if call.Fault = s.misbehave(w, a, now, faults[0]); call.Fault != "" && call.Fault != FaultNoAnswer {
			return
		}
	}
	out, err := s.run(name, token, a)
	if call.Fault == FaultNoAnswer {
		hangUp(w)
		return
	}
	if err != nil {
		call.Error = err.Error()
		out = errorReply(err)
	} else {
		out["ok"] = true
	}
	writeJSON(w, http.StatusOK, out)
}

func (s *Server) run(name, token string, a args) (reply, error) {
	m, ok := methods[name]
	switch {
	case !ok:
		return nil, refuse("unknown_method")
	case token == "":
		return nil, refuse("not_authed")
	case token != s.opts.BotToken:
		return nil, refuse("invalid_auth")
	case m.scope != "" && s.scopes != nil && !s.scopes[m.scope]:
		return nil, &apiError{code: "missing_scope", needed: m.scope}
	}
	return m.run(s, a)
}

// misbehave writes what the fault says and returns its kind, or returns "" where it does not apply to this call.
func (s *Server) misbehave(w http.ResponseWriter, a args, now time.Time, f Fault) FaultKind {
	switch f.Kind {
	case FaultOnePerSecond:
		last, posted := s.state.lastPost[a["channel"]]
		if a["channel"] == "" || !posted || now.Sub(last) >= time.Second {
			return ""
		}
		fallthrough
	case FaultRateLimited:
		w.Header().Set("Retry-After", strconv.Itoa(max(1, f.RetryAfterSeconds)))
		writeJSON(w, http.StatusTooManyRequests, reply{"ok": false, "error": "ratelimited"})
	case FaultServerError:
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, "<html><body>Slack stand-in: made to fail</body></html>")
	case FaultRefused:
		code := f.Error
		if code == "" {
			code = "internal_error"
		}
		writeJSON(w, http.StatusOK, reply{"ok": false, "error": code})
	case FaultLost:
		writeJSON(w, http.StatusOK, reply{"ok": true, "channel": a["channel"], "ts": s.state.ts(now)})
	}
	return f.Kind
}

// hangUp cuts the connection, so that the caller cannot know whether anything was done.
func hangUp(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // the server's own way to cut a connection
	}
	_ = conn.Close()
}

func errorReply(err error) reply {
	out := reply{"ok": false, "error": "internal_error"}
	var e *apiError
	if !errors.As(err, &e) {
		return out
	}
	out["error"] = e.code
	if e.needed != "" {
		out["needed"] = e.needed
	}
	if len(e.messages) > 0 {
		marked := make([]string, len(e.messages))
		for i, m := range e.messages {
			marked[i] = "[ERROR] " + m
		}
		out["errors"] = e.messages
		out["response_metadata"] = reply{"messages": marked}
	}
	return out
}

// readArgs takes arguments from the body (or from the query of a GET) and the token from the header or the body, never from a query.
func readArgs(w http.ResponseWriter, r *http.Request) (args, string, error) {
	r.Body = http.MaxBytesReader(w, r.Body, maxAPIBody)
	bearer, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	a := args{}
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if kind == "application/json" {
		var fields map[string]json.RawMessage
		if err := json.NewDecoder(r.Body).Decode(&fields); err != nil {
			return nil, "", err
		}
		for k, v := range fields {
			a[k] = unquote(v)
		}
	} else {
		if err := r.ParseForm(); err != nil {
			return nil, "", err
		}
		form := r.PostForm
		if r.Method == http.MethodGet {
			form = r.Form
		}
		for k, v := range form {
			a[k] = v[0]
		}
	}
	token := bearer
	if token == "" && r.Method == http.MethodPost {
		token = a["token"]
	}
	delete(a, "token") // it must not stand in the record that canary tests search
	return a, token, nil
}

// unquote gives a JSON string's value, and any other JSON as it is.
func unquote(v json.RawMessage) string {
	var text string
	if json.Unmarshal(v, &text) == nil {
		return text
	}
	return string(v)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the caller went away: nobody is left to tell
}

// baseURL is where the app reaches us. The caller holds mu.
func (s *Server) baseURL() string {
	if s.opts.BaseURL != "" {
		return strings.TrimSuffix(s.opts.BaseURL, "/")
	}
	return s.state.learnedURL
}
