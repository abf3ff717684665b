package click

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/slack-go/slack"
)

// slackWorkspace is a Workspace behind Slack's Web API.
type slackWorkspace struct {
	api *slack.Client
}

// NewWorkspace returns the workspace behind a bot token (users:read, chat:write). url is the Web API's address; empty
// means Slack's own.
func NewWorkspace(token, url string) Workspace {
	opts := []slack.Option{slack.OptionHTTPClient(&http.Client{Timeout: 10 * time.Second})}
	if url != "" {
		opts = append(opts, slack.OptionAPIURL(strings.TrimSuffix(url, "/")+"/"))
	}
	return &slackWorkspace{api: slack.New(token, opts...)}
}

func (w *slackWorkspace) OpenView(ctx context.Context, trigger string, view json.RawMessage) error {
	v, err := request(view)
	if err != nil {
		return err
	}
	if _, err := w.api.OpenViewContext(ctx, trigger, v); err != nil {
		return fmt.Errorf("open view: %w", err)
	}
	return nil
}

func (w *slackWorkspace) UpdateView(ctx context.Context, viewID, hash string, view json.RawMessage) error {
	v, err := request(view)
	if err != nil {
		return err
	}
	if _, err := w.api.UpdateViewContext(ctx, v, "", hash, viewID); err != nil {
		return fmt.Errorf("update view: %w", err)
	}
	return nil
}

func (w *slackWorkspace) User(ctx context.Context, id string) (User, error) {
	u, err := w.api.GetUserInfoContext(ctx, id)
	if err != nil {
		return User{}, fmt.Errorf("read user: %w", err)
	}
	if u.ID != id {
		return User{}, fmt.Errorf("read user: asked for %.20q, got %.20q", id, u.ID)
	}
	return User{TeamID: u.TeamID, Deleted: u.Deleted, Bot: u.IsBot, Restricted: u.IsRestricted || u.IsUltraRestricted, Foreign: u.IsStranger}, nil
}

func (w *slackWorkspace) Tell(ctx context.Context, channel, user, text string) error {
	if _, err := w.api.PostEphemeralContext(ctx, channel, user, slack.MsgOptionText(text, true), slack.MsgOptionDisableMarkdown(), slack.MsgOptionDisableLinkUnfurl()); err != nil {
		return fmt.Errorf("post ephemeral: %w", err)
	}
	return nil
}

// request makes the library's view of ours, with the blocks as they are.
func request(raw json.RawMessage) (slack.ModalViewRequest, error) {
	var v struct {
		Type            slack.ViewType         `json:"type"`
		Title           *slack.TextBlockObject `json:"title"`
		Submit          *slack.TextBlockObject `json:"submit"`
		Close           *slack.TextBlockObject `json:"close"`
		Blocks          []json.RawMessage      `json:"blocks"`
		PrivateMetadata string                 `json:"private_metadata"`
		CallbackID      string                 `json:"callback_id"`
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		return slack.ModalViewRequest{}, fmt.Errorf("view: %w", err)
	}
	out := slack.ModalViewRequest{Type: v.Type, Title: v.Title, Submit: v.Submit, Close: v.Close, PrivateMetadata: v.PrivateMetadata, CallbackID: v.CallbackID}
	for _, b := range v.Blocks {
		block, err := slack.BlockFromJSON(string(b))
		if err != nil {
			return out, fmt.Errorf("view: %w", err)
		}
		out.Blocks.BlockSet = append(out.Blocks.BlockSet, block)
	}
	return out, nil
}
