// Package slack shows cards and messages in Slack through the official Web API. It renders nothing and decides nothing:
// package card says what is shown, and a click goes to starter/decide. Only the notify role uses it.
package slack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/slack-go/slack"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/internal/card"
	"tourniquet.dev/tourniquet/internal/sys/fault"
)

// eventType marks our messages' metadata, by which they are found again.
const eventType = "tourniquet_message"

// maxSearched bounds how many messages a search looks through.
const maxSearched = 600

// Options say which workspace to talk to.
type Options struct {
	// Token is the bot's: chat:write, and for the search after an unknown outcome channels:history and metadata.message:read.
	Token string
	// URL is the Web API's address, as in https://slack.com/api/; empty means Slack's own.
	URL string
	// Retries is how often a rate-limited call is repeated after the time that Slack names; then the activity is.
	Retries int
	Log     *slog.Logger
}

// Client is a messenger for one workspace. It is safe for concurrent use.
type Client struct {
	api *slack.Client
	log *slog.Logger
}

var _ activities.Messenger = (*Client)(nil)

// New returns a client. It makes no call yet.
func New(o Options) *Client {
	opts := []slack.Option{slack.OptionHTTPClient(&http.Client{Timeout: 30 * time.Second}), slack.OptionRetry(o.Retries)}
	if o.URL != "" {
		opts = append(opts, slack.OptionAPIURL(strings.TrimSuffix(o.URL, "/")+"/"))
	}
	return &Client{api: slack.New(o.Token, opts...), log: o.Log}
}

// PostCard posts the card with this name, or with search takes the one that stands already.
func (c *Client) PostCard(ctx context.Context, channel, name string, m card.Message, search bool) (activities.Place, error) {
	return c.post(ctx, activities.Place{Channel: channel}, name, m, search)
}

// PostThread posts below a card, or into the channel where there is none.
func (c *Client) PostThread(ctx context.Context, below activities.Place, name string, m card.Message, search bool) (activities.Place, error) {
	return c.post(ctx, below, name, m, search)
}

// UpdateCard replaces what the card shows, metadata included.
func (c *Client) UpdateCard(ctx context.Context, at activities.Place, name string, m card.Message) error {
	opts, err := content(name, m)
	if err != nil {
		return err
	}
	fault.Point("card.update/before")
	if _, _, _, err := c.api.UpdateMessageContext(ctx, at.Channel, at.TS, opts...); err != nil {
		return outcome("update message", err)
	}
	fault.Point("card.update/after")
	return nil
}

// post is not repeated blindly: chat.postMessage has no idempotency key, so after an unknown outcome the channel or
// thread is searched for the name first. Where the search is not allowed, showing something twice is the lesser evil.
func (c *Client) post(ctx context.Context, below activities.Place, name string, m card.Message, search bool) (activities.Place, error) {
	if search {
		ts, err := c.find(ctx, below, name)
		switch {
		case err != nil:
			c.log.Warn("cannot search for an earlier message", "name", name, "err", err)
		case ts != "":
			return activities.Place{Channel: below.Channel, TS: ts}, nil
		}
	}
	opts, err := content(name, m)
	if err != nil {
		return activities.Place{}, err
	}
	if below.TS != "" {
		opts = append(opts, slack.MsgOptionTS(below.TS))
	}
	fault.Point("card.post/before")
	channel, ts, err := c.api.PostMessageContext(ctx, below.Channel, opts...)
	if err != nil {
		return activities.Place{}, outcome("post message", err)
	}
	fault.Point("card.post/after")
	return activities.Place{Channel: channel, TS: ts}, nil
}

// content is a message's text, blocks and name, with everything off that would read text as markup.
func content(name string, m card.Message) ([]slack.MsgOption, error) {
	var raws []json.RawMessage
	if err := json.Unmarshal(m.Blocks, &raws); err != nil {
		return nil, fmt.Errorf("blocks: %w: %w", err, activities.ErrRefused)
	}
	blocks := make([]slack.Block, len(raws))
	for i, raw := range raws {
		b, err := slack.BlockFromJSON(string(raw)) // keeps our bytes, where the library's types would not
		if err != nil {
			return nil, fmt.Errorf("block %d: %w: %w", i, err, activities.ErrRefused)
		}
		blocks[i] = b
	}
	return []slack.MsgOption{slack.MsgOptionText(m.Text, false), slack.MsgOptionBlocks(blocks...),
		slack.MsgOptionDisableMarkdown(), slack.MsgOptionParse(false), slack.MsgOptionLinkNames(false),
		slack.MsgOptionDisableLinkUnfurl(), slack.MsgOptionDisableMediaUnfurl(),
		slack.MsgOptionMetadata(slack.SlackMetadata{EventType: eventType, EventPayload: map[string]any{"name": name}})}, nil
}

// find looks for our message with this name, in the thread below a card or among the channel's newest messages.
func (c *Client) find(ctx context.Context, below activities.Place, name string) (string, error) {
	cursor := ""
	for seen := 0; seen < maxSearched; {
		messages, next, err := c.page(ctx, below, cursor)
		if err != nil {
			return "", err
		}
		for _, m := range messages {
			if m.Metadata.EventType == eventType && m.Metadata.EventPayload["name"] == name {
				return m.Timestamp, nil
			}
		}
		if seen, cursor = seen+max(len(messages), 1), next; cursor == "" {
			break
		}
	}
	return "", nil
}

func (c *Client) page(ctx context.Context, below activities.Place, cursor string) ([]slack.Message, string, error) {
	if below.TS != "" {
		messages, _, next, err := c.api.GetConversationRepliesContext(ctx, &slack.GetConversationRepliesParameters{
			ChannelID: below.Channel, Timestamp: below.TS, Cursor: cursor, Limit: 200, IncludeAllMetadata: true})
		return messages, next, err
	}
	h, err := c.api.GetConversationHistoryContext(ctx, &slack.GetConversationHistoryParameters{
		ChannelID: below.Channel, Cursor: cursor, Limit: 200, IncludeAllMetadata: true})
	if err != nil {
		return nil, "", err
	}
	return h.Messages, h.ResponseMetaData.NextCursor, nil
}

// outcome tells apart what will never work, what is gone, and what may work later.
func outcome(what string, err error) error {
	var answer slack.SlackErrorResponse
	if !errors.As(err, &answer) {
		return fmt.Errorf("%s: %w", what, err)
	}
	switch answer.Err {
	case "message_not_found", "thread_not_found", "cant_update_message":
		return fmt.Errorf("%s: %s: %w", what, answer.Err, activities.ErrConflict)
	case "invalid_blocks", "invalid_blocks_format", "msg_blocks_too_long", "msg_too_long", "no_text", "invalid_metadata_format", "metadata_too_large":
		return fmt.Errorf("%s: %s %q: %w", what, answer.Err, answer.ResponseMetadata.Messages, activities.ErrRefused)
	}
	return fmt.Errorf("%s: %w", what, err)
}
