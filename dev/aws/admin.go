package aws

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// AdminHandler serves the operator of the test: what was called, what stands, faults and clock. It asks for no credentials, so
// it belongs on a listener of its own that nobody else reaches, such as a socket file.
//
//	GET    /records?from=N   the calls from N on (Records)
//	GET    /state            users, roles, groups, policies, keys, sessions, without secrets (State)
//	GET    /faults           armed faults;  POST one;  DELETE all
//	POST   /clock            {"skewSeconds": N}: the clock runs so far beside the machine's
//	POST   /settle           every change that still lags counts at once
//	POST   /queues/{name}    put the body, such as an event of EventBridge, into a queue; ?duplicates=N
//	POST   /policies         {"serviceControlPolicies": [[document, …], …]}
func (s *Server) AdminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		s.answer(w, map[string]any{"account": s.options.Account, "lagMilliseconds": s.options.Lag.Milliseconds(), "now": s.Now()})
	})
	mux.HandleFunc("GET /records", func(w http.ResponseWriter, r *http.Request) {
		from, err := strconv.Atoi(r.FormValue("from"))
		if r.FormValue("from") != "" && err != nil {
			refuse(w, err)
			return
		}
		s.answer(w, map[string]any{"records": s.Records(from)})
	})
	mux.HandleFunc("GET /state", func(w http.ResponseWriter, _ *http.Request) { s.answer(w, s.State()) })
	mux.HandleFunc("GET /faults", func(w http.ResponseWriter, _ *http.Request) { s.answer(w, map[string]any{"faults": s.armed()}) })
	mux.HandleFunc("POST /faults", func(w http.ResponseWriter, r *http.Request) {
		var f Fault
		s.do(w, r, &f, func() error { return s.Inject(f) })
	})
	mux.HandleFunc("DELETE /faults", func(w http.ResponseWriter, _ *http.Request) { s.ClearFaults(); s.answer(w, nil) })
	mux.HandleFunc("POST /clock", func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			SkewSeconds float64 `json:"skewSeconds"`
		}
		s.do(w, r, &in, func() error { s.SetSkew(time.Duration(in.SkewSeconds * float64(time.Second))); return nil })
	})
	mux.HandleFunc("POST /settle", func(w http.ResponseWriter, _ *http.Request) { s.Settle(); s.answer(w, nil) })
	mux.HandleFunc("POST /queues/{name}", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		duplicates := 0
		if n := r.URL.Query().Get("duplicates"); err == nil && n != "" {
			duplicates, err = strconv.Atoi(n)
		}
		if err == nil {
			err = s.Enqueue(r.PathValue("name"), string(body), duplicates)
		}
		if err != nil {
			refuse(w, err)
			return
		}
		s.answer(w, map[string]any{"queued": s.Queued(r.PathValue("name"))})
	})
	mux.HandleFunc("POST /policies", func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			ServiceControlPolicies [][]json.RawMessage `json:"serviceControlPolicies"`
		}
		s.do(w, r, &in, func() error {
			var levels [][]string
			for _, level := range in.ServiceControlPolicies {
				var documents []string
				for _, raw := range level {
					documents = append(documents, string(raw))
				}
				levels = append(levels, documents)
			}
			return s.SetServiceControlPolicies(levels)
		})
	})
	return mux
}

// SetSkew sets the stand-in's clock beside that of its machine.
func (s *Server) SetSkew(skew time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.skew = skew
}

func (s *Server) armed() []Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []Fault{}
	for _, f := range s.faults {
		out = append(out, *f)
	}
	return out
}

// do decodes a request, carries it out and answers.
func (s *Server) do(w http.ResponseWriter, r *http.Request, into any, carryOut func() error) {
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(into)
	if err == nil {
		err = carryOut()
	}
	if err != nil {
		refuse(w, err)
		return
	}
	s.answer(w, nil)
}

func refuse(w http.ResponseWriter, err error) {
	status := http.StatusBadRequest
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		status = http.StatusRequestEntityTooLarge
	}
	http.Error(w, fmt.Sprintf("%s: %v", Label, err), status)
}

// answer writes value as JSON; an object also says who speaks.
func (s *Server) answer(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Server", Label)
	if value == nil {
		value = map[string]any{}
	}
	if object, ok := value.(map[string]any); ok {
		object["standIn"] = Label
	}
	_ = json.NewEncoder(w).Encode(value) // the reader went away: its affair
}

// A Snapshot is what stands in the account, by the control plane, without secrets.
type Snapshot struct {
	StandIn  string                     `json:"standIn"`
	Account  string                     `json:"account"`
	Now      time.Time                  `json:"now"`
	Settled  bool                       `json:"settled"`  // authorization has learnt everything
	Entities map[string]EntitySnapshot  `json:"entities"` // by "user/alice", "role/deploy", "group/ops"
	Policies map[string]json.RawMessage `json:"policies"` // default documents by ARN
	Sessions []SessionSnapshot          `json:"sessions"` // not yet expired
}

// An EntitySnapshot is one user, role or group.
type EntitySnapshot struct {
	ARN      string                     `json:"arn"`
	Keys     map[string]string          `json:"keys,omitempty"` // id to Active or Inactive
	Attached []string                   `json:"attached,omitempty"`
	Inline   map[string]json.RawMessage `json:"inline,omitempty"`
	Boundary string                     `json:"boundary,omitempty"`
	Groups   []string                   `json:"groups,omitempty"`
	Trust    json.RawMessage            `json:"trust,omitempty"`
	Tags     map[string]string          `json:"tags,omitempty"`
	Console  bool                       `json:"console,omitempty"` // it has a password
}

// A SessionSnapshot is one set of temporary credentials.
type SessionSnapshot struct {
	AccessKeyID string    `json:"accessKeyId"`
	Of          string    `json:"of"` // "role/deploy", "user/alice"
	Name        string    `json:"name,omitempty"`
	Issued      time.Time `json:"issued"`
	Expires     time.Time `json:"expires"`
}

// State returns what stands in the account now.
func (s *Server) State() Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	s.state.settle(now)
	out := Snapshot{
		StandIn: Label, Account: s.options.Account, Now: now, Settled: s.state.settled(),
		Entities: map[string]EntitySnapshot{}, Policies: map[string]json.RawMessage{}, Sessions: []SessionSnapshot{},
	}
	for key, e := range s.state.entities.live {
		out.Entities[key] = s.snapshot(e)
	}
	for arn, p := range s.state.policies.live {
		current, _ := p.version(p.current)
		out.Policies[arn] = json.RawMessage(current.raw)
	}
	for _, id := range slices.Sorted(maps.Keys(s.sessions)) {
		if held := s.sessions[id]; now.Before(held.expires) {
			out.Sessions = append(out.Sessions, SessionSnapshot{id, held.owner, held.name, held.issued, held.expires})
		}
	}
	return out
}

func (s *Server) snapshot(e *entity) EntitySnapshot {
	out := EntitySnapshot{
		ARN: e.arn, Keys: map[string]string{}, Attached: e.attached, Inline: map[string]json.RawMessage{}, Boundary: e.boundary,
		Groups: e.groups, Tags: e.tags, Console: !e.login.IsZero(),
	}
	for _, key := range s.keysOf(e.key()) {
		out.Keys[key.id] = key.status()
	}
	for name, d := range e.inline {
		out.Inline[name] = json.RawMessage(d.raw)
	}
	if e.kind == roleKind {
		out.Trust = json.RawMessage(e.trust.raw)
	}
	return out
}
