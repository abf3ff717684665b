package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"tourniquet.dev/tourniquet/internal/sys/journal"
	"tourniquet.dev/tourniquet/internal/sys/keys"
	"tourniquet.dev/tourniquet/internal/sys/store"
	"tourniquet.dev/tourniquet/internal/trust"
	"tourniquet.dev/tourniquet/starter/decide/click"
)

// serve runs until ctx ends or a part fails.
func serve(ctx context.Context, c config, log *slog.Logger, stdout io.Writer) (err error) {
	connection := &temporal{}
	registry := prometheus.NewRegistry()
	outcomes := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tourniquet_decide_interactions_total",
		Help: "Slack interactions by what became of them: opened, decided, or the code of a refusal."}, []string{"outcome"})
	fatal := make(chan error, 1)
	options, closeAll, err := build(c, log, connection, fatal, func(o string) { outcomes.WithLabelValues(o).Inc() })
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeAll()) }()
	door, err := click.New(options)
	if err != nil {
		return err
	}
	registry.MustRegister(outcomes, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "tourniquet_decide_waiting",
		Help: "Recorded decisions that Temporal has not taken yet."}, func() float64 { return float64(door.Waiting()) }))

	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("POST /slack/interactions", door)
	parts := []func(context.Context) error{door.Run, serving(listener, mux),
		func(ctx context.Context) error { return connection.connect(ctx, c.Temporal, log) },
		func(ctx context.Context) error {
			select {
			case <-ctx.Done():
				return nil
			case err := <-fatal:
				return err
			}
		}}
	ready := map[string]any{"ready": true, "process": "decide", "listen": listener.Addr().String()}
	if c.Metrics != "" {
		observed, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.Metrics)
		if err != nil {
			return errors.Join(fmt.Errorf("listen: %w", err), listener.Close())
		}
		parts = append(parts, serving(observed, observe(registry)))
		ready["metrics"] = observed.Addr().String()
	}
	if err := json.NewEncoder(stdout).Encode(ready); err != nil {
		return errors.Join(fmt.Errorf("say ready: %w", err), listener.Close())
	}
	return together(ctx, parts)
}

// build opens what the configuration names.
func build(c config, log *slog.Logger, connection *temporal, fatal chan<- error, count func(string)) (click.Options, func() error, error) {
	o := click.Options{AppID: c.Slack.AppID, TeamID: c.Slack.TeamID, EnterpriseID: c.Slack.EnterpriseID, Incidents: connection, Sender: connection,
		DecisionLife: c.DecisionLife, Now: time.Now, Count: count, Log: log}
	var signing, bot string
	var err error
	for _, step := range []func(){
		func() { signing, err = keys.LoadText(c.Slack.SigningSecret) },
		func() { bot, err = keys.LoadText(c.Slack.BotToken) },
		func() { o.Trust, err = keys.LoadTrust(c.Trust, c.Root) },
		func() { o.Books, err = keys.LoadPlaybooks(o.Trust, c.Playbooks) },
		func() { o.Signer, err = keys.LoadSigner(c.Key) },
		func() { o.TokenKey, err = keys.LoadSecret(c.TokenKey) },
		func() { o.Store, err = store.OpenReader(store.Options{Dir: c.Store}) },
	} {
		if step(); err != nil {
			return o, nil, err
		}
	}
	o.SigningSecret = []byte(signing)
	if o.Trust.KeysOf(trust.RoleDecide)[o.Signer.KeyID()] == nil {
		return o, nil, fmt.Errorf("key %s is not a decide key of the trust file", o.Signer.KeyID())
	}
	j, err := journal.Open(journal.Options{Dir: c.Journal, Name: c.Ledger, Key: o.Signer.Key()})
	if err != nil {
		return o, nil, err
	}
	o.Journal, o.Workspace = &watched{Journal: j, fatal: fatal}, click.NewWorkspace(bot, c.Slack.URL)
	return o, j.Close, nil
}

// watched ends the process when the ledger is poisoned: nothing can be decided any more, and a restart checks every byte.
type watched struct {
	*journal.Journal
	fatal chan<- error
}

// Append writes one entry.
func (w *watched) Append(kind string, body any) (int64, error) {
	n, err := w.Journal.Append(kind, body)
	if broken := w.Err(); err != nil && broken != nil {
		select {
		case w.fatal <- fmt.Errorf("ledger: %w", broken):
		default: // it is known
		}
	}
	return n, err
}

// observe routes what operators look at: it tells no content.
func observe(registry *prometheus.Registry) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	return mux
}

func serving(l net.Listener, h http.Handler) func(context.Context) error {
	server := &http.Server{Handler: h, ReadHeaderTimeout: 2 * time.Second, ReadTimeout: 5 * time.Second, WriteTimeout: 15 * time.Second,
		IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
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
