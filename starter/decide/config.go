package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"tourniquet.dev/tourniquet/internal/strictyaml"
)

// config is decide's configuration file. Secrets are files, never values.
type config struct {
	// Listen takes Slack's interactions; Metrics, if not empty, serves /metrics and /healthz.
	Listen  string `yaml:"listen"`
	Metrics string `yaml:"metrics"`

	Slack    slackConfig    `yaml:"slack"`
	Temporal temporalConfig `yaml:"temporal"`

	Trust     string `yaml:"trust"`     // the trust file's envelope
	Root      string `yaml:"root"`      // the root's public key
	Playbooks string `yaml:"playbooks"` // folder of signed playbooks
	Key       string `yaml:"key"`       // decide's own key
	TokenKey  string `yaml:"token_key"` // shared with notify
	Journal   string `yaml:"journal"`   // folder of decide's ledger
	Ledger    string `yaml:"ledger"`    // the ledger's name, unique to this process
	Store     string `yaml:"store"`     // folder of the store, read only

	// DecisionLife is how long a decision holds until an enforcer has to act on it.
	DecisionLife time.Duration `yaml:"decision_life"`
}

type slackConfig struct {
	URL           string `yaml:"url"` // of the Web API; empty: Slack's own
	AppID         string `yaml:"app_id"`
	TeamID        string `yaml:"team_id"`
	EnterpriseID  string `yaml:"enterprise_id"`
	BotToken      string `yaml:"bot_token"`      // file
	SigningSecret string `yaml:"signing_secret"` // file
}

type temporalConfig struct {
	Address    string `yaml:"address"`
	Namespace  string `yaml:"namespace"`
	KeyRing    string `yaml:"key_ring"`
	Cert       string `yaml:"cert"`
	Key        string `yaml:"key"`
	CA         string `yaml:"ca"`
	ServerName string `yaml:"server_name"`
	APIKey     string `yaml:"api_key"`
}

func defaultConfig() config {
	return config{Listen: "127.0.0.1:8790", Ledger: "tourniquet/decide", DecisionLife: time.Hour, Temporal: temporalConfig{Namespace: "default"}}
}

func loadConfig(path string) (config, error) {
	c := defaultConfig()
	data, err := os.ReadFile(path) // #nosec G304 -- the operator's own file
	if err != nil {
		return c, fmt.Errorf("read configuration: %w", err)
	}
	if err := strictyaml.Decode(data, &c); err != nil {
		return c, fmt.Errorf("%s: %w", path, err)
	}
	if err := c.validate(); err != nil {
		return c, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// validate reports every problem at once.
func (c config) validate() error {
	var errs []error
	for at, v := range map[string]string{"slack.app_id": c.Slack.AppID, "slack.team_id": c.Slack.TeamID, "slack.bot_token": c.Slack.BotToken,
		"slack.signing_secret": c.Slack.SigningSecret, "temporal.address": c.Temporal.Address, "temporal.namespace": c.Temporal.Namespace,
		"temporal.key_ring": c.Temporal.KeyRing, "trust": c.Trust, "root": c.Root, "playbooks": c.Playbooks, "key": c.Key, "token_key": c.TokenKey,
		"journal": c.Journal, "ledger": c.Ledger, "store": c.Store} {
		if v == "" {
			errs = append(errs, fmt.Errorf("%s: is needed", at))
		}
	}
	for at, v := range map[string]string{"listen": c.Listen, "metrics": c.Metrics} {
		if _, _, err := net.SplitHostPort(v); err != nil && (v != "" || at == "listen") {
			errs = append(errs, fmt.Errorf("%s: %w", at, err))
		}
	}
	if c.DecisionLife < time.Minute || c.DecisionLife > 24*time.Hour {
		errs = append(errs, errors.New("decision_life: must be between a minute and a day"))
	}
	return errors.Join(errs...)
}
