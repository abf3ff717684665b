package slack

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
)

// Messages gives the messages of a channel (of all, where channel is empty), oldest first.
func (s *Server) Messages(channel string) []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []Message{}
	for _, m := range s.state.messages {
		if channel == "" || m.Channel == channel {
			out = append(out, *m)
		}
	}
	return out
}

// Ephemerals gives what only user saw; an empty user means all of them.
func (s *Server) Ephemerals(user string) []Ephemeral {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []Ephemeral{}
	for _, e := range s.state.ephemerals {
		if user == "" || e.For == user {
			out = append(out, *e)
		}
	}
	return out
}

// Views gives every modal ever opened, oldest first, with its present content.
func (s *Server) Views() []View {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []View{}
	for _, v := range s.state.views {
		out = append(out, *v)
	}
	return out
}

// OpenView gives the modal that user has open.
func (s *Server) OpenView(user string) (View, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v := s.state.openView(user); v != nil {
		return *v, true
	}
	return View{}, false
}

// Calls gives every Web API call and response URL use, with all that was sent but the token: earlier versions of messages, and refused ones, stand here.
func (s *Server) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Call{}, s.state.calls...)
}

// Callbacks gives the record of everything anyone clicked.
func (s *Server) Callbacks() []Callback {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []Callback{}
	for _, c := range s.state.callbacks {
		out = append(out, *c)
	}
	return out
}

// Files gives the uploaded files, with their bytes, in no order.
func (s *Server) Files() []File {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []File{}
	for _, f := range s.state.files {
		out = append(out, *f)
	}
	slices.SortFunc(out, func(a, b File) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// Faults gives the faults that are on.
func (s *Server) Faults() []Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []Fault{}
	for _, f := range s.state.faults {
		out = append(out, *f)
	}
	return out
}

// Watch gives a channel that receives after each change (changes while nobody reads become one), and the function that ends it.
func (s *Server) Watch() (changes <-chan struct{}, stop func()) {
	w := make(chan struct{}, 1)
	s.mu.Lock()
	s.watchers[w] = true
	s.mu.Unlock()
	return w, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watchers, w)
	}
}

// WaitFor waits until ok is true, asking it at first and after each change: how a test waits for a card or a modal. ok may call the Server.
func (s *Server) WaitFor(ctx context.Context, what string, ok func() bool) error {
	changes, stop := s.Watch()
	defer stop()
	for !ok() {
		select {
		case <-changes:
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w", what, context.Cause(ctx))
		}
	}
	return nil
}

func (s *Server) adminRoutes(mux *http.ServeMux) {
	get := func(path string, what func(r *http.Request) any) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) { writeJSON(w, http.StatusOK, what(r)) })
	}
	get("/admin/messages", func(r *http.Request) any { return s.Messages(r.FormValue("channel")) })
	get("/admin/ephemerals", func(r *http.Request) any { return s.Ephemerals(r.FormValue("user")) })
	get("/admin/views", func(*http.Request) any { return s.Views() })
	get("/admin/calls", func(*http.Request) any { return s.Calls() })
	get("/admin/callbacks", func(*http.Request) any { return s.Callbacks() })
	get("/admin/files", func(*http.Request) any { return s.Files() })
	get("/admin/faults", func(*http.Request) any { return s.Faults() })

	mux.HandleFunc("POST /admin/click", admin(func(r *http.Request, in Interaction) (any, error) { return s.Act(r.Context(), in) }))
	mux.HandleFunc("POST /admin/submit", admin(func(r *http.Request, in Interaction) (any, error) {
		return s.Submit(r.Context(), in.User, in.View, in.Values)
	}))
	mux.HandleFunc("POST /admin/close", admin(func(r *http.Request, in Interaction) (any, error) {
		return s.CloseView(r.Context(), in.User, in.View)
	}))
	mux.HandleFunc("POST /admin/faults", admin(func(_ *http.Request, f Fault) (any, error) { return f, s.AddFault(f) }))
	mux.HandleFunc("DELETE /admin/faults", func(w http.ResponseWriter, _ *http.Request) {
		s.ClearFaults()
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("PUT /admin/users", admin(func(_ *http.Request, u User) (any, error) { s.SetUser(u); return u, nil }))
	mux.HandleFunc("PUT /admin/user-groups", admin(func(_ *http.Request, g UserGroup) (any, error) { s.SetUserGroup(g); return g, nil }))
	mux.HandleFunc("PUT /admin/interactivity", admin(func(_ *http.Request, in struct {
		URL string `json:"url"`
	}) (any, error) {
		s.SetInteractivityURL(in.URL)
		return in, nil
	}))
}

// admin answers a JSON request: 200 with the result, also where the app did not acknowledge (the callback says so), 400 for what cannot be.
func admin[T any](do func(*http.Request, T) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var in T
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxAPIBody))
		d.DisallowUnknownFields()
		if err := d.Decode(&in); err != nil {
			writeJSON(w, http.StatusBadRequest, reply{"error": "decode request: " + err.Error()})
			return
		}
		out, err := do(r, in)
		if err != nil && !errors.Is(err, ErrNotAcknowledged) {
			writeJSON(w, http.StatusBadRequest, reply{"error": err.Error()})
			return
		}
		writeJSON(w, http.StatusOK, out)
	}
}
