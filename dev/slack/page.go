package slack

import (
	"cmp"
	"embed"
	"io/fs"
	"net/http"
	"slices"
	"time"
)

//go:embed page
var pageFiles embed.FS

// pageMessages bounds what the page shows of a channel; the admin API has the rest.
const pageMessages = 200

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/{method}", s.serveAPI)
	mux.HandleFunc("GET /api/{method}", s.serveAPI)
	mux.HandleFunc("POST /upload/v1/{key}", s.serveUpload)
	mux.HandleFunc("GET /files-pri/{id}", s.servePrivateFile)
	mux.HandleFunc("POST /actions/{team}/{key}", s.serveResponseURL)

	mux.HandleFunc("GET /page/state", s.servePageState)
	mux.HandleFunc("GET /page/events", s.servePageEvents)
	mux.HandleFunc("GET /page/files/{id}", s.servePageFile)
	s.adminRoutes(mux)

	static, err := fs.Sub(pageFiles, "page")
	if err != nil {
		panic(err) // the embedded folder is missing
	}
	mux.Handle("GET /static/", http.StripPrefix("/static/", http.FileServerFS(static)))
	index := func(w http.ResponseWriter, r *http.Request) { http.ServeFileFS(w, r, static, "page.html") }
	mux.HandleFunc("GET /{$}", index)
	mux.HandleFunc("GET /archives/{channel}/{message}", index)

	// A web page of somebody else must not click for us, and ours runs nothing but its own files.
	guarded := http.NewCrossOriginProtection().Handler(mux)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Referrer-Policy", "no-referrer")
		guarded.ServeHTTP(w, r)
	})
}

// A pageState is everything the page draws for one person in one channel.
type pageState struct {
	App           reply         `json:"app"`
	Interactivity string        `json:"interactivity"`
	Users         []pageUser    `json:"users"`
	Groups        []UserGroup   `json:"groups"`
	Channels      []Channel     `json:"channels"`
	Channel       string        `json:"channel"`
	Messages      []pageMessage `json:"messages"`
	View          *pageView     `json:"view"`
	Callbacks     []pageCall    `json:"callbacks"`
	Faults        []Fault       `json:"faults"`
	FaultKinds    []FaultKind   `json:"fault_kinds"`
	Methods       []string      `json:"methods"`
}

type pageUser struct {
	User
	Kind string `json:"kind"` // "", guest, deleted, bot, other team
}

type pageMessage struct {
	Message
	Shown     any    `json:"shown"` // blocks with spans
	Spans     []Span `json:"spans"`
	Ephemeral bool   `json:"ephemeral,omitempty"`
	Warning   string `json:"warning,omitempty"`
	Waiting   bool   `json:"waiting,omitempty"` // a callback of this person is on its way
}

type pageView struct {
	View
	Shown       any    `json:"shown"`
	ShownTitle  any    `json:"shown_title"`
	ShownSubmit any    `json:"shown_submit"`
	ShownClose  any    `json:"shown_close"`
	Warning     string `json:"warning,omitempty"`
}

// A pageCall is a line of the page's list of callbacks.
type pageCall struct {
	ID         string      `json:"id"`
	At         time.Time   `json:"at"`
	Type       string      `json:"type"`
	User       string      `json:"user"`
	ActionID   string      `json:"action_id"`
	Done       bool        `json:"done"`
	Acked      bool        `json:"acked"`
	Problem    string      `json:"problem"`
	DurationMS float64     `json:"duration_ms"`
	Faults     []FaultKind `json:"faults"`
}

func (s *Server) servePageState(w http.ResponseWriter, r *http.Request) {
	user, channel := r.FormValue("user"), r.FormValue("channel")
	s.mu.Lock()
	out := s.pageState(user, channel)
	s.mu.Unlock()
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, http.StatusOK, out)
}

