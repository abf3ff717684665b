package main

import (
	"errors"
	"fmt"
	"regexp"
	"time"

	"tourniquet.dev/tourniquet/worker/role"
)

// config is the file given by --config. Secrets are files, never values.
type config struct {
	role.Config `yaml:",inline"`
	Slack       slackConfig `yaml:"slack"`
	// TokenKey is the file of the key that seals the buttons' tokens; decide has the same one.
	TokenKey string `yaml:"token_key"`
	// TokenLife is how long a card's buttons work.
	TokenLife time.Duration `yaml:"token_life"`
}

type slackConfig struct {
	URL      string `yaml:"url"`       // of the Web API; empty: Slack's own
	BotToken string `yaml:"bot_token"` // file
	// Channel is the id of the channel that takes cards.
	Channel string `yaml:"channel"`
	// Mentions are the Slack ids of the groups that playbooks ask: user groups (S…) or users (U…).
	Mentions map[string]string `yaml:"mentions"`
}

var mention = regexp.MustCompile(`^[SUW][A-Z0-9]{2,20}$`)

// Validate reports what of this role's own settings is not what it must be.
func (c *config) Validate() error {
	var errs []error
	for field, v := range map[string]string{"slack.bot_token": c.Slack.BotToken, "slack.channel": c.Slack.Channel, "token_key": c.TokenKey} {
		if v == "" {
			errs = append(errs, fmt.Errorf("%s: is missing", field))
		}
	}
	for group, id := range c.Slack.Mentions {
		if !mention.MatchString(id) {
			errs = append(errs, fmt.Errorf("slack.mentions.%.64s: %.40q is not the id of a user or user group", group, id))
		}
	}
	if c.TokenLife < time.Minute || c.TokenLife > 30*24*time.Hour {
		errs = append(errs, errors.New("token_life: must be between a minute and 30 days"))
	}
	return errors.Join(errs...)
}
