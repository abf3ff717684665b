package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"tourniquet.dev/tourniquet/internal/sys/keys"
	"tourniquet.dev/tourniquet/internal/sys/spool"
	"tourniquet.dev/tourniquet/internal/sys/telemetry"
	"tourniquet.dev/tourniquet/internal/trust"
	"tourniquet.dev/tourniquet/sensor/hold"
	"tourniquet.dev/tourniquet/sensor/node"
	"tourniquet.dev/tourniquet/sensor/process"
	"tourniquet.dev/tourniquet/sensor/profile"
	"tourniquet.dev/tourniquet/sensor/reflex"
	"tourniquet.dev/tourniquet/sensor/ship"
)

// version is what the metrics say runs.
const version = "dev"

// agent is everything that the sensor has open.
type agent struct {
	config config
	log    *slog.Logger
	eyes   *eyes
	node   *node.Node
	pods   *process.Pods // nil without an API server
	reflex *reflex.Reflex
	freeze *hold.Freezer // nil where nothing can be frozen
	spool  *spool.Spool
	ship   *ship.Shipper

	profiles *profile.Book // nil where none are kept
	rules    *rulebook
}

// serve runs until ctx ends or a part fails.
func serve(ctx context.Context, c config, log *slog.Logger, stdout io.Writer) (err error) {
	t, err := keys.LoadTrust(c.Trust, c.Root)
	if err != nil {
		return err
	}
	a := &agent{config: c, log: log}
	if a.rules, err = openRules(c.Rules); err != nil {
		return err
	}
	if a.eyes, err = openEyes(c, t.Ceilings.MaxApproved, a.rules.set.Watch(), log); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.eyes.close()) }()
	if a.spool, err = spool.Open(spool.Options{Dir: filepath.Join(c.State, "spool"), MaxBytes: c.SpoolBytes}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.spool.Close()) }()
	if err := a.build(t); err != nil {
		return err
	}
	parts := []func(context.Context) error{a.observe, a.ship.Run, a.tend, a.reflex.Run}
	if c.Rules.Folder != "" {
		parts = append(parts, a.tendRules)
	}
	if a.pods != nil {
		parts = append(parts, func(ctx context.Context) error { a.pods.Run(ctx); return nil })
	}
	ready := map[string]any{"ready": true, "process": "sensor", "node": c.Node}
	for k, v := range a.eyes.told {
		ready[k] = v
	}
	if c.Metrics != "" {
		figures, err := a.figures(ctx)
		if err != nil {
			return err
		}
		parts, ready["metrics"] = append(parts, figures.Run), figures.Addr()
	}
	if err := json.NewEncoder(stdout).Encode(ready); err != nil {
		return fmt.Errorf("say ready: %w", err)
	}
	return together(ctx, parts)
}

func (a *agent) build(t *trust.File) error {
	signer, err := keys.LoadNodeSigner(a.config.Key, a.config.Certificate)
	if err != nil {
		return err
	}
	boot, err := bootID(a.config.Source.Proc)
	if err != nil {
		return err
	}
	o := node.Options{
		Cluster: a.config.Cluster, Node: a.config.Node, Account: a.config.Account, Trust: t, Signer: signer, BootID: boot,
		Instance: boot + ":" + strconv.FormatInt(time.Now().UnixNano(), 36), Source: a.eyes.source, Tree: a.eyes.tree, Cgroups: a.eyes.cgroups,
		Rules: a.rules.set, Spool: a.spool, SeesRings: a.eyes.seesRings(), Watch: a.eyes.watch, Hints: a.eyes.hints, State: a.config.State, Log: a.log,
	}
	if a.eyes.holds != nil {
		o.Holds = a.eyes.holds
	}
	if err := a.openProfiles(); err != nil {
		return err
	}
	if a.profiles != nil {
		o.Profiles = a.profiles
	}
	if !a.config.Kubernetes.Off {
		a.pods, err = process.NewPods(process.PodOptions{Kubeconfig: a.config.Kubernetes.Kubeconfig, Node: a.config.Node,
			Annotations: []string{node.OrderPrefix}, OnChange: func(p process.Pod) { a.node.PodChanged(p) },
			OnError: func(err error) { a.log.Warn("the API server cannot be read", "err", err) }})
		if err != nil {
			return err
		}
		o.Pods = a.pods
	}
	if a.reflex, err = a.reflexes(t, boot); err != nil {
		return err
	}
	o.Reflex = a.reflex
	if a.freeze != nil {
		o.Freezer, o.Kill = a.freeze, func(pid uint32, start time.Duration) error { return hold.Kill(a.config.Source.Proc, pid, start) }
	}
	if a.node, err = node.New(o); err != nil {
		return err
	}
	a.node.WatchAll()
	client, err := httpClient(a.config.Intake)
	if err != nil {
		return err
	}
	a.ship = ship.New(ship.Options{Queue: a.spool, URL: strings.TrimSuffix(a.config.Intake.URL, "/"), Token: a.token, Client: client, Log: a.log})
	return nil
}

