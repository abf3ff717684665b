// Command notify shows cards in Slack and calls people. It has the Slack bot token, the key that seals the buttons'
// tokens, and the read side of the store; no key of its own, no cloud and no cluster. It decides nothing: when it or
// Slack is down, timers and escalation go on.
package main

import (
	"context"
	"os"
	"time"

	"go.temporal.io/sdk/worker"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/activities/slack"
	"tourniquet.dev/tourniquet/internal/sys/keys"
	"tourniquet.dev/tourniquet/worker/role"
	"tourniquet.dev/tourniquet/workflows"
)

// retries is how often a rate-limited call is repeated at once; then the activity is, with a new state to show.
const retries = 2

func main() {
	c := &config{TokenLife: 24 * time.Hour}
	w := role.Worker{Name: "notify", Settings: c, Common: &c.Config, Start: c.start}
	os.Exit(w.Run(os.Args[1:], os.Stdout, os.Stderr))
}

func (c *config) start(_ context.Context, e *role.Env) ([]worker.Worker, map[string]any, func() error, error) {
	blobs, err := e.Reader()
	if err != nil {
		return nil, nil, nil, err
	}
	token, err := keys.LoadText(c.Slack.BotToken)
	if err != nil {
		return nil, nil, nil, err
	}
	key, err := keys.LoadSecret(c.TokenKey)
	if err != nil {
		return nil, nil, nil, err
	}
	messenger := slack.New(slack.Options{Token: token, URL: c.Slack.URL, Retries: retries, Log: e.Log})
	w := e.Worker(workflows.QueueNotify)
	w.RegisterActivity(activities.NewNotification(activities.NotificationOptions{Messenger: messenger, Store: blobs, Channel: c.Slack.Channel,
		Mentions: c.Slack.Mentions, TokenKey: key, TokenLife: c.TokenLife, Now: time.Now, Log: e.Log}))
	return []worker.Worker{w}, nil, nil, nil
}