func (s *Server) pageState(user, channel string) pageState {
	st := &s.state
	if st.channels[channel] == nil && len(st.order) > 0 {
		channel = st.order[0]
	}
	out := pageState{
		App:           reply{"id": s.opts.AppID, "name": s.opts.AppName, "user": botUserID, "team": s.opts.TeamID},
		Interactivity: st.interactivityURL, Channel: channel, FaultKinds: FaultKinds(), Faults: []Fault{}, Methods: sortedKeys(methods),
		Channels: []Channel{}, Groups: []UserGroup{}, Messages: []pageMessage{}, Callbacks: []pageCall{},
	}
	for _, id := range sortedKeys(st.users) {
		out.Users = append(out.Users, pageUser{User: st.users[id], Kind: kindOf(st.users[id], s.opts.TeamID)})
	}
	for _, id := range sortedKeys(st.groups) {
		out.Groups = append(out.Groups, st.groups[id])
	}
	for _, id := range st.order {
		if c := st.channels[id]; c.DirectUser == "" || c.DirectUser == user {
			out.Channels = append(out.Channels, *c)
		}
	}
	for _, f := range st.faults {
		out.Faults = append(out.Faults, *f)
	}
	out.Messages = s.pageMessages(user, channel)
	if v := st.openView(user); v != nil {
		out.View = &pageView{View: *v, Shown: s.decorate(v.Blocks), ShownTitle: s.decorate(v.Title),
			ShownSubmit: s.decorate(v.Submit), ShownClose: s.decorate(v.Close)}
		out.View.Warning, _ = s.warning(func(in Interaction) bool { return in.User == user && in.View == v.ID })
	}
	for i, c := range slices.Backward(st.callbacks) {
		if i < len(st.callbacks)-20 {
			break
		}
		line := pageCall{ID: c.ID, At: c.At, Type: c.Type, User: c.Interaction.User, ActionID: c.Interaction.ActionID,
			Done: c.Done, Acked: c.Acked, Problem: c.Problem, Faults: c.Faults}
		if len(c.Deliveries) > 0 {
			line.DurationMS = c.Deliveries[0].DurationMS
		}
		out.Callbacks = append(out.Callbacks, line)
	}
	return out
}

func (s *Server) pageMessages(user, channel string) []pageMessage {
	out := []pageMessage{}
	add := func(m Message, ephemeral bool) {
		shown := pageMessage{Message: m, Shown: s.decorate(m.Blocks), Ephemeral: ephemeral}
		if len(decodeBlocks(m.Blocks)) == 0 { // Slack shows the text only of a message without blocks
			shown.Spans = Mrkdwn(m.Text, false)
		}
		shown.Warning, shown.Waiting = s.warning(func(in Interaction) bool {
			return in.User == user && in.Channel == m.Channel && in.TS == m.TS
		})
		out = append(out, shown)
	}
	for _, m := range slices.Backward(s.state.messages) {
		if m.Channel == channel && len(out) < pageMessages {
			add(*m, false)
		}
	}
	for _, e := range s.state.ephemerals {
		if e.For == user && e.Channel == channel {
			add(e.Message, true)
		}
	}
	slices.SortStableFunc(out, func(a, b pageMessage) int { return cmp.Compare(a.TS, b.TS) })
	return out
}

// warning says what went wrong with a person's last interaction with one message or view, and whether it still runs.
func (s *Server) warning(with func(Interaction) bool) (text string, waiting bool) {
	for _, c := range slices.Backward(s.state.callbacks) {
		if !with(c.Interaction) {
			continue
		}
		if !c.Done {
			return "", true
		}
		if !c.Acked {
			return c.Problem, false
		}
		return "", false
	}
	return "", false
}

func kindOf(u User, ourTeam string) string {
	switch {
	case u.Deleted:
		return "deleted"
	case u.IsBot:
		return "bot"
	case u.TeamID != ourTeam:
		return "other team"
	case u.IsRestricted, u.IsUltraRestricted:
		return "guest"
	}
	return ""
}

// decorate adds to each text object the spans that a person sees, and to each image of an uploaded file its address.
func (s *Server) decorate(raw []byte) any {
	value, err := decode(string(raw))
	if err != nil {
		return nil
	}
	s.decorateValue(value)
	return value
}

func (s *Server) decorateValue(value any) {
	switch v := value.(type) {
	case []any:
		for _, inner := range v {
			s.decorateValue(inner)
		}
	case map[string]any:
		for _, inner := range v {
			s.decorateValue(inner)
		}
		text, _ := v["text"].(string)
		switch v["type"] {
		case "mrkdwn":
			verbatim, _ := v["verbatim"].(bool)
			v["spans"] = Mrkdwn(text, verbatim)
		case "plain_text":
			emoji, given := v["emoji"].(bool)
			v["spans"] = Plain(text, emoji || !given)
		case "emoji":
			name, _ := v["name"].(string)
			v["sign"] = emojiNames[name]
		}
		if file, ok := v["slack_file"].(map[string]any); ok {
			id, _ := file["id"].(string)
			v["src"] = "/page/files/" + id
		}
	}
}

// servePageEvents tells the page to fetch its state again, as server-sent events.
func (s *Server) servePageEvents(w http.ResponseWriter, r *http.Request) {
	changes, stop := s.Watch()
	defer stop()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	out := http.NewResponseController(w)
	for {
		if _, err := w.Write([]byte("data: changed\n\n")); err != nil {
			return
		}
		if err := out.Flush(); err != nil {
			return
		}
		select {
		case <-changes:
		case <-r.Context().Done():
			return
		case <-s.closed:
			return
		}
	}
}
