// Package cluster runs a real Kubernetes control plane, etcd and the API server, as child processes on loopback, for the
// demo and for tests. There are no nodes, no controllers and no scheduler: a namespace has no default service account
// until someone creates it, a pod stays as it was written, and nothing is garbage-collected. It never touches a cluster or
// a KUBECONFIG of the person who runs it. It is called by the demo, by package stack and by tests.
package cluster

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tourniquet.dev/tourniquet/dev/build"
	"tourniquet.dev/tourniquet/dev/port"
)

// DefaultIssuer is the issuer of service account tokens when Options name none.
const DefaultIssuer = "https://kubernetes.default.svc.cluster.local"

const (
	readyWithin = 2 * time.Minute // 3 s on an idle machine; a busy one must not fail
	poll        = 50 * time.Millisecond
)

// Options say where a cluster runs.
type Options struct {
	// StateDir holds everything: keys, data, logs and the admin's kubeconfig. A second Start on the same folder goes on
	// with the same objects, keys and tokens. Only one cluster may use it at a time.
	StateDir string
	// BinDir holds etcd and kube-apiserver. Empty: build.Kube provides them.
	BinDir string
	// Port is the API server's; 0 picks a free one.
	Port int
	// Issuer of service account tokens; empty: DefaultIssuer.
	Issuer string
	// Ephemeral spares etcd its fsyncs: faster, and a power cut loses the data.
	Ephemeral bool
	// Log gets a few lines on what is happening. What the two processes say is in StateDir/etcd.log and
	// StateDir/kube-apiserver.log.
	Log io.Writer
}

// A Cluster is a running control plane. Its methods are safe for concurrent use.
type Cluster struct {
	opts       Options
	url        string
	lock       *os.File
	clients    *authority // signs the certificates of clients and of the server
	signingKey *ecdsa.PrivateKey
	admin      []byte // kubeconfig
	etcd       *process
	apiserver  *process
}

// Start starts etcd and the API server and returns when the API answers. When it fails, or ctx ends first, nothing is
// left running. Cancelling ctx later stops nothing: Stop does, and so does the end of this process, however it comes.
func Start(ctx context.Context, opts Options) (*Cluster, error) {
	if opts.Log == nil {
		opts.Log = io.Discard
	}
	opts.Issuer = cmp.Or(opts.Issuer, DefaultIssuer)
	if opts.StateDir == "" {
		return nil, errors.New("start cluster: no StateDir")
	}
	var err error
	if opts.StateDir, err = filepath.Abs(opts.StateDir); err != nil {
		return nil, fmt.Errorf("start cluster: %w", err)
	}
	if opts.BinDir == "" {
		if opts.BinDir, err = build.Kube(ctx, opts.Log); err != nil {
			return nil, fmt.Errorf("start cluster: %w", err)
		}
	}
	begin := time.Now()
	c := &Cluster{opts: opts}
	if err := c.start(ctx); err != nil {
		return nil, fmt.Errorf("start cluster: %w", errors.Join(err, c.Stop()))
	}
	fmt.Fprintf(opts.Log, "kube: API server ready at %s after %s\n", c.url, time.Since(begin).Round(10*time.Millisecond))
	return c, nil
}

func (c *Cluster) start(ctx context.Context) error {
	if err := c.lockState(); err != nil {
		return err
	}
	p, err := pickPorts(c.opts.Port)
	if err != nil {
		return err
	}
	c.url = "https://" + port.Addr(p.api)
	if err := c.writeFiles(); err != nil {
		return err
	}
	// Both at once: the API server waits for etcd by itself.
	if c.etcd, err = startProcess(c.opts, "etcd", c.etcdFlags(p)); err != nil {
		return err
	}
	if c.apiserver, err = startProcess(c.opts, "kube-apiserver", c.apiserverFlags(p)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, readyWithin, fmt.Errorf("not ready within %s", readyWithin))
	defer cancel()
	if err := c.waitReady(ctx); err != nil {
		return errors.Join(err, c.etcd.lastWords(), c.apiserver.lastWords())
	}
	return nil
}

// lockState takes the folder for this process; the kernel gives it back when the process ends.
func (c *Cluster) lockState() error {
	if err := os.MkdirAll(c.opts.StateDir, 0o700); err != nil {
		return fmt.Errorf("make state folder: %w", err)
	}
	f, err := os.OpenFile(c.file("lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("open lock of state folder: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return fmt.Errorf("lock state folder %s: another cluster uses it: %w", c.opts.StateDir, err)
	}
	c.lock = f
	return nil
}

// Stop ends the API server and then etcd, and returns when both are gone. It may be called more than once. An error says
// that one had to be killed.
func (c *Cluster) Stop() error {
	err := errors.Join(c.apiserver.stop(), c.etcd.stop())
	if c.lock != nil {
		_ = c.lock.Close()
	}
	return err
}

// Wait returns when one of the two processes has ended, by Stop or by itself, and names it.
func (c *Cluster) Wait() error {
	select {
	case <-c.etcd.done:
		return c.etcd.end()
	case <-c.apiserver.done:
		return c.apiserver.end()
	}
}

// file is the path of a file in the state folder.
func (c *Cluster) file(name string) string { return filepath.Join(c.opts.StateDir, name) }

// waitReady polls readyz, which covers the bootstrap of roles, and then the namespaces that the server makes by itself.
func (c *Cluster) waitReady(ctx context.Context) error {
	client, err := c.Client()
	if err != nil {
		return err
	}
	ready := func() error {
		if _, err := client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx); err != nil {
			return err
		}
		for _, ns := range []string{metav1.NamespaceDefault, metav1.NamespaceSystem} {
			if _, err := client.CoreV1().Namespaces().Get(ctx, ns, metav1.GetOptions{}); err != nil {
				return err
			}
		}
		return nil
	}
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-c.etcd.done:
			return c.etcd.end()
		case <-c.apiserver.done:
			return c.apiserver.end()
		case <-ctx.Done():
			return fmt.Errorf("wait for the API server: %w (last answer: %w)", context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}
