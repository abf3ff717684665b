package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"go.temporal.io/sdk/client"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/strictyaml"
	"tourniquet.dev/tourniquet/internal/sys/keys"
	"tourniquet.dev/tourniquet/internal/sys/store"
	"tourniquet.dev/tourniquet/internal/sys/temporalclient"
	"tourniquet.dev/tourniquet/internal/trust"
)

// config is the file given by --config. Nothing in it is needed until a command needs it; it holds paths, no secrets.
type config struct {
	Temporal  temporalConfig  `yaml:"temporal,omitempty"`
	Trust     string          `yaml:"trust,omitempty"`
	Root      string          `yaml:"root,omitempty"`
	Playbooks string          `yaml:"playbooks,omitempty"`
	Store     string          `yaml:"store,omitempty"`
	Key       string          `yaml:"key,omitempty"`
	Journals  []journalConfig `yaml:"journals,omitempty"`
}

type temporalConfig struct {
	Address    string `yaml:"address,omitempty"`
	Namespace  string `yaml:"namespace,omitempty"`
	KeyRing    string `yaml:"key_ring,omitempty"`
	Cert       string `yaml:"cert,omitempty"`
	Key        string `yaml:"key,omitempty"`
	CA         string `yaml:"ca,omitempty"`
	ServerName string `yaml:"server_name,omitempty"`
	APIKey     string `yaml:"api_key,omitempty"`
}

// journalConfig is the ledger of a process that decides or acts.
type journalConfig struct {
	Name string     `yaml:"name"` // its origin, such as tourniquet/contain-aws/123456789012
	Dir  string     `yaml:"dir"`
	Role trust.Role `yaml:"role"` // whose key signs its checkpoints
}

// journalRoles are the processes that keep a ledger.
var journalRoles = []trust.Role{trust.RoleContainAWS, trust.RoleContainKubernetes, trust.RoleDecide}

// connectWithin bounds how long a command waits for Temporal.
const connectWithin = 10 * time.Second

// fields are the settings that are one value, with their flags.
func (c *config) fields() []struct {
	flag, help string
	value      *string
} {
	return []struct {
		flag, help string
		value      *string
	}{
		{"temporal", "`ADDRESS` of Temporal, host:port", &c.Temporal.Address},
		{"namespace", "Temporal `NAMESPACE` (default \"default\")", &c.Temporal.Namespace},
		{"key-ring", "`FILE` with the keys of the payload codec", &c.Temporal.KeyRing},
		{"temporal-cert", "`FILE` with the client certificate (mTLS)", &c.Temporal.Cert},
		{"temporal-key", "`FILE` with the client certificate's key", &c.Temporal.Key},
		{"temporal-ca", "`FILE` with the CA of the server", &c.Temporal.CA},
		{"temporal-server-name", "`NAME` in the server's certificate", &c.Temporal.ServerName},
		{"temporal-api-key", "`FILE` with the API key of Temporal Cloud", &c.Temporal.APIKey},
		{"trust", "`FILE` with the signed trust file", &c.Trust},
		{"root", "`FILE` with the root's public key", &c.Root},
		{"playbooks", "`FOLDER` of signed playbooks", &c.Playbooks},
		{"store", "`FOLDER` of the store", &c.Store},
		{"key", "`FILE` with the key that signs: our own form, or OpenSSH ed25519", &c.Key},
	}
}

func (c *config) register(f *pflag.FlagSet, journals *[]string) {
	for _, s := range c.fields() {
		f.StringVar(s.value, s.flag, "", s.help)
	}
	f.StringArrayVar(journals, "journal", nil, "a ledger as `ROLE,NAME,FOLDER`; may be repeated")
}

// load reads the file, if there is one, and lets flags win.
func (a *app) load() (config, error) {
	var c config
	if path := cmp.Or(a.configPath, os.Getenv("TOURNIQUET_CONFIG")); path != "" {
		data, err := os.ReadFile(path) // #nosec G304 -- the operator's own file
		if err != nil {
			return c, usage(fmt.Errorf("read --config: %w", err), "")
		}
		if err := strictyaml.Decode(data, &c); err != nil {
			return c, usage(fmt.Errorf("%s: %w", path, err), "the keys are listed in: tourniquet --help")
		}
	}
	given := a.flags.fields()
	for i, s := range c.fields() {
		*s.value = cmp.Or(*given[i].value, *s.value)
	}
	c.Temporal.Namespace = cmp.Or(c.Temporal.Namespace, "default")
	if len(a.journals) > 0 {
		c.Journals = nil
	}
	for _, j := range a.journals {
		parts := strings.SplitN(j, ",", 3)
		if len(parts) != 3 {
			return c, usage(fmt.Errorf("--journal %q: want ROLE,NAME,FOLDER", j), "")
		}
		c.Journals = append(c.Journals, journalConfig{Role: trust.Role(parts[0]), Name: parts[1], Dir: parts[2]})
	}
	return c, c.validate()
}

// validate reports every problem at once, each with its path.
func (c config) validate() error {
	var errs []error
	for i, j := range c.Journals {
		if !slices.Contains(journalRoles, j.Role) {
			errs = append(errs, fmt.Errorf("journals[%d].role: %q keeps no ledger; want one of %v", i, j.Role, journalRoles))
		}
		if j.Name == "" || j.Dir == "" {
			errs = append(errs, fmt.Errorf("journals[%d]: name and dir are needed", i))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return usage(err, "")
	}
	return nil
}

func need(flag, value string) error {
	if value == "" {
		return usage(fmt.Errorf("--%s is needed", flag), "give the flag, or set it in the file given by --config")
	}
	return nil
}

func (c config) loadTrust() (*trust.File, error) {
	if err := errors.Join(need("trust", c.Trust), need("root", c.Root)); err != nil {
		return nil, err
	}
	return keys.LoadTrust(c.Trust, c.Root)
}

func (c config) loadBooks(t *trust.File) ([]authz.Book, error) {
	if err := need("playbooks", c.Playbooks); err != nil {
		return nil, err
	}
	return keys.LoadPlaybooks(t, c.Playbooks)
}

func (c config) openStore() (store.Reader, error) {
	if err := need("store", c.Store); err != nil {
		return nil, err
	}
	return store.OpenReader(store.Options{Dir: c.Store})
}

// dial connects to Temporal. The caller closes the client.
func (c config) dial(ctx context.Context) (client.Client, error) {
	if err := errors.Join(need("temporal", c.Temporal.Address), need("key-ring", c.Temporal.KeyRing)); err != nil {
		return nil, err
	}
	ring, err := temporalclient.LoadKeyRing(c.Temporal.KeyRing)
	if err != nil {
		return nil, err
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("host name: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, connectWithin)
	defer cancel()
	return temporalclient.Dial(ctx, temporalclient.Options{Address: c.Temporal.Address, Namespace: c.Temporal.Namespace, Identity: "tourniquet@" + host, Ring: ring,
		Logger: slog.New(slog.DiscardHandler), CertFile: c.Temporal.Cert, KeyFile: c.Temporal.Key, CAFile: c.Temporal.CA, ServerName: c.Temporal.ServerName,
		APIKeyFile: c.Temporal.APIKey})
}

func loadRing(path string) (*temporalclient.KeyRing, error) {
	if err := need("key-ring", path); err != nil {
		return nil, err
	}
	return temporalclient.LoadKeyRing(path)
}
