package slack

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Message is what a channel shows, in Slack's own field names.
type Message struct {
	Type       string          `json:"type"`
	Subtype    string          `json:"subtype,omitempty"`
	Channel    string          `json:"channel,omitempty"` // only in the admin API and on the page: Slack leaves it out
	User       string          `json:"user"`
	BotID      string          `json:"bot_id,omitempty"`
	AppID      string          `json:"app_id,omitempty"`
	Team       string          `json:"team,omitempty"`
	Text       string          `json:"text"`
	TS         string          `json:"ts"`
	ThreadTS   string          `json:"thread_ts,omitempty"`
	ReplyCount int             `json:"reply_count,omitempty"`
	Latest     string          `json:"latest_reply,omitempty"`
	Blocks     json.RawMessage `json:"blocks,omitempty"`
	Metadata   json.RawMessage `json:"metadata,omitempty"`
	Edited     *Edit           `json:"edited,omitempty"`
	Files      []File          `json:"files,omitempty"`
}

// An Edit says who changed a message last.
type Edit struct {
	User string `json:"user"`
	TS   string `json:"ts"`
}

// An Ephemeral is a message that only one user sees.
type Ephemeral struct {
	Message
	For string `json:"for"`
}

// A File is an uploaded file; Data is left out of JSON.
type File struct {
	ID         string   `json:"id"`
	Created    int64    `json:"created"`
	Timestamp  int64    `json:"timestamp"`
	Name       string   `json:"name"`
	Title      string   `json:"title"`
	MIMEType   string   `json:"mimetype"`
	FileType   string   `json:"filetype"`
	User       string   `json:"user"`
	AltText    string   `json:"alt_txt,omitempty"`
	Size       int      `json:"size"`
	URLPrivate string   `json:"url_private"`
	Permalink  string   `json:"permalink"`
	Channels   []string `json:"channels"`
	Data       []byte   `json:"-"`

	uploaded, complete bool
}

// A View is a modal: what the app sent, and who has it open.
type View struct {
	ID              string            `json:"id"`
	User            string            `json:"user"`
	Type            string            `json:"type"`
	Title           json.RawMessage   `json:"title"`
	Submit          json.RawMessage   `json:"submit,omitempty"`
	Close           json.RawMessage   `json:"close,omitempty"`
	Blocks          json.RawMessage   `json:"blocks"`
	PrivateMetadata string            `json:"private_metadata"`
	CallbackID      string            `json:"callback_id"`
	ExternalID      string            `json:"external_id"`
	NotifyOnClose   bool              `json:"notify_on_close"`
	ClearOnClose    bool              `json:"clear_on_close"`
	Hash            string            `json:"hash"`
	Open            bool              `json:"open"`
	Trouble         string            `json:"trouble,omitempty"` // what the person reads when the app did not answer well
	Errors          map[string]string `json:"errors,omitempty"`  // by block id, from response_action errors
}

// A Call is one request to the Web API or to a response URL, with everything it said but the token.
type Call struct {
	At     time.Time         `json:"at"`
	Method string            `json:"method"`
	Args   map[string]string `json:"args"`
	Error  string            `json:"error,omitempty"`
	Fault  FaultKind         `json:"fault,omitempty"`
}

type trigger struct {
	user    string
	expires time.Time
	used    bool
}

type responseURL struct {
	interaction Interaction
	expires     time.Time
	uses        int
}

// state is everything the mutex of Server guards.
type state struct {
	team             string
	interactivityURL string
	learnedURL       string
	users            map[string]User
	groups           map[string]UserGroup
	channels         map[string]*Channel
	order            []string // channel ids as they came

	messages   []*Message
	byTS       map[string]*Message // channel + "/" + ts
	ephemerals []*Ephemeral
	views      []*View
	files      map[string]*File
	uploads    map[string]string // upload secret -> file id
	triggers   map[string]*trigger
	responses  map[string]*responseURL
	calls      []Call
	callbacks  []*Callback
	faults     []*Fault
	lastMicros int64
	lastPost   map[string]time.Time
	ids        int
}

func newState(opts Options) state {
	st := state{
		team:             opts.TeamID,
		interactivityURL: opts.InteractivityURL,
		users:            map[string]User{},
		groups:           map[string]UserGroup{},
		channels:         map[string]*Channel{},
		byTS:             map[string]*Message{},
		files:            map[string]*File{},
		uploads:          map[string]string{},
		triggers:         map[string]*trigger{},
		responses:        map[string]*responseURL{},
		lastPost:         map[string]time.Time{},
	}
	st.setUser(User{ID: botUserID, Name: strings.ToLower(opts.AppName), RealName: opts.AppName, IsBot: true})
	for _, u := range opts.Workspace.Users {
		st.setUser(u)
	}
	for _, g := range opts.Workspace.UserGroups {
		st.groups[g.ID] = g
	}
	for _, c := range opts.Workspace.Channels {
		st.addChannel(c)
	}
	return st
}

func (st *state) setUser(u User) {
	if u.TeamID == "" {
		u.TeamID = st.team
	}
	st.users[u.ID] = u
}

func (st *state) addChannel(c Channel) *Channel {
	st.channels[c.ID] = &c
	st.order = append(st.order, c.ID)
	return &c
}

// ts makes the next message timestamp: unique, growing, six decimals.
func (st *state) ts(now time.Time) string {
	micros := max(now.UnixMicro(), st.lastMicros+1)
	st.lastMicros = micros
	return fmt.Sprintf("%d.%06d", micros/1e6, micros%1e6)
}

// id makes the next id with a Slack-like prefix.
func (st *state) id(prefix string) string {
	st.ids++
	return fmt.Sprintf("%s%010d", prefix, st.ids)
}

func (st *state) message(channel, ts string) *Message { return st.byTS[channel+"/"+ts] }

func (st *state) ephemeral(user, channel, ts string) *Ephemeral {
	for _, e := range st.ephemerals {
		if e.For == user && e.Channel == channel && e.TS == ts {
			return e
		}
	}
	return nil
}

func (st *state) addMessage(m *Message) {
	st.messages = append(st.messages, m)
	st.byTS[m.Channel+"/"+m.TS] = m
	if parent := st.message(m.Channel, m.ThreadTS); parent != nil && parent != m {
		parent.ThreadTS = parent.TS
		parent.ReplyCount++
		parent.Latest = m.TS
	}
}

func (st *state) dropMessage(m *Message) {
	delete(st.byTS, m.Channel+"/"+m.TS)
	st.messages = slices.DeleteFunc(st.messages, func(o *Message) bool { return o == m })
}

func (st *state) view(id string) *View {
	for _, v := range slices.Backward(st.views) {
		if v.ID == id {
			return v
		}
	}
	return nil
}

// openView is the modal that user looks at.
func (st *state) openView(user string) *View {
	for _, v := range slices.Backward(st.views) {
		if v.User == user && v.Open {
			return v
		}
	}
	return nil
}

// directMessage finds or makes the conversation between the app and one user.
func (st *state) directMessage(user string) (c *Channel, existed bool) {
	for _, id := range st.order {
		if st.channels[id].DirectUser == user {
			return st.channels[id], true
		}
	}
	return st.addChannel(Channel{ID: st.id("D"), Name: st.users[user].Name, DirectUser: user, AppIsMember: true}), false
}

// secret makes an unguessable part of a URL or id.
func secret() string { return rand.Text() }