func (a *agent) openProfiles() error {
	c := a.config.Profiles
	if !c.on() {
		return nil
	}
	if a.config.Kubernetes.Off {
		a.log.Warn("degraded", "lacks", "profiles: without the API server it is not known whose behaviour it is")
		return nil
	}
	learn, err := time.ParseDuration(c.LearnFor)
	if err != nil {
		return fmt.Errorf("profiles.learn_for: %w", err)
	}
	folder, err := profile.OpenFolder(filepath.Join(a.config.State, "profiles"))
	if err != nil {
		return err
	}
	a.profiles = profile.NewBook(profile.Options{Mode: c.Mode, Namespaces: c.Namespaces, Ranges: c.Ranges, Store: folder,
		Window: profile.Window{For: learn, Observations: c.Observations}})
	return nil
}

// token is read anew for each request, so that it can be rotated.
func (a *agent) token() string {
	text, err := keys.LoadText(a.config.Intake.Token)
	if err != nil {
		a.log.Error("intake's token cannot be read", "err", err)
	}
	return text
}

func httpClient(c intakeConfig) (*http.Client, error) {
	transport := &http.Transport{MaxIdleConnsPerHost: 2, IdleConnTimeout: time.Minute, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}}
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, fmt.Errorf("intake's CA: %w", err)
		}
		transport.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !transport.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("intake's CA: no certificate in %s", c.CA)
		}
	}
	// A redirect would carry the token elsewhere.
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, nil
}

func bootID(proc string) (string, error) {
	data, err := os.ReadFile(filepath.Join(proc, "sys/kernel/random/boot_id"))
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

// observe runs the node. A recording's end is not the process's: what it told of is still to be sent.
func (a *agent) observe(ctx context.Context) error {
	if err := a.node.Run(ctx); err != nil {
		return err
	}
	if ctx.Err() == nil {
		a.log.Info("the recording has ended", "spooled", a.node.Stats().Spooled)
		<-ctx.Done()
	}
	return nil
}

const (
	watchSpool = time.Second
	fillTree   = time.Minute
)

// tend ends the process when the spool's disk has failed, has the hooks proven anew, and buries processes of whose end no event told.
func (a *agent) tend(ctx context.Context) error {
	look, fill := time.NewTicker(watchSpool), time.NewTicker(fillTree)
	defer look.Stop()
	defer fill.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
			if err := a.spool.Err(); err != nil {
				return err
			}
		case <-fill.C:
			a.eyes.prove(a.log)
			if err := a.eyes.tree.Fill(); err != nil {
				a.log.Warn("processes cannot be listed", "err", err)
			}
		}
	}
}

func (a *agent) figures(ctx context.Context) (*telemetry.Server, error) {
	registry := telemetry.NewRegistry("sensor", version)
	registry.MustRegister(collector{a})
	return telemetry.Listen(ctx, a.config.Metrics, false, telemetry.Handler(registry, func(context.Context) error { return a.spool.Err() }))
}

// together runs the parts until one fails or ctx ends, and waits for all of them.
func together(ctx context.Context, parts []func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(parts))
	var all sync.WaitGroup
	for i, part := range parts {
		all.Go(func() {
			if err := part(ctx); err != nil && !errors.Is(err, context.Canceled) {
				errs[i] = err
			}
			cancel()
		})
	}
	all.Wait()
	return errors.Join(errs...)
}
