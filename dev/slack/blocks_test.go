package slack_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	client "github.com/slack-go/slack"

	"tourniquet.dev/tourniquet/dev/slack"
)

func repeat(n int, item string) string {
	return strings.TrimSuffix(strings.Repeat(item+",", n), ",")
}

func button(field string) string {
	return `{"type":"actions","elements":[{"type":"button","text":{"type":"plain_text","text":"x"}` + field + `}]}`
}

func TestBlocksAreCheckedAsSlackDoes(t *testing.T) {
	f := newFixture(t)
	words := func(n int) string { return strings.Repeat("x", n) }
	section := func(n int) string { return `{"type":"section","text":{"type":"mrkdwn","text":"` + words(n) + `"}}` }
	header := func(n int) string { return `{"type":"header","text":{"type":"plain_text","text":"` + words(n) + `"}}` }
	confirm := func(title, text int) string {
		p := func(n int) string { return `{"type":"plain_text","text":"` + words(n) + `"}` }
		return fmt.Sprintf(`,"confirm":{"title":%s,"text":%s,"confirm":%s,"deny":%s}`, p(title), p(text), p(30), p(30))
	}
	for name, tc := range map[string]struct{ blocks, code, says string }{
		"50 blocks":               {repeat(50, `{"type":"divider"}`), "", ""},
		"51 blocks":               {repeat(51, `{"type":"divider"}`), "invalid_blocks", "no more than 50 items allowed [json-pointer:/blocks]"},
		"section of 3000":         {section(3000), "", ""},
		"section of 3001":         {section(3001), "invalid_blocks", "must be less than 3001 characters [json-pointer:/blocks/0/text/text]"},
		"empty section":           {section(0), "invalid_blocks", "must be more than 0 characters [json-pointer:/blocks/0/text/text]"},
		"section without text":    {`{"type":"section"}`, "invalid_blocks", "must define either `text` or `fields` [json-pointer:/blocks/0]"},
		"all text together":       {repeat(4, section(2900)), "msg_blocks_too_long", ""},
		"header of 150":           {header(150), "", ""},
		"header of 151":           {header(151), "invalid_blocks", "must be less than 151 characters [json-pointer:/blocks/0/text/text]"},
		"header in mrkdwn":        {`{"type":"header","text":{"type":"mrkdwn","text":"x"}}`, "invalid_blocks", "unsupported type: mrkdwn [json-pointer:/blocks/0/text/type]"},
		"11 fields":               {`{"type":"section","fields":[` + repeat(11, `{"type":"mrkdwn","text":"x"}`) + `]}`, "invalid_blocks", "no more than 10 items allowed [json-pointer:/blocks/0/fields]"},
		"25 elements":             {`{"type":"actions","elements":[` + repeat(25, `{"type":"button","text":{"type":"plain_text","text":"x"}}`) + `]}`, "", ""},
		"26 elements":             {`{"type":"actions","elements":[` + repeat(26, `{"type":"button","text":{"type":"plain_text","text":"x"}}`) + `]}`, "invalid_blocks", "no more than 25 items allowed [json-pointer:/blocks/0/elements]"},
		"button text of 76":       {`{"type":"actions","elements":[{"type":"button","text":{"type":"plain_text","text":"` + words(76) + `"}}]}`, "invalid_blocks", "must be less than 76 characters [json-pointer:/blocks/0/elements/0/text/text]"},
		"value of 2000":           {button(`,"value":"` + words(2000) + `"`), "", ""},
		"value of 2001":           {button(`,"value":"` + words(2001) + `"`), "invalid_blocks", "must be less than 2001 characters [json-pointer:/blocks/0/elements/0/value]"},
		"action_id of 256":        {button(`,"action_id":"` + words(256) + `"`), "invalid_blocks", "must be less than 256 characters [json-pointer:/blocks/0/elements/0/action_id]"},
		"url of 3001":             {button(`,"url":"` + words(3001) + `"`), "invalid_blocks", "must be less than 3001 characters [json-pointer:/blocks/0/elements/0/url]"},
		"style of its own":        {button(`,"style":"blue"`), "invalid_blocks", "value not allowed [json-pointer:/blocks/0/elements/0/style]"},
		"confirm at its limits":   {button(confirm(100, 300)), "", ""},
		"confirm title of 101":    {button(confirm(101, 300)), "invalid_blocks", "must be less than 101 characters [json-pointer:/blocks/0/elements/0/confirm/title/text]"},
		"confirm text of 301":     {button(confirm(100, 301)), "invalid_blocks", "must be less than 301 characters [json-pointer:/blocks/0/elements/0/confirm/text/text]"},
		"block_id twice":          {repeat(2, `{"type":"divider","block_id":"a"}`), "invalid_blocks", "`block_id` \"a\" already exists [json-pointer:/blocks/1/block_id]"},
		"action_id twice":         {`{"type":"actions","elements":[` + repeat(2, `{"type":"button","action_id":"a","text":{"type":"plain_text","text":"x"}}`) + `]}`, "invalid_blocks", "`action_id` \"a\" already exists [json-pointer:/blocks/0]"},
		"a property of its own":   {`{"type":"divider","color":"red"}`, "invalid_blocks", "invalid additional property: color [json-pointer:/blocks/0]"},
		"a type of its own":       {`{"type":"banner"}`, "invalid_blocks", "unsupported type: banner [json-pointer:/blocks/0/type]"},
		"an input":                {`{"type":"input","label":{"type":"plain_text","text":"x"},"element":{"type":"plain_text_input"}}`, "invalid_blocks", "unsupported type: input [json-pointer:/blocks/0/type]"},
		"picture with two homes":  {`{"type":"image","alt_text":"x","image_url":"https://x.test/a","slack_file":{"id":"F1"}}`, "invalid_blocks", "must define either `image_url` or `slack_file` [json-pointer:/blocks/0]"},
		"picture without alt":     {`{"type":"image","image_url":"https://x.test/a"}`, "invalid_blocks", "missing required field: alt_text [json-pointer:/blocks/0]"},
		"script as picture":       {`{"type":"image","alt_text":"x","image_url":"javascript:x"}`, "invalid_blocks", "must be a valid URL [json-pointer:/blocks/0/image_url]"},
		"rich text":               {`{"type":"rich_text","elements":[{"type":"rich_text_preformatted","elements":[{"type":"text","text":"<!channel>"}]}]}`, "", ""},
		"rich text without parts": {`{"type":"rich_text","elements":[]}`, "invalid_blocks", "no fewer than 1 items allowed [json-pointer:/blocks/0/elements]"},
		"11 in context":           {`{"type":"context","elements":[` + repeat(11, `{"type":"mrkdwn","text":"x"}`) + `]}`, "invalid_blocks", "no more than 10 items allowed [json-pointer:/blocks/0/elements]"},
		"not blocks":              {`1`, "invalid_blocks", "unsupported type:  [json-pointer:/blocks/0/type]"},
		"not JSON":                {`{`, "invalid_blocks_format", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := postRaw(t, f.Server, "["+tc.blocks+"]")
			if got.Error != tc.code || got.OK != (tc.code == "") {
				t.Fatalf("%q, want %q (%q)", got.Error, tc.code, got.Errors)
			}
			if tc.says != "" {
				if len(got.Errors) == 0 || got.Errors[0] != tc.says || got.Metadata.Messages[0] != "[ERROR] "+tc.says {
					t.Errorf("says %q\nwant %q", got.Errors, tc.says)
				}
			}
		})
	}
}

