package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"tourniquet.dev/tourniquet/internal/sys/keys"
	"tourniquet.dev/tourniquet/internal/sys/spool"
	"tourniquet.dev/tourniquet/internal/sys/store"
	"tourniquet.dev/tourniquet/internal/sys/telemetry"
	"tourniquet.dev/tourniquet/internal/sys/temporalclient"
	"tourniquet.dev/tourniquet/starter/intake/adapter/queue"
	"tourniquet.dev/tourniquet/starter/intake/correlate"
	"tourniquet.dev/tourniquet/starter/intake/recall"
	"tourniquet.dev/tourniquet/starter/intake/whereabouts"
)

// version is what the metrics say runs.
const version = "dev"

// process is everything that intake has open.
type process struct {
	config config
	log    *slog.Logger
	server *server
	spool  *spool.Spool
	store  *store.Store
	began  time.Time
}

// serve runs until ctx ends or a part fails.
func serve(ctx context.Context, c config, log *slog.Logger, stdout io.Writer) (err error) {
	p, err := build(c, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	listener, err := listen(ctx, c)
	if err != nil {
		return err
	}
	ready := map[string]any{"ready": true, "process": "intake", "listen": listener.Addr().String()}
	parts := []func(context.Context) error{serving(listener, p.server.handler()), p.correlate, p.watch}
	parts = append(parts, p.queues()...)
	if c.Metrics != "" {
		figures, err := p.figures(ctx)
		if err != nil {
			return errors.Join(err, listener.Close())
		}
		parts, ready["metrics"] = append(parts, figures.Run), figures.Addr()
	}
	if err := json.NewEncoder(stdout).Encode(ready); err != nil {
		return errors.Join(fmt.Errorf("say ready: %w", err), listener.Close())
	}
	return together(ctx, parts)
}

// build opens what intake needs on this machine. Temporal is not of it: detections are taken without it too.
func build(c config, log *slog.Logger) (*process, error) {
	p := &process{config: c, log: log, began: time.Now()}
	t, err := keys.LoadTrust(c.Trust, c.Root)
	if err != nil {
		return nil, err
	}
	signer, err := keys.LoadSigner(c.Key)
	if err != nil {
		return nil, err
	}
	token, err := loadSecret(c.SensorToken)
	if err != nil {
		return nil, err
	}
	sources, err := loadSources(t, c.Sources)
	if err != nil {
		return nil, err
	}
	dead, err := correlate.OpenDeadLetters(filepath.Join(c.State, "dead-letters"), c.DeadBytes)
	if err != nil {
		return nil, err
	}
	if p.store, err = store.Open(store.Options{Dir: c.Store}); err != nil {
		return nil, err
	}
	seen, err := correlate.OpenSeen(filepath.Join(c.State, "seen"))
	if err != nil {
		return nil, err
	}
	places, err := whereabouts.Open(filepath.Join(c.State, "whereabouts"))
	if err != nil {
		return nil, errors.Join(err, seen.Close())
	}
	memory, err := recall.Open(filepath.Join(c.State, "recall"))
	if err != nil {
		return nil, errors.Join(err, seen.Close(), places.Close())
	}
	if p.spool, err = spool.Open(spool.Options{Dir: filepath.Join(c.State, "spool"), MaxBytes: c.SpoolBytes}); err != nil {
		return nil, errors.Join(err, seen.Close(), places.Close(), memory.Close())
	}
	p.server = &server{trust: t, signer: signer, sensors: newToken(token), sources: sources, maxAge: c.MaxAge, now: time.Now, spool: p.spool,
		seen: seen, dead: dead, count: &correlate.Counters{}, refused: &refusals{}, passed: &refusals{}, places: places, recall: memory, patience: placeWait, log: log}
	return p, nil
}

func (p *process) close() error {
	return errors.Join(p.spool.Close(), p.server.seen.Close(), p.server.places.Close(), p.server.recall.Close())
}

// correlate connects to Temporal, however long that takes, and brings it what is spooled.
func (p *process) correlate(ctx context.Context) error {
	ring, err := temporalclient.LoadKeyRing(p.config.Temporal.KeyRing)
	if err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("host name: %w", err)
	}
	t := p.config.Temporal
	client, err := temporalclient.Dial(ctx, temporalclient.Options{Address: t.Address, Namespace: t.Namespace, Identity: "intake@" + host, Ring: ring,
		Logger: p.log, CertFile: t.Cert, KeyFile: t.Key, CAFile: t.CA, ServerName: t.ServerName, APIKeyFile: t.APIKey})
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	defer client.Close()
	p.log.Info("connected to Temporal", "address", t.Address)
	return correlate.New(correlate.Options{Queue: p.spool, Store: p.store, Temporal: client, Dead: p.server.dead, Seen: p.server.seen,
		Count: p.server.count, Log: p.log, Started: p.began}).Run(ctx)
}

// queues are the pollers of the sources that have a queue.
func (p *process) queues() []func(context.Context) error {
	var out []func(context.Context) error
	for _, s := range p.config.Sources {
		if s.SQS == nil {
			continue
		}
		from := p.server.sources[s.Name].ThirdParty
		out = append(out, queue.New(queue.Options{URL: s.SQS.URL, Region: s.SQS.Region, Endpoint: s.SQS.Endpoint, Credentials: s.SQS.Credentials, Log: p.log,
			Take: func(ctx context.Context, body []byte) error { return p.server.takeQueued(ctx, body, from) }}).Run)
	}
	return out
}

// watch ends the process when the spool's disk has failed: what it acknowledged is there, and a new process finds it.
func (p *process) watch(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := p.spool.Err(); err != nil {
				return err
			}
		}
	}
}

func (p *process) figures(ctx context.Context) (*telemetry.Server, error) {
	registry := telemetry.NewRegistry("intake", version)
	registry.MustRegister(collector{p.server.count, p.server.refused, p.server.passed, p.server.dead}, spoolCollector{p.spool.Stats})
	return telemetry.Listen(ctx, p.config.Metrics, false, telemetry.Handler(registry, func(context.Context) error { return p.spool.Err() }))
}

func listen(ctx context.Context, c config) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if c.TLS.Cert == "" {
		return l, nil
	}
	pair, err := tls.LoadX509KeyPair(c.TLS.Cert, c.TLS.Key)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listener's certificate: %w", err), l.Close())
	}
	return tls.NewListener(l, &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}}), nil
}

func serving(l net.Listener, h http.Handler) func(context.Context) error {
	server := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 15 * time.Second, WriteTimeout: 30 * time.Second,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10}
	return func(ctx context.Context) error {
		stopped := make(chan error, 1)
		go func() {
			<-ctx.Done()
			grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			stopped <- server.Shutdown(grace)
		}()
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve %s: %w", l.Addr(), err)
		}
		return <-stopped
	}
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
