package slack_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	client "github.com/slack-go/slack"

	"tourniquet.dev/tourniquet/dev/slack"
)

const (
	botToken = "xoxb-test-0"
	signing  = "0123456789abcdef"
	alice    = "U0ALICE0000"
	boris    = "U0BORIS0000"
	channel  = "C0INCIDENTS"
)

// A fixture is a stand-in, the unmodified client against it, and an app that verifies and answers callbacks.
type fixture struct {
	*slack.Server
	url string
	api *client.Client

	mu      sync.Mutex
	now     time.Time
	refused []error // what SecretsVerifier or the parser said of callbacks that did not pass
	answer  func(client.InteractionCallback) string
	hold    bool // do not answer until the caller gives up
}

func (f *fixture) clock() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now
}

func (f *fixture) advance(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = f.now.Add(d)
}

// answers sets what the app does with a callback that passed its checks; the text is the body of its 200.
func (f *fixture) answers(do func(client.InteractionCallback) string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = do
}

func newFixture(t *testing.T, change ...func(*slack.Options)) *fixture {
	t.Helper()
	f := &fixture{now: time.Now()}
	app := httptest.NewServer(http.HandlerFunc(f.serveApp))
	t.Cleanup(app.Close)
	opts := slack.Options{BotToken: botToken, SigningSecret: signing, InteractivityURL: app.URL, Now: f.clock}
	for _, c := range change {
		c(&opts)
	}
	f.Server = slack.New(opts)
	server := httptest.NewServer(f.Handler())
	t.Cleanup(server.Close)
	t.Cleanup(f.Close)
	f.url = server.URL
	f.api = client.New(botToken, client.OptionAPIURL(server.URL+"/api/"))
	return f
}

func (f *fixture) serveApp(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	f.mu.Lock()
	hold := f.hold
	f.mu.Unlock()
	if hold {
		<-r.Context().Done()
		return
	}
	ic, err := verify(r, body)
	f.mu.Lock()
	answer := f.answer
	if err != nil {
		f.refused = append(f.refused, err)
	}
	f.mu.Unlock()
	if err != nil {
		http.Error(w, "refused", http.StatusUnauthorized)
		return
	}
	if answer != nil {
		_, _ = io.WriteString(w, answer(ic))
	}
}

// verify does what an app does: slack-go's verifier, then slack-go's parser.
func verify(r *http.Request, body []byte) (client.InteractionCallback, error) {
	verifier, err := client.NewSecretsVerifier(r.Header, signing)
	if err != nil {
		return client.InteractionCallback{}, err
	}
	_, _ = verifier.Write(body)
	if err := verifier.Ensure(); err != nil {
		return client.InteractionCallback{}, err
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	return client.InteractionCallbackParse(r)
}

func plain(text string) *client.TextBlockObject {
	return client.NewTextBlockObject(client.PlainTextType, text, true, false)
}

func mrkdwn(text string) *client.TextBlockObject {
	return client.NewTextBlockObject(client.MarkdownType, text, false, false)
}

func approveButton() *client.ButtonBlockElement {
	b := client.NewButtonBlockElement("approve", "token-1", plain("Approve"))
	b.Style = client.StylePrimary
	b.Confirm = client.NewConfirmationBlockObject(plain("Approve the cut?"), mrkdwn("It stays until *released*."), plain("Approve"), plain("Back"))
	return b
}

func card() []client.Block {
	return []client.Block{
		client.NewHeaderBlock(plain("Stolen token")),
		client.NewSectionBlock(mrkdwn("`payments` was cut"), nil, nil),
		client.NewActionBlock("decide", approveButton(), client.NewButtonBlockElement("deny", "token-2", plain("Deny"))),
	}
}

func modal() client.ModalViewRequest {
	reason := client.NewPlainTextInputBlockElement(plain("Why?"), "reason")
	reason.Multiline = true
	factor := client.NewRadioButtonsBlockElement("number", client.NewOptionBlockObject("17", plain("17"), nil), client.NewOptionBlockObject("42", plain("42"), nil))
	hours := client.NewOptionsSelectBlockElement(client.OptTypeStatic, plain("How long"), "hours",
		client.NewOptionBlockObject("4h", plain("4 hours"), nil), client.NewOptionBlockObject("24h", plain("24 hours"), nil))
	also := client.NewCheckboxGroupsBlockElement("also", client.NewOptionBlockObject("page", plain("Page the owner"), mrkdwn("now")),
		client.NewOptionBlockObject("ticket", plain("Open a ticket"), nil))
	checks := client.NewInputBlock("b-also", plain("Also"), nil, also)
	checks.Optional = true
	return client.ModalViewRequest{
		Type: client.VTModal, Title: plain("Approve plan"), Submit: plain("Sign"), Close: plain("Back"), CallbackID: "approve",
		PrivateMetadata: "digest", NotifyOnClose: true,
		Blocks: client.Blocks{BlockSet: []client.Block{
			client.NewSectionBlock(mrkdwn("*Plan* `sha256:abc`"), nil, nil),
			client.NewInputBlock("b-reason", plain("Reason"), plain("Goes into the record"), reason),
			client.NewInputBlock("b-number", plain("Which number does your pager show?"), nil, factor),
			client.NewInputBlock("b-hours", plain("Duration"), nil, hours),
			checks,
		}},
	}
}

// post puts the card into the channel and gives its ts.
func (f *fixture) post(t *testing.T) string {
	t.Helper()
	_, ts, err := f.api.PostMessageContext(t.Context(), channel, client.MsgOptionText("Stolen token", false), client.MsgOptionBlocks(card()...))
	if err != nil {
		t.Fatal(err)
	}
	return ts
}

// openModal clicks approve as alice, lets the app open the modal, and gives the view's id.
func (f *fixture) openModal(t *testing.T) string {
	t.Helper()
	ts := f.post(t)
	opened := make(chan error, 1)
	f.answers(func(ic client.InteractionCallback) string {
		_, err := f.api.OpenViewContext(context.Background(), ic.TriggerID, modal())
		opened <- err
		return ""
	})
	if _, err := f.Click(t.Context(), alice, channel, ts, "approve"); err != nil {
		t.Fatal(err)
	}
	if err := <-opened; err != nil {
		t.Fatal(err)
	}
	v, ok := f.OpenView(alice)
	if !ok {
		t.Fatal("no view is open")
	}
	return v.ID
}

func filled() slack.Values {
	return slack.Values{"reason": {"stolen, seen by two"}, "number": {"42"}, "b-hours/hours": {"4h"}, "also": {"page"}}
}

// slackError is the code that Slack would have answered, or "" for nil.
func slackError(err error) string {
	if err == nil {
		return ""
	}
	return strings.TrimSpace(err.Error())
}
