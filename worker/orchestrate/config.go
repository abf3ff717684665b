package main

import (
	"errors"
	"net"

	"tourniquet.dev/tourniquet/worker/role"
)

// config is the file given by --config.
type config struct {
	role.Config `yaml:",inline"`
	Codec       codec `yaml:"codec,omitempty"`
}

// codec serves decoded payloads to the Web UI's origins, on a loopback address.
type codec struct {
	Listen  string   `yaml:"listen"`
	Origins []string `yaml:"origins"`
}

// Validate reports what of this role's own settings is not what it must be.
func (c *config) Validate() error {
	if c.Playbooks == "" {
		return errors.New("playbooks: is missing")
	}
	if c.Codec.Listen == "" {
		return nil
	}
	host, _, err := net.SplitHostPort(c.Codec.Listen)
	if err != nil || !net.ParseIP(host).IsLoopback() {
		return errors.New("codec.listen: must be a loopback address: it decrypts payloads")
	}
	return nil
}
