package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"tourniquet.dev/tourniquet/dev/slack"
	"tourniquet.dev/tourniquet/dev/stack"
	"tourniquet.dev/tourniquet/internal/card"
)

// finger presses buttons on the Slack stand-in as a person would: the stand-in signs the callbacks, decide answers.
type finger struct {
	url  string // of the stand-in, with a slash at its end
	user string
}

// button is a button that stands on a card.
type button struct{ channel, ts, block, action string }

// buttons returns the buttons with an action that stand on cards, the newest card first.
func (f finger) buttons(ctx context.Context, action string) ([]button, error) {
	var messages []slack.Message
	if err := f.call(ctx, http.MethodGet, "admin/messages?channel="+stack.Channel, nil, &messages); err != nil {
		return nil, err
	}
	var out []button
	for _, m := range slices.Backward(messages) {
		var blocks []struct {
			ID       string `json:"block_id"`
			Elements []struct {
				Action string `json:"action_id"`
			} `json:"elements"`
		}
		if json.Unmarshal(m.Blocks, &blocks) != nil {
			continue // a message of other blocks
		}
		for _, b := range blocks {
			for _, e := range b.Elements {
				if e.Action == action {
					out = append(out, button{m.Channel, m.TS, b.ID, action})
				}
			}
		}
	}
	return out, nil
}

// await waits for exactly n such buttons: the card follows the incident a moment later.
func (f finger) await(ctx context.Context, action string, n int) (button, error) {
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		all, err := f.buttons(ctx, action)
		switch {
		case err != nil:
			return button{}, err
		case len(all) == n:
			return all[0], nil
		case time.Now().After(deadline):
			return button{}, fmt.Errorf("wait for button %s: cards have %d of it, want %d", action, len(all), n)
		}
	}
}

// press clicks a button, waits for the modal that decide opens, and submits it. It returns when the modal was submitted.
func (f finger) press(ctx context.Context, b button, reason string) (submitted time.Time, err error) {
	click := slack.Interaction{User: f.user, Channel: b.channel, TS: b.ts, BlockID: b.block, ActionID: b.action}
	var back slack.Callback
	if err := f.call(ctx, http.MethodPost, "admin/click", click, &back); err != nil {
		return submitted, err
	}
	if !back.Acked {
		return submitted, fmt.Errorf("press %s: %s", b.action, back.Problem)
	}
	view, err := f.modal(ctx)
	if err != nil {
		return submitted, err
	}
	submitted = time.Now()
	submit := slack.Interaction{User: f.user, View: view, Values: slack.Values{card.InputReason: {reason}}}
	if err := f.call(ctx, http.MethodPost, "admin/submit", submit, &back); err != nil {
		return submitted, err
	}
	if !back.Acked {
		return submitted, fmt.Errorf("submit %s: %s", b.action, back.Problem)
	}
	if answer := back.Deliveries[0].Answer; strings.Contains(answer, `"errors"`) {
		return submitted, fmt.Errorf("submit %s: decide refused: %s", b.action, answer)
	}
	return submitted, nil
}

// modal waits for the modal that the user has open.
func (f finger) modal(ctx context.Context) (string, error) {
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		var views []slack.View
		if err := f.call(ctx, http.MethodGet, "admin/views", nil, &views); err != nil {
			return "", err
		}
		for _, v := range views {
			if v.Open && v.User == f.user {
				return v.ID, nil
			}
		}
	}
	var told []slack.Ephemeral
	_ = f.call(ctx, http.MethodGet, "admin/ephemerals?user="+f.user, nil, &told) // only for the error's words
	if len(told) > 0 {
		return "", fmt.Errorf("decide opened no modal: it said %q", told[len(told)-1].Text)
	}
	return "", errors.New("decide opened no modal")
}

func (f finger) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(data)
	}
	r, err := http.NewRequestWithContext(ctx, method, f.url+path, body)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return fmt.Errorf("ask the Slack stand-in: %w", err)
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		return fmt.Errorf("ask the Slack stand-in for %s: %s %.300s: %w", path, answer.Status, data, errors.Join(err, errors.New("refused")))
	}
	return json.Unmarshal(data, out)
}