type answer struct {
	OK       bool     `json:"ok"`
	Error    string   `json:"error"`
	Errors   []string `json:"errors"`
	TS       string   `json:"ts"`
	Metadata struct {
		Messages []string `json:"messages"`
	} `json:"response_metadata"`
}

func postRaw(t *testing.T, s *slack.Server, blocks string) answer {
	t.Helper()
	form := url.Values{"token": {botToken}, "channel": {channel}, "blocks": {blocks}}
	req := httptest.NewRequestWithContext(context.Background(), http.MethodPost, "/api/chat.postMessage", strings.NewReader(form.Encode()))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, req)
	var a answer
	if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
		t.Fatal(err)
	}
	return a
}

func TestRefusalOfBlocksReachesTheClient(t *testing.T) {
	f := newFixture(t)
	_, _, err := f.api.PostMessage(channel, client.MsgOptionBlocks(client.NewHeaderBlock(plain(strings.Repeat("x", 151)))))
	var e client.SlackErrorResponse
	if !errors.As(err, &e) || e.Err != "invalid_blocks" || len(e.ResponseMetadata.Messages) != 1 {
		t.Errorf("%+v", err)
	}
}

func TestIDsAreFilledIn(t *testing.T) {
	f := newFixture(t)
	if a := postRaw(t, f.Server, "["+button("")+`,{"type":"divider"}]`); !a.OK {
		t.Fatal(a)
	}
	var blocks []struct {
		ID       string `json:"block_id"`
		Elements []struct {
			ID string `json:"action_id"`
		} `json:"elements"`
	}
	if err := json.Unmarshal(f.Messages(channel)[0].Blocks, &blocks); err != nil {
		t.Fatal(err)
	}
	if blocks[0].ID == "" || blocks[1].ID == "" || blocks[0].ID == blocks[1].ID || blocks[0].Elements[0].ID == "" {
		t.Errorf("%+v", blocks)
	}
}

