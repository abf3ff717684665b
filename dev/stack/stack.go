// Package stack runs all parts of Tourniquet together on one machine: Temporal with its Web UI, etcd and the Kubernetes API
// server, the stand-ins for AWS and Slack, intake, decide, the five workers and the sensor, each its own process with only
// its own configuration, rights and keys. Everything is made afresh in one folder, listens on loopback, and knows nothing of
// the person's own clusters, accounts or Slack. It is never part of the product. The demo and the end-to-end tests call it.
package stack

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.temporal.io/sdk/client"

	"tourniquet.dev/tourniquet/dev/build"
	"tourniquet.dev/tourniquet/dev/cluster"
)

// What the stack's world is called.
const (
	Account = "111122223333"
	Cluster = "demo"
	Node    = "demo-node"
	Region  = "us-east-1"
	// Channel is the stand-in's channel that takes the cards.
	Channel = "C0INCIDENTS"
	// QuarantinePolicy is the ARN of the deny-all that stands in the account in peacetime.
	QuarantinePolicy = "arn:aws:iam::" + Account + ":policy/TourniquetQuarantine"
)

// Options say what to start.
type Options struct {
	// Dir holds everything; what an earlier run left in it is removed. Empty: .state/demo in the repository.
	Dir string
	// Playbooks is a folder of playbooks (YAML), which are signed; empty: those of deploy/playbooks.
	Playbooks string
	// BindRoles are roles and cluster roles whose bindings the enforcer may cut.
	BindRoles, BindClusterRoles []string
	// Lag is from a change in AWS to its effect; 0: as it was measured on AWS, about 4 s.
	Lag time.Duration
	// SlackPort and UIPort are the ports of the two pages; 0 picks free ones.
	SlackPort, UIPort int
	// NoNodeCut leaves the steps of the node out of the playbooks, for a machine whose kernel nobody may ask.
	NoNodeCut bool
	// Log gets a few lines on what is happening.
	Log io.Writer
}

// A Stack is everything running. Its methods are safe for concurrent use.
type Stack struct {
	opts  Options
	root  string // of the repository
	dir   string
	bin   string
	lock  *os.File
	book  *Book
	clock time.Time // of the start

	Kubernetes *cluster.Cluster
	// Addresses, known once Start has returned.
	TemporalAddr, UIURL, CodecURL       string
	AWSURL, SlackURL, IntakeURL, Decide string
	aws                                 awsKeys
	recording                           doc // what the sensor plays instead of the kernel

	mu        sync.Mutex
	processes []*process
	died      chan error
	stopping  bool
}

// Start starts all parts but the sensor, and returns when each has said that it is ready. When it fails nothing is left
// running. Cancelling ctx later stops nothing: Stop does.
func Start(ctx context.Context, opts Options) (*Stack, error) {
	s := &Stack{opts: opts, clock: time.Now(), died: make(chan error, 1)}
	if s.opts.Log == nil {
		s.opts.Log = io.Discard
	}
	if err := s.prepare(); err != nil {
		return nil, fmt.Errorf("start stack: %w", errors.Join(err, s.Stop()))
	}
	if err := s.startAll(ctx); err != nil {
		return nil, fmt.Errorf("start stack: %w", errors.Join(err, s.Stop()))
	}
	return s, nil
}

// prepare takes the folder, cleans up after an earlier run and makes every key.
func (s *Stack) prepare() error {
	var err error
	if s.root, err = build.Root(); err != nil {
		return err
	}
	if s.dir, err = Dir(s.opts.Dir); err != nil {
		return err
	}
	if s.opts.Playbooks == "" {
		s.opts.Playbooks = filepath.Join(s.root, "deploy", "playbooks")
	}
	if len(s.dir) > longestDir {
		return fmt.Errorf("state folder %s: its path is longer than %d bytes, too long for sockets in it", s.dir, longestDir)
	}
	if s.lock, err = take(s.dir); err != nil {
		return err
	}
	removed, err := clean(s.dir)
	if err != nil {
		return err
	}
	if len(removed) > 0 {
		s.say("removed what an earlier run left: %s", strings.Join(removed, ", "))
	}
	if err := os.RemoveAll(s.dir); err != nil {
		return fmt.Errorf("empty state folder: %w", asRoot(err, s.dir))
	}
	for _, name := range []string{"", "keys", "config", "logs", "home", "tmp", "playbooks", "store"} {
		if err := os.MkdirAll(s.path(name), 0o700); err != nil {
			return fmt.Errorf("make state folder: %w", err)
		}
	}
	if s.book, err = openBook(s.dir); err != nil {
		return err
	}
	if err := s.makeTrust(); err != nil {
		return err
	}
	return s.makeSecrets()
}

// longestDir leaves room for the names of sockets: the kernel takes 107 bytes.
const longestDir = 85

// asRoot says what to do about what another user left.
func asRoot(err error, dir string) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: an earlier demo ran as root; remove it by `sudo rm -r %s`", err, dir)
	}
	return err
}

