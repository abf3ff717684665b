package slack_test

import (
	"bytes"
	"context"
	"errors"
	"image"
	"image/png"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	client "github.com/slack-go/slack"

	"tourniquet.dev/tourniquet/dev/slack"
)

func TestUnmodifiedClientPostsUpdatesAndReadsBack(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	who, err := f.api.AuthTestContext(ctx)
	if err != nil || who.TeamID != "T0STANDIN00" || who.UserID == "" || who.BotID == "" {
		t.Fatalf("auth.test = %+v, %v", who, err)
	}
	_, ts, err := f.api.PostMessageContext(ctx, "#incidents", client.MsgOptionText("first <words>", false), client.MsgOptionBlocks(card()...),
		client.MsgOptionMetadata(client.SlackMetadata{EventType: "approval", EventPayload: map[string]any{"id": "a-1"}}))
	if err != nil {
		t.Fatal(err)
	}
	if _, reply, err := f.api.PostMessageContext(ctx, channel, client.MsgOptionText("reminder", false), client.MsgOptionTS(ts)); err != nil || reply <= ts {
		t.Fatalf("reply ts %q after %q, %v", reply, ts, err)
	}
	if _, _, _, err := f.api.UpdateMessageContext(ctx, channel, ts, client.MsgOptionText("approved", false), client.MsgOptionBlocks(card()[:1]...)); err != nil {
		t.Fatal(err)
	}
	link, err := f.api.GetPermalinkContext(ctx, &client.PermalinkParameters{Channel: channel, Ts: ts})
	if err != nil || link != f.url+"/archives/"+channel+"/p"+strings.Replace(ts, ".", "", 1) {
		t.Errorf("permalink %q, %v", link, err)
	}
	thread, _, _, err := f.api.GetConversationRepliesContext(ctx, &client.GetConversationRepliesParameters{ChannelID: channel, Timestamp: ts})
	if err != nil || len(thread) != 2 || thread[0].Text != "approved" || len(thread[0].Blocks.BlockSet) != 1 || thread[0].ReplyCount != 1 || thread[0].Edited == nil {
		t.Errorf("thread = %+v, %v", thread, err)
	}
	page, err := f.api.GetConversationHistoryContext(ctx, &client.GetConversationHistoryParameters{ChannelID: channel, IncludeAllMetadata: true, Oldest: ts, Inclusive: true})
	if err != nil || len(page.Messages) != 1 || page.Messages[0].Metadata.EventPayload["id"] != "a-1" {
		t.Errorf("history with metadata = %+v, %v", page, err)
	}
	params := &client.GetConversationHistoryParameters{ChannelID: channel}
	if page, err := f.api.GetConversationHistoryContext(ctx, params); err != nil || len(page.Messages) != 1 || page.Messages[0].Metadata.EventType != "" {
		t.Errorf("history without metadata = %+v, %v", page, err)
	}
	if _, err := f.api.PostEphemeralContext(ctx, channel, alice, client.MsgOptionText("refused: expired", false)); err != nil {
		t.Error(err)
	}
	if got := f.Ephemerals(alice); len(got) != 1 || got[0].Text != "refused: expired" || len(f.Ephemerals(boris)) != 0 {
		t.Errorf("ephemerals = %+v", got)
	}
	dm, _, _, err := f.api.OpenConversationContext(ctx, &client.OpenConversationParameters{Users: []string{alice}})
	if err != nil {
		t.Fatal(err)
	}
	if got, _, err := f.api.PostMessageContext(ctx, alice, client.MsgOptionText("for you", false)); err != nil || got != dm.ID {
		t.Errorf("direct message went to %q, want %q, %v", got, dm.ID, err)
	}
}

func TestHistoryPagesThroughAllMessages(t *testing.T) {
	f := newFixture(t)
	for range 5 {
		f.post(t)
	}
	var seen []string
	params := &client.GetConversationHistoryParameters{ChannelID: channel, Limit: 2}
	for {
		page, err := f.api.GetConversationHistoryContext(t.Context(), params)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range page.Messages {
			seen = append(seen, m.Timestamp)
		}
		if !page.HasMore {
			break
		}
		params.Cursor = page.ResponseMetaData.NextCursor
	}
	var want []string
	for _, m := range f.Messages(channel) {
		want = append([]string{m.TS}, want...)
	}
	if diff := cmp.Diff(want, seen); diff != "" {
		t.Error(diff)
	}
}

