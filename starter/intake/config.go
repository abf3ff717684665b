package main

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"tourniquet.dev/tourniquet/internal/identity"
	"tourniquet.dev/tourniquet/internal/strictyaml"
	"tourniquet.dev/tourniquet/internal/sys/keys"
	"tourniquet.dev/tourniquet/internal/trust"
	"tourniquet.dev/tourniquet/starter/intake/adapter"
)

// config is the file that --config names. Paths of secrets name files that only their owner may read.
type config struct {
	Listen      string         `yaml:"listen"`            // host:port, for sensors and other detectors
	Metrics     string         `yaml:"metrics,omitempty"` // host:port for /metrics and /healthz; empty: neither
	TLS         tlsConfig      `yaml:"tls,omitempty"`     // empty: plain HTTP, for loopback or behind something that ends TLS
	Trust       string         `yaml:"trust"`             // the trust file's envelope
	Root        string         `yaml:"root"`              // the root's public key
	Key         string         `yaml:"key"`               // intake's private key
	SensorToken string         `yaml:"sensor_token"`      // file with the sensors' bearer token
	State       string         `yaml:"state"`             // folder for spool, seen items and dead letters
	Store       string         `yaml:"store"`             // folder of the content-addressed store
	MaxAge      time.Duration  `yaml:"max_age"`           // older detections are kept aside
	SpoolBytes  int64          `yaml:"spool_bytes"`
	DeadBytes   int64          `yaml:"dead_letter_bytes"`
	Sources     []sourceConfig `yaml:"sources,omitempty"`
	Temporal    temporalConfig `yaml:"temporal"`
}

// tlsConfig names the listener's certificate.
type tlsConfig struct {
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
}

// sourceConfig is a third party that may send events; the trust file must know it too.
type sourceConfig struct {
	Name          string `yaml:"name"`
	Kind          string `yaml:"kind,omitempty"`     // empty: cloudevents
	HMACKey       string `yaml:"hmac_key,omitempty"` // file
	Bearer        string `yaml:"bearer,omitempty"`   // file
	Cluster       string `yaml:"cluster,omitempty"`
	Account       string `yaml:"account,omitempty"`
	Technique     string `yaml:"technique,omitempty"` // where an event names none
	AttackVersion string `yaml:"attack_version,omitempty"`
	// Techniques maps the source's own rules, policies or alerts; it goes before the source's table.
	Techniques map[string]string `yaml:"techniques,omitempty"`
	// Learn is for how long kind aws learns in silence what an account, key or principal does. 7 days.
	Learn time.Duration `yaml:"learn,omitempty"`
	SQS   *sqsConfig    `yaml:"sqs,omitempty"` // of kind aws: then nothing is taken from the network
}

// sqsConfig is the queue that EventBridge fills, and only EventBridge may: the queue's policy must say so, since what
// stands in it counts as AWS's own word.
type sqsConfig struct {
	URL         string `yaml:"url"`
	Region      string `yaml:"region"`
	Endpoint    string `yaml:"endpoint,omitempty"`
	Credentials string `yaml:"credentials"` // file: {"access_key_id":…,"secret_access_key":…} in one line
}

// temporalConfig says where Temporal is.
type temporalConfig struct {
	Address    string `yaml:"address"`
	Namespace  string `yaml:"namespace"`
	KeyRing    string `yaml:"key_ring"` // file of the payload codec's keys
	Cert       string `yaml:"cert,omitempty"`
	Key        string `yaml:"key,omitempty"`
	CA         string `yaml:"ca,omitempty"`
	ServerName string `yaml:"server_name,omitempty"`
	APIKey     string `yaml:"api_key,omitempty"` // file
}

const week = 7 * 24 * time.Hour

// defaultConfig returns what holds where the file says nothing.
func defaultConfig() config {
	c := config{Listen: "127.0.0.1:7310", MaxAge: week, SpoolBytes: 1 << 30, DeadBytes: 64 << 20}
	c.Temporal = temporalConfig{Address: "127.0.0.1:7233", Namespace: "default"}
	return c
}

// loadConfig reads and validates a configuration file.
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