// Dir is the state folder that a name in Options.Dir means.
func Dir(name string) (string, error) {
	if name != "" {
		return filepath.Abs(name)
	}
	root, err := build.Root()
	if err != nil {
		return "", err
	}
	return filepath.Join(root, ".state", "demo"), nil
}

// ErrBusy says that another stack uses the folder.
var ErrBusy = errors.New("another demo is running")

// take locks the folder for this process; the kernel gives the lock back when the process ends, however it ends.
func take(dir string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return nil, fmt.Errorf("make state folder: %w", err)
	}
	f, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock of state folder: %w", asRoot(err, filepath.Dir(dir)))
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		pid, _ := os.ReadFile(dir + ".lock")
		_ = f.Close()
		return nil, fmt.Errorf("%w (process %s): end it with Ctrl-C or `make demo-down`", ErrBusy, strings.TrimSpace(string(pid)))
	}
	if err := errors.Join(f.Truncate(0), writeAt(f, fmt.Sprintf("%d\n", os.Getpid()))); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("write lock of state folder: %w", err)
	}
	return f, nil
}

func writeAt(f *os.File, text string) error {
	_, err := f.WriteAt([]byte(text), 0)
	return err
}

// Clean ends a stack that runs on the folder and takes off the machine whatever is left of one. It says what it removed.
func Clean(name string) (removed []string, err error) {
	dir, err := Dir(name)
	if err != nil {
		return nil, err
	}
	lock, err := take(dir)
	if errors.Is(err, ErrBusy) {
		if lock, err = end(dir); err != nil {
			return nil, err
		}
		removed = append(removed, "the running demo")
	}
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	more, err := clean(dir)
	if err == nil {
		err = os.RemoveAll(bookPath(dir))
	}
	return append(removed, more...), err
}

// end asks the process that holds the lock to end, and waits for the lock.
func end(dir string) (*os.File, error) {
	text, err := os.ReadFile(dir + ".lock")
	if err != nil {
		return nil, fmt.Errorf("read lock of state folder: %w", err)
	}
	var pid int
	if _, err := fmt.Sscan(string(text), &pid); err != nil || pid <= 1 {
		return nil, fmt.Errorf("lock of state folder names no process: %q", text)
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return nil, fmt.Errorf("end process %d: %w", pid, err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		lock, err := take(dir)
		if !errors.Is(err, ErrBusy) || time.Now().After(deadline) {
			return lock, err
		}
	}
}

// Path is a file in the state folder.
func (s *Stack) Path(names ...string) string { return s.path(names...) }

func (s *Stack) path(names ...string) string {
	return filepath.Join(append([]string{s.dir}, names...)...)
}

// Book records what else is put on the machine for this stack.
func (s *Stack) Book() *Book { return s.book }

func (s *Stack) say(format string, args ...any) {
	fmt.Fprintf(s.opts.Log, "%6.1fs  %s\n", time.Since(s.clock).Seconds(), fmt.Sprintf(format, args...))
}

// add takes a process into the stack and watches it: one that ends before Stop is reported by Died.
func (s *Stack) add(p *process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.processes = append(s.processes, p)
	go func() { // ends with the process
		<-p.done
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.stopping {
			s.report(fmt.Errorf("%w\n%s", p.end(), p.lastWords()))
		}
	}()
}

func (s *Stack) report(err error) {
	select {
	case s.died <- err:
	default: // the first one is enough
	}
}

// Died receives the first part that ended by itself, with the last lines of its log. Nothing is restarted.
func (s *Stack) Died() <-chan error { return s.died }

// Stop ends all parts in reverse order, each by SIGTERM and, if it does not end, SIGKILL. It may be called again.
func (s *Stack) Stop() error {
	s.mu.Lock()
	s.stopping = true
	all := s.processes
	s.processes = nil
	s.mu.Unlock()
	var errs []error
	for _, p := range slices.Backward(all) {
		errs = append(errs, p.stop())
	}
	if s.Kubernetes != nil {
		errs = append(errs, s.Kubernetes.Stop())
		s.Kubernetes = nil
	}
	if s.book != nil {
		errs = append(errs, s.book.file.Close())
		s.book = nil
		_, err := clean(s.dir) // what was recorded and is still there
		errs = append(errs, err)
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
		s.lock = nil
	}
	return errors.Join(errs...)
}

// Memory is the most memory that each part ever had resident, in KiB.
func (s *Stack) Memory() map[string]int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]int64{}
	for _, p := range s.processes {
		out[p.name] = peakMemory(p.cmd.Process.Pid)
	}
	for _, name := range []string{"etcd", "kube-apiserver"} { // children of ours too, but package cluster's
		if pid := child(name); pid != 0 {
			out[name] = peakMemory(pid)
		}
	}
	return out
}

// Temporal connects to Temporal with the codec's keys, as an operator's own tool.
func (s *Stack) Temporal(ctx context.Context) (client.Client, error) { return s.dial(ctx) }

func randomText() string { return rand.Text() + rand.Text() }