func TestUsersShowWhoMayNotDecide(t *testing.T) {
	f := newFixture(t)
	for id, want := range map[string][5]bool{ // deleted, bot, restricted, stranger, known
		alice:         {false, false, false, false, true},
		"U0GUEST0000": {false, false, true, false, true},
		"U0GONE00000": {true, false, false, false, true},
		"U0ROBOT0000": {false, true, false, false, true},
		"U0STRANGE00": {false, false, false, true, true},
		"U0NOBODY000": {},
	} {
		u, err := f.api.GetUserInfoContext(t.Context(), id)
		got := [5]bool{}
		if err == nil {
			got = [5]bool{u.Deleted, u.IsBot, u.IsRestricted, u.IsStranger && u.TeamID != "T0STANDIN00", true}
		} else if slackError(err) != "user_not_found" {
			t.Errorf("users.info %s: %v", id, err)
		}
		if got != want {
			t.Errorf("users.info %s = %v, want %v", id, got, want)
		}
	}
	u, err := f.api.GetUserByEmailContext(t.Context(), "Alice@example.test")
	if err != nil || u.ID != alice {
		t.Errorf("lookupByEmail = %+v, %v", u, err)
	}
	if _, err := f.api.GetUserByEmailContext(t.Context(), "olga@example.test"); slackError(err) != "users_not_found" {
		t.Errorf("lookupByEmail of a deleted user: %v", err)
	}
	members, err := f.api.GetUserGroupMembersContext(t.Context(), "S0ONCALL000")
	if diff := cmp.Diff([]string{alice, boris}, members); diff != "" || err != nil {
		t.Error(diff, err)
	}
	f.SetUserGroup(slack.UserGroup{ID: "S0ONCALL000", Users: []string{boris}})
	f.SetUser(slack.User{ID: alice, Name: "alice", Deleted: true})
	members, _ = f.api.GetUserGroupMembersContext(t.Context(), "S0ONCALL000")
	if u, err := f.api.GetUserInfoContext(t.Context(), alice); err != nil || !u.Deleted || len(members) != 1 {
		t.Errorf("after the change: %+v, %v, %v", u, members, err)
	}
}

func TestRefusalsAreSlacks(t *testing.T) {
	f := newFixture(t)
	ts := f.post(t)
	text := client.MsgOptionText("x", false)
	stranger := client.New("xoxb-other", client.OptionAPIURL(f.url+"/api/"))
	nobody := client.New("", client.OptionAPIURL(f.url+"/api/"))
	post := func(api *client.Client, where string, o ...client.MsgOption) error {
		_, _, err := api.PostMessageContext(t.Context(), where, o...)
		return err
	}
	for name, tc := range map[string]struct {
		err  error
		want string
	}{
		"unknown token":              {post(stranger, channel, text), "invalid_auth"},
		"no token":                   {post(nobody, channel, text), "not_authed"},
		"channel without the app":    {post(f.api, "C0RANDOM000", text), "not_in_channel"},
		"unknown channel":            {post(f.api, "C0NOWHERE00", text), "channel_not_found"},
		"neither text nor blocks":    {post(f.api, channel), "no_text"},
		"text too long":              {post(f.api, channel, client.MsgOptionText(strings.Repeat("x", 40001), false)), "msg_too_long"},
		"thread of nothing":          {post(f.api, channel, text, client.MsgOptionTS("1.000000")), "thread_not_found"},
		"legacy attachments":         {post(f.api, channel, text, client.MsgOptionAttachments(client.Attachment{Text: "x"})), "invalid_attachments"},
		"update of no message":       {third(f.api.UpdateMessage(channel, "1.000000", text)), "message_not_found"},
		"update with nothing":        {third(f.api.UpdateMessage(channel, ts)), "no_text"},
		"permalink of no message":    {second(f.api.GetPermalink(&client.PermalinkParameters{Channel: channel, Ts: "1.0"})), "message_not_found"},
		"ephemeral to a deleted one": {second(f.api.PostEphemeral(channel, "U0GONE00000", text)), "user_not_in_channel"},
		"conversation with a bot":    {open(f.api, "U0ROBOT0000"), "cannot_dm_bot"},
		"conversation with nobody":   {open(f.api, "U0NOBODY000"), "user_not_found"},
		"conversation with a leaver": {open(f.api, "U0GONE00000"), "user_disabled"},
		"unknown group":              {second(f.api.GetUserGroupMembers("S0NONE00000")), "no_such_subteam"},
		"method it does not know":    {second(f.api.GetTeamInfo()), "unknown_method"},
		"view without a trigger":     {second(f.api.OpenView("1.2.bad", modal())), "invalid_trigger_id"},
		"update of no view":          {second(f.api.UpdateView(modal(), "", "", "V0NONE")), "not_found"},
	} {
		if got := slackError(tc.err); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

func second[T any](_ T, err error) error                { return err }
func third[A, B, C any](_ A, _ B, _ C, err error) error { return err }

func open(api *client.Client, user string) error {
	_, _, _, err := api.OpenConversation(&client.OpenConversationParameters{Users: []string{user}})
	return err
}

func TestTokenInTheQueryIsNoToken(t *testing.T) {
	f := newFixture(t)
	for _, method := range []string{http.MethodPost, http.MethodGet} {
		w := httptest.NewRecorder()
		f.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, "/api/auth.test?token="+botToken, nil))
		if !strings.Contains(w.Body.String(), "not_authed") {
			t.Errorf("%s auth.test by query = %s", method, w.Body.String())
		}
	}
}

