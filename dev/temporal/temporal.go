// Package temporal runs the real Temporal server with the real Web UI on loopback, in this process, on an SQLite file. It
// is for the demo and for tests: one node, no authentication. Production uses a cluster of its own; nothing of the
// product imports this. It is called by its command temporal-dev, by package stack and by tests.
package temporal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	uiserver "github.com/temporalio/ui-server/v2/server"
	enumspb "go.temporal.io/api/enums/v1"
	temporalserver "go.temporal.io/server/temporal"

	"tourniquet.dev/tourniquet/dev/port"
)

const (
	// DefaultNamespace is the namespace when Options name none.
	DefaultNamespace = "default"
	// DefaultRetention is how long closed workflows stay when Options do not say: a month, as in a real cluster.
	DefaultRetention = 30 * 24 * time.Hour

	readyWithin = 2 * time.Minute // a second on an idle machine; a busy one must not fail
	poll        = 20 * time.Millisecond
)

// Options say where a server runs and what it offers.
type Options struct {
	// Database is the path of the SQLite file. It is made when it is not there. One server at a time may use it, and a
	// process that has used it must not delete it and start on the same path again: the connection is kept.
	Database string
	// Port of the frontend and of the Web UI; 0 picks a free one.
	Port, UIPort int
	// NoUI leaves the Web UI out.
	NoUI bool
	// Namespace and Retention of the one namespace made here. The retention of one that exists stays.
	Namespace string
	Retention time.Duration
	// SearchAttributes are added to the namespace at every start; those of an earlier start stay.
	SearchAttributes map[string]enumspb.IndexedValueType
	// CodecEndpoint is the URL of the codec server, as the browser sees it, that decodes payloads for the Web UI.
	CodecEndpoint string
	// ReadOnlyUI has the Web UI refuse everything that is not a read.
	ReadOnlyUI bool
	// Log gets the server's warnings and errors, as JSON lines, a few of them still after Stop; nil discards them. A start
	// and a stop are loud: services that are not up yet, pollers that lose their server.
	Log io.Writer
}

// A Server is a running Temporal server.
type Server struct {
	opts     Options
	lock     *os.File
	frontend string
	ui       string
	server   temporalserver.Server
	web      *uiserver.Server
	webDone  chan struct{}
	stop     sync.Once
	stopped  error
}

// Start returns when a workflow can be started and, unless left out, the Web UI answers. When it fails, nothing is left
// running. Cancelling ctx later stops nothing: Stop does.
func Start(ctx context.Context, opts Options) (*Server, error) {
	opts.Namespace = cmp.Or(opts.Namespace, DefaultNamespace)
	opts.Retention = cmp.Or(opts.Retention, DefaultRetention)
	if opts.Log == nil {
		opts.Log = io.Discard
	}
	if opts.Database == "" {
		return nil, errors.New("start Temporal: no Database")
	}
	var err error
	if opts.Database, err = filepath.Abs(opts.Database); err != nil {
		return nil, fmt.Errorf("start Temporal: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, readyWithin, fmt.Errorf("not ready within %s", readyWithin))
	defer cancel()
	s := &Server{opts: opts}
	if err := s.start(ctx); err != nil {
		return nil, fmt.Errorf("start Temporal: %w", errors.Join(err, s.Stop()))
	}
	return s, nil
}

func (s *Server) start(ctx context.Context) error {
	p, err := pickPorts(s.opts)
	if err != nil {
		return err
	}
	s.frontend = port.Addr(p.frontend)
	if err := s.lockDatabase(); err != nil {
		return err
	}
	db := sqlite(s.opts.Database)
	if err := prepareDatabase(db, s.opts); err != nil {
		return err
	}
	if s.server, err = newServer(db, p, s.opts.Log); err != nil {
		return err
	}
	if err := s.server.Start(); err != nil {
		return fmt.Errorf("start services: %w", err)
	}
	if err := prepareNamespace(ctx, s.frontend, s.opts); err != nil {
		return err
	}
	if s.opts.NoUI {
		return nil
	}
	s.ui = "http://" + port.Addr(p.ui)
	return s.startUI(ctx, p)
}

// lockDatabase takes the database for this process; the kernel gives it back when the process ends.
func (s *Server) lockDatabase() error {
	if err := os.MkdirAll(filepath.Dir(s.opts.Database), 0o700); err != nil {
		return fmt.Errorf("make folder of the database: %w", err)
	}
	f, err := os.OpenFile(s.opts.Database+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("open lock of the database: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return fmt.Errorf("lock %s: another server uses it: %w", s.opts.Database, err)
	}
	s.lock = f
	return nil
}

// Addr is the frontend's host:port, for client.Options.HostPort.
func (s *Server) Addr() string { return s.frontend }

// Namespace is the namespace made here.
func (s *Server) Namespace() string { return s.opts.Namespace }

// UIURL is the Web UI's address; empty when it was left out.
func (s *Server) UIURL() string { return s.ui }

// Stop ends the Web UI and the server, and returns when both have; it takes a second or three. It may be called again.
func (s *Server) Stop() error {
	s.stop.Do(func() {
		if s.web != nil {
			s.web.Stop()
			<-s.webDone
		}
		if s.server != nil {
			if err := s.server.Stop(); err != nil {
				s.stopped = fmt.Errorf("stop Temporal: %w", err)
			}
		}
		if s.lock != nil {
			_ = s.lock.Close()
		}
	})
	return s.stopped
}
