package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"tourniquet.dev/tourniquet/internal/identity"
	"tourniquet.dev/tourniquet/internal/strictyaml"
	"tourniquet.dev/tourniquet/sensor/profile"
)

// config is the file that --config names. Paths of secrets name files that only their owner may read.
type config struct {
	Cluster string `yaml:"cluster"`
	Node    string `yaml:"node"`              // as the API server names it, and as the certificate does
	Account string `yaml:"account,omitempty"` // the AWS account that this cluster's access keys belong to

	Trust       string `yaml:"trust"`       // the trust file's envelope
	Root        string `yaml:"root"`        // the root's public key
	Key         string `yaml:"key"`         // the node's private key
	Certificate string `yaml:"certificate"` // what a node CA of the trust file says of it
	// Playbooks is the folder of signed playbooks whose reflexes this node has; empty: it has none.
	Playbooks string `yaml:"playbooks,omitempty"`

	State      string `yaml:"state"` // folder for the spool and the orders
	SpoolBytes int64  `yaml:"spool_bytes"`

	Intake     intakeConfig  `yaml:"intake"`
	Kubernetes kubeConfig    `yaml:"kubernetes,omitempty"`
	Source     sourceConfig  `yaml:"source,omitempty"`
	Profiles   profileConfig `yaml:"profiles,omitempty"`
	Rules      rulesConfig   `yaml:"rules,omitempty"`

	Metrics string `yaml:"metrics,omitempty"` // host:port for /metrics and /healthz; empty: neither
}

// intakeConfig says where intake is.
type intakeConfig struct {
	URL   string `yaml:"url"`
	Token string `yaml:"token"`        // file
	CA    string `yaml:"ca,omitempty"` // file; empty: the system's
}

// kubeConfig says where the node's pods are read.
type kubeConfig struct {
	Kubeconfig string `yaml:"kubeconfig,omitempty"` // empty: the service account of the pod that this runs in
	Off        bool   `yaml:"off,omitempty"`        // no API server: workloads are named by their cgroups, and no order is seen
}

// sourceConfig says where events come from: the kernel, or a recording where that is named.
type sourceConfig struct {
	Recording  string            `yaml:"recording,omitempty"` // file; it is played instead of the kernel, and nothing is held
	Replace    map[string]string `yaml:"replace,omitempty"`   // texts in it, such as ${POD_UID}, and what stands for them
	Paced      bool              `yaml:"paced,omitempty"`     // with the recorded pauses
	CgroupRoot string            `yaml:"cgroup_root,omitempty"`
	Pins       string            `yaml:"pins,omitempty"` // folder on a bpffs, in which holds outlive the process
	Proc       string            `yaml:"proc"`
	// Environments lets the sensor read which identity a container's first process was started with. Needs CAP_SYS_PTRACE.
	Environments bool `yaml:"environments"`
	// Arguments has up to so many bytes of each command line told, redacted. Arguments may hold secrets: 0 is none.
	Arguments uint32 `yaml:"arguments,omitempty"`
}

// profileConfig says what is learned of workloads; see docs/profiles.md.
type profileConfig struct {
	Mode         profile.Mode            `yaml:"mode,omitempty"`         // off, learn or alert
	Namespaces   map[string]profile.Mode `yaml:"namespaces,omitempty"`   // instead of mode
	LearnFor     string                  `yaml:"learn_for,omitempty"`    // before a profile alarms
	Observations uint64                  `yaml:"observations,omitempty"` // and so many
	Ranges       []netip.Prefix          `yaml:"ranges,omitempty"`       // each one destination: pods, services, a provider's addresses
}

// learns reports whether any workload's profile is kept.
func (c profileConfig) learns() bool {
	on := func(m profile.Mode) bool { return m == profile.Learn || m == profile.Alert }
	for _, m := range c.Namespaces {
		if on(m) {
			return true
		}
	}
	return on(c.Mode)
}

func (c profileConfig) validate(bad func(at, format string, args ...any)) {
	if !c.Mode.Valid() {
		bad("profiles.mode", "%q is not off, learn or alert", c.Mode)
	}
	for ns, m := range c.Namespaces {
		if !m.Valid() || !plainName.MatchString(ns) {
			bad("profiles.namespaces", "%q: %q is not a namespace with off, learn or alert", ns, m)
		}
	}
	if d, err := time.ParseDuration(c.LearnFor); err != nil || d < time.Minute {
		bad("profiles.learn_for", "%q is not a duration of at least 1m", c.LearnFor)
	}
	if c.Observations == 0 {
		bad("profiles.observations", "must be at least 1")
	}
	for i, r := range c.Ranges {
		if !r.IsValid() || r != r.Masked() || r.Bits() == 0 {
			bad(fmt.Sprintf("profiles.ranges[%d]", i), "%s is not a range of addresses", r)
		}
	}
}

// on reports whether any namespace has profiles.
func (c profileConfig) on() bool {
	for _, m := range c.Namespaces {
		if m != profile.Off {
			return true
		}
	}
	return c.Mode != profile.Off
}

func defaultConfig() config {
	return config{Profiles: profileConfig{Mode: profile.Off, LearnFor: "24h", Observations: 1000}, SpoolBytes: 1 << 30, Source: sourceConfig{Proc: "/proc", Pins: "/sys/fs/bpf/tourniquet", Environments: true}}
}

func loadConfig(path string) (config, error) {
	c := defaultConfig()
	data, err := os.ReadFile(filepath.Clean(path))
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

var plainName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)

// maxArguments is what the kernel programs can take.
const maxArguments = 4096

// validate reports every problem at once, each with its path.
func (c config) validate() error {
	var errs []error
	bad := func(at, format string, args ...any) { errs = append(errs, fmt.Errorf(at+": "+format, args...)) }
	for at, v := range map[string]string{"cluster": c.Cluster, "node": c.Node} {
		if !plainName.MatchString(v) {
			bad(at, "%q is not a name", v)
		}
	}
	if c.Account != "" && !identity.ValidAccount(c.Account) {
		bad("account", "%q is not an account id of 12 digits", c.Account)
	}
	for at, v := range map[string]string{"trust": c.Trust, "root": c.Root, "key": c.Key, "certificate": c.Certificate, "state": c.State, "intake.token": c.Intake.Token} {
		if v == "" {
			bad(at, "is needed")
		}
	}
	u, err := url.Parse(c.Intake.URL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || (u.Path != "" && u.Path != "/") {
		bad("intake.url", "%q is not http:// or https:// with a host and no path", c.Intake.URL)
	}
	if c.SpoolBytes < 1<<20 {
		bad("spool_bytes", "must be at least 1 MiB")
	}
	if c.Source.Arguments > maxArguments {
		bad("source.arguments", "at most %d", maxArguments)
	}
	c.Profiles.validate(bad)
	if _, _, err := net.SplitHostPort(c.Metrics); err != nil && c.Metrics != "" {
		bad("metrics", "%q is not host:port", c.Metrics)
	}
	return errors.Join(errs...)
}
