// Package role is what the worker processes have in common: reading their configuration, connecting to Temporal,
// opening trust file, playbooks and store, and stopping cleanly. It links no SDK of an outside system; each worker adds
// its own. Only the mains under worker/ call it.
package role

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/internal/strictyaml"
	"tourniquet.dev/tourniquet/internal/sys/keys"
	"tourniquet.dev/tourniquet/internal/sys/store"
	"tourniquet.dev/tourniquet/internal/sys/temporalclient"
	"tourniquet.dev/tourniquet/internal/trust"
)

// Temporal says where Temporal is.
type Temporal struct {
	Address    string `yaml:"address"`
	Namespace  string `yaml:"namespace"`
	KeyRing    string `yaml:"key_ring"`
	Cert       string `yaml:"cert,omitempty"`
	Key        string `yaml:"key,omitempty"`
	CA         string `yaml:"ca,omitempty"`
	ServerName string `yaml:"server_name,omitempty"`
	APIKey     string `yaml:"api_key,omitempty"`
}

// Config is what every worker is given: paths, never values of secrets.
type Config struct {
	Temporal  Temporal `yaml:"temporal"`
	Trust     string   `yaml:"trust"`               // envelope of the trust file
	Root      string   `yaml:"root"`                // public key of its signer
	Playbooks string   `yaml:"playbooks,omitempty"` // folder of playbook envelopes
	Store     string   `yaml:"store"`
}

// Validate reports every problem at once.
func (c Config) Validate() error {
	var errs []error
	for field, v := range map[string]string{"temporal.address": c.Temporal.Address, "temporal.namespace": c.Temporal.Namespace,
		"temporal.key_ring": c.Temporal.KeyRing, "trust": c.Trust, "root": c.Root, "store": c.Store} {
		if v == "" {
			errs = append(errs, fmt.Errorf("%s: is missing", field))
		}
	}
	return errors.Join(errs...)
}

// Env is a running process: what it logs to, and its connection to Temporal.
type Env struct {
	Name   string
	Log    *slog.Logger
	Client client.Client
	Ring   *temporalclient.KeyRing
	fail   context.CancelCauseFunc
	config Config
	policy atomic.Pointer[activities.Policy]
}

// Worker configures one role: its settings are decoded into Settings, whose common part is Common.
type Worker struct {
	Name     string
	Settings interface{ Validate() error }
	Common   *Config
	// Start registers activities and workflows on workers that it returns; done is called after they have stopped.
	Start func(ctx context.Context, e *Env) (workers []worker.Worker, ready map[string]any, done func() error, err error)
}

// Run is a worker's whole main: it returns the exit code. 0: stopped as told; 1: failed; 2: bad usage or configuration.
func (w Worker) Run(args []string, stdout, stderr io.Writer) int {
	log := slog.New(slog.NewJSONHandler(stderr, nil)).With("process", w.Name)
	if err := w.configure(args, stderr); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		fmt.Fprintf(stderr, "tourniquet: %s: %v\n", w.Name, err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := w.serve(ctx, log, stdout); err != nil {
		fmt.Fprintf(stderr, "tourniquet: %s: %v\n", w.Name, err)
		return 1
	}
	return 0
}

func (w Worker) configure(args []string, stderr io.Writer) error {
	fs := flag.NewFlagSet(w.Name, flag.ContinueOnError)
	fs.SetOutput(stderr)
	path := fs.String("config", "", "path of the configuration (YAML)")
	if err := fs.Parse(args); err != nil {
		return err
	}
	data, err := os.ReadFile(*path)
	if err != nil {
		return fmt.Errorf("read --config: %w", err)
	}
	if err := strictyaml.Decode(data, w.Settings); err != nil {
		return fmt.Errorf("%s: %w", *path, err)
	}
	if err := errors.Join(w.Common.Validate(), w.Settings.Validate()); err != nil {
		return fmt.Errorf("%s: %w", *path, err)
	}
	return nil
}

func (w Worker) serve(ctx context.Context, log *slog.Logger, stdout io.Writer) error {
	told := ctx
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	e, err := w.connect(ctx, log)
	if err != nil {
		return err
	}
	e.fail = fail
	defer e.Client.Close()
	workers, ready, done, err := w.Start(ctx, e)
	if err != nil {
		return err
	}
	for _, wk := range workers {
		if err := wk.Start(); err != nil {
			return fmt.Errorf("start polling: %w", err)
		}
	}
	if ready == nil {
		ready = map[string]any{}
	}
	ready["ready"], ready["process"] = true, w.Name
	line, err := json.Marshal(ready)
	if err != nil {
		return err
	}
	fmt.Fprintln(stdout, string(line))
	<-ctx.Done()
	for _, wk := range workers {
		wk.Stop()
	}
	if done != nil {
		err = done()
	}
	if told.Err() == nil { // nobody told us to stop
		err = errors.Join(context.Cause(ctx), err)
	}
	return err
}

// Fail ends the process with an error, so that whoever runs it starts it again.
func (e *Env) Fail(err error) { e.fail(err) }

func (w Worker) connect(ctx context.Context, log *slog.Logger) (*Env, error) {
	c := *w.Common
	e := &Env{Name: w.Name, Log: log, config: c}
	if _, err := e.reload(); err != nil {
		return nil, err
	}
	var err error
	if e.Ring, err = temporalclient.LoadKeyRing(c.Temporal.KeyRing); err != nil {
		return nil, fmt.Errorf("temporal.key_ring: %w", err)
	}
	dctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	e.Client, err = temporalclient.Dial(dctx, temporalclient.Options{Address: c.Temporal.Address, Namespace: c.Temporal.Namespace, Identity: w.Name, Ring: e.Ring, Logger: log,
		CertFile: c.Temporal.Cert, KeyFile: c.Temporal.Key, CAFile: c.Temporal.CA, ServerName: c.Temporal.ServerName, APIKeyFile: c.Temporal.APIKey})
	if err != nil {
		return nil, fmt.Errorf("connect to Temporal at %s: %w", c.Temporal.Address, err)
	}
	return e, nil
}

// reload reads trust file and playbooks. A file that does not verify changes nothing.
func (e *Env) reload() (*activities.Policy, error) {
	t, err := keys.LoadTrust(e.config.Trust, e.config.Root)
	if err != nil {
		return nil, err
	}
	p := &activities.Policy{Trust: t}
	if e.config.Playbooks != "" {
		if p.Books, err = keys.LoadPlaybooks(t, e.config.Playbooks); err != nil {
			return nil, err
		}
	}
	e.policy.Store(p)
	return p, nil
}

// Policy returns trust file and playbooks as they are loaded now.
func (e *Env) Policy() activities.Policy { return *e.policy.Load() }

// Trust returns the trust file as it is loaded now.
func (e *Env) Trust() *trust.File { return e.policy.Load().Trust }

// Store opens the store for reading and writing.
func (e *Env) Store() (*store.Store, error) { return store.Open(store.Options{Dir: e.config.Store}) }

// Reader opens the store for reading only.
func (e *Env) Reader() (store.Reader, error) {
	return store.OpenReader(store.Options{Dir: e.config.Store})
}

// Worker returns a worker on one task queue.
func (e *Env) Worker(queue string) worker.Worker {
	return worker.New(e.Client, queue, worker.Options{Identity: e.Name, WorkerStopTimeout: 5 * time.Second})
}