func TestViewsAreCheckedAsSlackDoes(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*client.ModalViewRequest)
		says   string
	}{
		"title of 25":        {func(v *client.ModalViewRequest) { v.Title = plain(strings.Repeat("x", 25)) }, "must be less than 25 characters [json-pointer:/view/title/text]"},
		"no title":           {func(v *client.ModalViewRequest) { v.Title = nil }, "missing required field: title [json-pointer:/view]"},
		"no submit":          {func(v *client.ModalViewRequest) { v.Submit = nil }, "`submit` is required when an `input` block is within the `blocks` array [json-pointer:/view]"},
		"metadata of 3001":   {func(v *client.ModalViewRequest) { v.PrivateMetadata = strings.Repeat("x", 3001) }, "must be less than 3001 characters [json-pointer:/view/private_metadata]"},
		"callback_id of 256": {func(v *client.ModalViewRequest) { v.CallbackID = strings.Repeat("x", 256) }, "must be less than 256 characters [json-pointer:/view/callback_id]"},
		"101 blocks": {func(v *client.ModalViewRequest) {
			for range 100 {
				v.Blocks.BlockSet = append(v.Blocks.BlockSet, client.NewDividerBlock())
			}
		}, "no more than 100 items allowed [json-pointer:/view/blocks]"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			ts := f.post(t)
			var trigger string
			f.answers(func(ic client.InteractionCallback) string { trigger = ic.TriggerID; return "" })
			if _, err := f.Click(t.Context(), alice, channel, ts, "approve"); err != nil {
				t.Fatal(err)
			}
			v := modal()
			tc.change(&v)
			_, err := f.api.OpenView(trigger, v)
			var e client.SlackErrorResponse
			if !errors.As(err, &e) || e.Err != "invalid_arguments" {
				t.Fatalf("%v", err)
			}
			if diff := cmp.Diff([]string{"[ERROR] " + tc.says}, e.ResponseMetadata.Messages); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// FuzzBlocks wants: no panic, and whatever is taken can be drawn, read back and clicked.
func FuzzBlocks(f *testing.F) {
	whole, err := json.Marshal(card())
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{string(whole), `[]`, `[null]`, `{"a":1}`, `[{"type":"section","fields":[{}]}]`, `[{"type":"actions","elements":[1]}]`,
		`[{"type":"image","alt_text":"a","slack_file":{"id":"F"}}]`, `[{"type":"rich_text","elements":[{"type":"rich_text_list","elements":[]}]}]`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, blocks string) {
		s := slack.New(slack.Options{BotToken: botToken, SigningSecret: signing})
		a := postRaw(t, s, blocks)
		if !a.OK {
			return
		}
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/page/state?channel="+channel, nil))
		if !json.Valid(w.Body.Bytes()) {
			t.Fatalf("the page's state is no JSON for %q", blocks)
		}
		_, err := s.Click(context.Background(), alice, channel, a.TS, "approve")
		if !errors.Is(err, slack.ErrImpossible) && !errors.Is(err, slack.ErrNotAcknowledged) {
			t.Fatalf("clicking: %v", err)
		}
	})
}