func TestMissingScopeIsRefused(t *testing.T) {
	f := newFixture(t, func(o *slack.Options) { o.Scopes = []string{"chat:write"} })
	f.post(t)
	var e client.SlackErrorResponse
	_, err := f.api.GetUserInfo(alice)
	if !errors.As(err, &e) || e.Err != "missing_scope" || e.Needed != "users:read" {
		t.Errorf("users.info without its scope: %v", err)
	}
}

func TestUploadedPictureShowsInABlock(t *testing.T) {
	f := newFixture(t)
	var picture bytes.Buffer
	if err := png.Encode(&picture, image.NewGray(image.Rect(0, 0, 8, 8))); err != nil {
		t.Fatal(err)
	}
	ts := f.post(t)
	shared, err := f.api.UploadFileContext(t.Context(), client.UploadFileParameters{
		Filename: "blast.png", Title: "Blast radius", AltTxt: "graph", FileSize: picture.Len(), Reader: bytes.NewReader(picture.Bytes()),
		Channel: channel, ThreadTimestamp: ts,
	})
	if err != nil {
		t.Fatal(err)
	}
	messages := f.Messages(channel)
	last := messages[len(messages)-1]
	if last.ThreadTS != ts || len(last.Files) != 1 || last.Files[0].ID != shared.ID || last.Files[0].Title != "Blast radius" {
		t.Errorf("shared as %+v", last)
	}
	block := client.NewImageBlockSlackFile(&client.SlackFileObject{ID: shared.ID}, "graph", "", plain("Blast radius"))
	if _, _, err := f.api.PostMessage(channel, client.MsgOptionText("x", false), client.MsgOptionBlocks(block)); err != nil {
		t.Error(err)
	}
	unknown := client.NewImageBlockSlackFile(&client.SlackFileObject{ID: "F0NONE"}, "graph", "", nil)
	if _, _, err := f.api.PostMessage(channel, client.MsgOptionText("x", false), client.MsgOptionBlocks(unknown)); slackError(err) != "invalid_blocks" {
		t.Errorf("picture of no file: %v", err)
	}
	var back bytes.Buffer
	if err := f.api.GetFile(f.Files()[0].URLPrivate, &back); err != nil || !bytes.Equal(back.Bytes(), picture.Bytes()) {
		t.Errorf("read back %d bytes, %v", back.Len(), err)
	}
	if err := client.New("xoxb-other", client.OptionAPIURL(f.url+"/api/")).GetFile(f.Files()[0].URLPrivate, &back); err == nil {
		t.Error("a stranger's token read the file")
	}
	if _, err := f.api.UploadFile(client.UploadFileParameters{Filename: "x", FileSize: 3, Content: "four"}); err == nil {
		t.Error("an upload of another length than announced was taken")
	}
}