var (
	sourceName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{0,62}$`)
	technique  = regexp.MustCompile(`^T[0-9]{4}(\.[0-9]{3})?$`)
)

// validate reports every problem at once, each with its path.
func (c config) validate() error {
	var errs []error
	bad := func(at, format string, args ...any) { errs = append(errs, fmt.Errorf(at+": "+format, args...)) }
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		bad("listen", "%q is not host:port", c.Listen)
	}
	if _, _, err := net.SplitHostPort(c.Metrics); err != nil && c.Metrics != "" {
		bad("metrics", "%q is not host:port", c.Metrics)
	}
	if (c.TLS.Cert == "") != (c.TLS.Key == "") {
		bad("tls", "cert and key go together")
	}
	for at, v := range map[string]string{"trust": c.Trust, "root": c.Root, "key": c.Key, "sensor_token": c.SensorToken, "state": c.State,
		"store": c.Store, "temporal.address": c.Temporal.Address, "temporal.namespace": c.Temporal.Namespace, "temporal.key_ring": c.Temporal.KeyRing} {
		if v == "" {
			bad(at, "is needed")
		}
	}
	if c.MaxAge <= 0 || c.SpoolBytes < 1<<20 || c.DeadBytes < 1<<20 {
		bad("max_age, spool_bytes, dead_letter_bytes", "must be positive, and at least 1 MiB each")
	}
	seen := map[string]bool{}
	for i, s := range c.Sources {
		at := fmt.Sprintf("sources[%d]", i)
		if !sourceName.MatchString(s.Name) || seen[s.Name] {
			bad(at+".name", "%q is not a short lower-case name, or stands twice", s.Name)
		}
		seen[s.Name] = true
		if q := s.SQS; q != nil && (q.URL == "" || q.Region == "" || q.Credentials == "" || adapter.Kind(s.Kind) != adapter.AWS || s.HMACKey != "" || s.Bearer != "") {
			bad(at+".sqs", "needs url, region and credentials, kind aws, and neither hmac_key nor bearer")
		}
		if s.HMACKey == "" && s.Bearer == "" && s.SQS == nil {
			bad(at, "hmac_key or bearer is needed")
		}
		if s.Account != "" && !identity.ValidAccount(s.Account) {
			bad(at+".account", "%q is not an account id of 12 digits", s.Account)
		}
		if (s.Technique == "") != (s.AttackVersion == "") || (s.Technique != "" && !technique.MatchString(s.Technique)) {
			bad(at+".technique", "want a technique such as T1078.004, together with attack_version")
		}
		if kind := adapter.Kind(s.Kind); !kind.Valid() {
			bad(at+".kind", "%q is not a known kind of source", s.Kind)
		} else if kind.InCluster() && s.Cluster == "" {
			bad(at+".cluster", "is needed: events of %s do not name theirs", s.Kind)
		}
		for rule, id := range s.Techniques {
			if !technique.MatchString(id) {
				bad(at+".techniques", "%q: %q is no technique such as T1078.004", rule, id)
			}
		}
	}
	return errors.Join(errs...)
}

// minSecret is the least length of a token: a short one could be guessed.
const minSecret = 16

func loadSecret(path string) ([]byte, error) {
	secret, err := keys.LoadText(path)
	if err != nil {
		return nil, err
	}
	if len(secret) < minSecret {
		return nil, fmt.Errorf("secret %s: shorter than %d bytes", path, minSecret)
	}
	return []byte(secret), nil
}

// loadSources reads the sources' secrets. A source that the trust file does not know is an error: nothing it says would
// ever count.
func loadSources(t *trust.File, all []sourceConfig) (map[string]source, error) {
	out := map[string]source{}
	for _, s := range all {
		if _, ok := t.ThirdParty(s.Name); !ok {
			return nil, fmt.Errorf("source %s: is not in the trust file", s.Name)
		}
		from := source{ThirdParty: adapter.ThirdParty{Name: s.Name, Cluster: s.Cluster, Account: s.Account, Technique: s.Technique, AttackVersion: s.AttackVersion,
			Kind: adapter.Kind(s.Kind), Techniques: s.Techniques,
			Attests: s.SQS != nil, Learn: cmp.Or(s.Learn, week)}}
		if s.HMACKey != "" {
			key, err := loadSecret(s.HMACKey)
			if err != nil {
				return nil, fmt.Errorf("source %s: %w", s.Name, err)
			}
			from.key = key
		}
		if s.Bearer != "" {
			secret, err := loadSecret(s.Bearer)
			if err != nil {
				return nil, fmt.Errorf("source %s: %w", s.Name, err)
			}
			from.bearer = newToken(secret)
		}
		out[s.Name] = from
	}
	return out, nil
}
