package main

import (
	"errors"

	"tourniquet.dev/tourniquet/activities/aws"
	"tourniquet.dev/tourniquet/worker/role"
)

// config is the file given by --config.
type config struct {
	role.Config `yaml:",inline"`
	Key         string            `yaml:"key"`
	AWS         *awsConfig        `yaml:"aws,omitempty"`
	Kubernetes  *kubernetesConfig `yaml:"kubernetes,omitempty"`
}

type awsConfig struct {
	Endpoint            string   `yaml:"endpoint,omitempty"` // a stand-in's; empty in production
	Region              string   `yaml:"region"`
	Credentials         string   `yaml:"credentials"` // read-only ones
	Account             string   `yaml:"account"`
	QuarantinePolicyARN string   `yaml:"quarantine_policy_arn"`
	Mode                aws.Mode `yaml:"mode"`
}

type kubernetesConfig struct {
	Kubeconfig string `yaml:"kubeconfig"` // of the read-only account
	Cluster    string `yaml:"cluster"`
}

// Validate reports what of this role's own settings is not what it must be.
func (c *config) Validate() error {
	if c.Key == "" {
		return errors.New("key: is missing")
	}
	return nil
}