func TestAPIFaults(t *testing.T) {
	f := newFixture(t)
	f.post(t)
	post := func() error {
		_, _, err := f.api.PostMessage(channel, client.MsgOptionText("under fault", false))
		return err
	}
	limited := func(err error) bool {
		var e *client.RateLimitedError
		return errors.As(err, &e) && e.RetryAfter == 7*time.Second
	}
	status := func(err error) bool { var e client.StatusCodeError; return errors.As(err, &e) && e.Code == 503 }
	for name, tc := range map[string]struct {
		fault  slack.Fault
		want   func(error) bool
		posted int
	}{
		"429":            {slack.Fault{Kind: slack.FaultRateLimited, RetryAfterSeconds: 7}, limited, 0},
		"5xx":            {slack.Fault{Kind: slack.FaultServerError}, status, 0},
		"200 ok:false":   {slack.Fault{Kind: slack.FaultRefused, Error: "fatal_error"}, func(err error) bool { return slackError(err) == "fatal_error" }, 0},
		"lying 200":      {slack.Fault{Kind: slack.FaultLost}, func(err error) bool { return err == nil }, 0},
		"no answer":      {slack.Fault{Kind: slack.FaultNoAnswer}, func(err error) bool { return err != nil }, 1},
		"another method": {slack.Fault{Kind: slack.FaultServerError, Method: "views.open"}, func(err error) bool { return err == nil }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			before := len(f.Messages(channel))
			tc.fault.Times = 1
			if tc.fault.Method == "" {
				tc.fault.Method = "chat.postMessage"
			}
			if err := f.AddFault(tc.fault); err != nil {
				t.Fatal(err)
			}
			defer f.ClearFaults()
			if err := post(); !tc.want(err) {
				t.Errorf("posting = %v", err)
			}
			if got := len(f.Messages(channel)) - before; got != tc.posted {
				t.Errorf("%d messages posted, want %d", got, tc.posted)
			}
			f.ClearFaults()
			if err := post(); err != nil {
				t.Errorf("after the fault: %v", err)
			}
		})
	}
	if err := f.AddFault(slack.Fault{Kind: "no-such"}); err == nil {
		t.Error("an unknown fault was taken")
	}
}

func TestOnePostASecondToAChannel(t *testing.T) {
	f := newFixture(t)
	if err := f.AddFault(slack.Fault{Kind: slack.FaultOnePerSecond}); err != nil {
		t.Fatal(err)
	}
	post := func() error { return second3(f.api.PostMessage(channel, client.MsgOptionText("x", false))) }
	if err := post(); err != nil {
		t.Fatal(err)
	}
	var limited *client.RateLimitedError
	if err := post(); !errors.As(err, &limited) {
		t.Errorf("second post within the second: %v", err)
	}
	f.advance(time.Second)
	if err := post(); err != nil {
		t.Errorf("a second later: %v", err)
	}
}

func second3[A, B any](_ A, _ B, err error) error { return err }

func TestRetryOptionObeysRetryAfter(t *testing.T) {
	f := newFixture(t)
	if err := f.AddFault(slack.Fault{Kind: slack.FaultRateLimited, Times: 1}); err != nil {
		t.Fatal(err)
	}
	api := client.New(botToken, client.OptionAPIURL(f.url+"/api/"), client.OptionRetry(2))
	if _, _, err := api.PostMessage(channel, client.MsgOptionText("x", false)); err != nil || len(f.Messages(channel)) != 1 {
		t.Errorf("retried: %v", err)
	}
}

func TestEverySentTextStaysReadableAndTheTokenDoesNot(t *testing.T) {
	f := newFixture(t)
	ts := f.post(t)
	_, _, _, err := f.api.UpdateMessage(channel, ts, client.MsgOptionText("canary-overwritten", false))
	if err != nil {
		t.Fatal(err)
	}
	_, _, _, _ = f.api.UpdateMessage(channel, ts, client.MsgOptionText("later", false))
	_, _, _ = f.api.PostMessage("C0NOWHERE00", client.MsgOptionText("canary-refused", false))
	f.openModal(t)
	for path, wants := range map[string][]string{
		"/admin/calls":    {"canary-overwritten", "canary-refused", "sha256:abc", "private_metadata"},
		"/admin/messages": {"later", "token-1"},
		"/admin/views":    {"sha256:abc"},
	} {
		body := get(t, f.url+path)
		for _, want := range wants {
			if !strings.Contains(body, want) {
				t.Errorf("%s does not show %q", path, want)
			}
		}
		if strings.Contains(body, botToken) {
			t.Errorf("%s shows the bot token", path)
		}
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var body bytes.Buffer
	if _, err := body.ReadFrom(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s, %v", url, resp.Status, err)
	}
	return body.String()
}

func TestAnotherSitesPageCannotClick(t *testing.T) {
	f := newFixture(t)
	ts := f.post(t)
	click := func(site string) int {
		body := `{"user":"` + alice + `","channel":"` + channel + `","ts":"` + ts + `","action_id":"approve"}`
		req := httptest.NewRequestWithContext(context.Background(), http.MethodPost, "/admin/click", strings.NewReader(body))
		req.Header.Set("Sec-Fetch-Site", site)
		w := httptest.NewRecorder()
		f.Handler().ServeHTTP(w, req)
		return w.Code
	}
	if got := click("cross-site"); got != http.StatusForbidden || len(f.Callbacks()) != 0 {
		t.Errorf("a click from another site: %d", got)
	}
	if got := click("same-origin"); got != http.StatusOK || len(f.Callbacks()) != 1 {
		t.Errorf("a click from our page: %d", got)
	}
}
