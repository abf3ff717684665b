package click

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"time"
	"unicode/utf8"
)

const (
	// maxBody bounds a request before anything reads it.
	maxBody = 1 << 20
	// window is how far a request's timestamp may be from our clock.
	window = 5 * time.Minute
	// remembered is how long a signature counts as seen: longer than it can be valid.
	remembered = 2*window + time.Minute

	headerSignature = "X-Slack-Signature"
	headerTime      = "X-Slack-Request-Timestamp"
)

// interaction is what we read of a payload. Slack's format is foreign: fields that we do not know are not refused.
type interaction struct {
	Type      string `json:"type"`
	APIAppID  string `json:"api_app_id"`
	TriggerID string `json:"trigger_id"`
	Team      struct {
		ID string `json:"id"`
	} `json:"team"`
	Enterprise *struct {
		ID string `json:"id"`
	} `json:"enterprise"`
	User struct {
		ID     string `json:"id"`
		TeamID string `json:"team_id"`
	} `json:"user"`
	Channel *struct {
		ID string `json:"id"`
	} `json:"channel"`
	Container *struct {
		Type      string `json:"type"`
		MessageTS string `json:"message_ts"`
		ChannelID string `json:"channel_id"`
		Ephemeral bool   `json:"is_ephemeral"`
		ViewID    string `json:"view_id"`
	} `json:"container"`
	Message *struct {
		TS string `json:"ts"`
	} `json:"message"`
	Actions []action `json:"actions"`
	View    *view    `json:"view"`
}

type action struct {
	Type     string  `json:"type"`
	ActionID string  `json:"action_id"`
	BlockID  string  `json:"block_id"`
	Value    string  `json:"value"`
	Selected *choice `json:"selected_option"`
}

type choice struct {
	Value string `json:"value"`
}

type view struct {
	ID              string `json:"id"`
	TeamID          string `json:"team_id"`
	AppID           string `json:"app_id"`
	CallbackID      string `json:"callback_id"`
	PrivateMetadata string `json:"private_metadata"`
	Hash            string `json:"hash"`
	State           struct {
		Values map[string]map[string]struct {
			Value    string  `json:"value"`
			Selected *choice `json:"selected_option"`
		} `json:"values"`
	} `json:"state"`
}

// statusOf is the answer to a request that nobody is told more about.
var statusOf = map[Code]int{
	CodeBody: http.StatusRequestEntityTooLarge, CodeForm: http.StatusBadRequest, CodeSignature: http.StatusUnauthorized,
	CodeTime: http.StatusUnauthorized, CodeReplayed: http.StatusConflict, CodePayload: http.StatusBadRequest,
	CodeApp: http.StatusForbidden, CodeTeam: http.StatusForbidden, CodeInteraction: http.StatusBadRequest,
	CodeLedger: http.StatusServiceUnavailable,
}

// authentic reads the body of a request that Slack signed just now. Nothing parses it before its signature is checked.
func (d *Door) authentic(w http.ResponseWriter, r *http.Request) (body []byte, signature string, err error) {
	body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, "", refuse(CodeBody)
	case err != nil:
		return nil, "", because(CodeForm, err)
	}
	signatures, times := r.Header.Values(headerSignature), r.Header.Values(headerTime)
	if len(signatures) != 1 || len(times) != 1 {
		return nil, "", refuse(CodeSignature)
	}
	at, ok := seconds(times[0])
	if !ok || d.o.Now().Sub(at).Abs() > window {
		return nil, "", refuse(CodeTime)
	}
	mac := hmac.New(sha256.New, d.o.SigningSecret)
	mac.Write([]byte("v0:" + times[0] + ":"))
	mac.Write(body)
	want := "v0=" + hex.EncodeToString(mac.Sum(nil))
	if !hmac.Equal([]byte(want), []byte(signatures[0])) {
		return nil, "", refuse(CodeSignature)
	}
	return body, want, nil
}

// seconds reads a timestamp spelt in the one way that Slack spells it.
func seconds(s string) (time.Time, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n <= 0 || n > 1<<40 || strconv.FormatInt(n, 10) != s {
		return time.Time{}, false
	}
	return time.Unix(n, 0), true
}

// parse reads the payload from the body and from nowhere else: a signature does not cover the query.
func parse(r *http.Request, body []byte) (*interaction, error) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/x-www-form-urlencoded" || r.URL.RawQuery != "" {
		return nil, refuse(CodeForm)
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, because(CodeForm, errors.New("body is no form")) // the error would quote the body
	}
	if len(form) != 1 || len(form["payload"]) != 1 {
		return nil, refuse(CodeForm)
	}
	var in interaction
	raw := form["payload"][0]
	if !utf8.ValidString(raw) || json.Unmarshal([]byte(raw), &in) != nil {
		return nil, refuse(CodePayload)
	}
	return &in, nil
}

// ours checks that the payload comes from our app in our workspace, by a member of it. Slack Connect guests are out.
func (d *Door) ours(in *interaction) error {
	switch {
	case in.APIAppID == "" || in.APIAppID != d.o.AppID:
		return refuse(CodeApp)
	case in.Team.ID == "" || in.Team.ID != d.o.TeamID || in.User.TeamID != d.o.TeamID || in.User.ID == "":
		return refuse(CodeTeam)
	case in.Enterprise != nil && in.Enterprise.ID != d.o.EnterpriseID:
		return refuse(CodeTeam)
	case in.View != nil && (in.View.AppID != d.o.AppID || in.View.TeamID != d.o.TeamID):
		return refuse(CodeApp)
	}
	return nil
}
