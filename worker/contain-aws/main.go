// Command contain-aws is the enforcer of one AWS account: it judges each step itself, records it, and only then acts.
// It has no inbound port. It proves at start and before each effect that it stands in the account of its configuration.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"go.temporal.io/sdk/worker"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/activities/aws"
	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/trust"
	"tourniquet.dev/tourniquet/worker/role"
	"tourniquet.dev/tourniquet/workflows"
)

// config is the file given by --config.
type config struct {
	role.Config `yaml:",inline"`
	Key         string `yaml:"key"`
	Journal     string `yaml:"journal"`
	AWS         struct {
		Endpoint            string   `yaml:"endpoint,omitempty"` // a stand-in's; empty in production
		Region              string   `yaml:"region"`
		Credentials         string   `yaml:"credentials"`
		Account             string   `yaml:"account"`
		QuarantinePolicyARN string   `yaml:"quarantine_policy_arn"`
		Mode                aws.Mode `yaml:"mode"`
	} `yaml:"aws"`
}

// Validate reports what of this role's own settings is not what it must be.
func (c *config) Validate() error {
	if c.Playbooks == "" || c.Key == "" || c.Journal == "" {
		return errors.New("playbooks, key, journal: are needed")
	}
	return c.options().Validate()
}

func (c *config) options() aws.Options {
	return aws.Options{Endpoint: c.AWS.Endpoint, Region: c.AWS.Region, Credentials: c.AWS.Credentials, Account: c.AWS.Account,
		QuarantinePolicyARN: c.AWS.QuarantinePolicyARN, Mode: c.AWS.Mode}
}

func main() {
	c := &config{}
	w := role.Worker{Name: "contain-aws", Settings: c, Common: &c.Config, Start: c.start}
	os.Exit(w.Run(os.Args[1:], os.Stdout, os.Stderr))
}

func (c *config) start(ctx context.Context, e *role.Env) ([]worker.Worker, map[string]any, func() error, error) {
	system, err := aws.New(c.options())
	if err != nil {
		return nil, nil, nil, fmt.Errorf("aws: %w", err)
	}
	f := role.Enforcer{Role: trust.RoleContainAWS, Queue: workflows.QueueContainAWS, Key: c.Key, Journal: c.Journal, Standing: c.AWS.Account, Prove: system.Prove,
		Actions: func(*authz.Signer) map[plan.Action]activities.Action { return system.Actions() }}
	workers, done, err := f.Start(ctx, e)
	return workers, map[string]any{"account": c.AWS.Account}, done, err
}
