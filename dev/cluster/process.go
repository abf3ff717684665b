package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// stopWithin is how long a process may take to end by itself; a busy API server closes its watches in about a second.
const stopWithin = 20 * time.Second

// A process is one of the cluster's two children.
type process struct {
	name string
	log  string // path
	cmd  *exec.Cmd
	done chan struct{} // closed after err is set
	err  error
}

// startProcess starts a binary of BinDir, with its output appended to a file in StateDir.
func startProcess(opts Options, name string, flags []string) (*process, error) {
	p := &process{name: name, log: filepath.Join(opts.StateDir, name+".log"), done: make(chan struct{})}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log of %s: %w", name, err)
	}
	defer out.Close()
	p.cmd = exec.Command(filepath.Join(opts.BinDir, name), flags...)
	p.cmd.Dir = opts.StateDir
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.Env = environment()
	p.cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig: syscall.SIGKILL, // dies with us, even when we are killed
		Setpgid:   true,            // Ctrl-C reaches us alone, and we stop it in order
	}
	started := make(chan error)
	go func() { // ends with the process; stop waits for it
		// The kernel sends the death signal when the *thread* that forked ends: this one stays as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

// environment is ours without the variables that would change what a server does.
func environment() []string {
	var env []string
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if strings.HasPrefix(name, "ETCD_") || strings.HasPrefix(name, "KUBE") || strings.HasSuffix(strings.ToUpper(name), "_PROXY") {
			continue
		}
		env = append(env, v)
	}
	return env
}

// stop ends the process and waits until it is gone. It may be called on nil, and again.
func (p *process) stop() error {
	if p == nil {
		return nil
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails only when it has ended
	timeout := time.NewTimer(stopWithin)
	defer timeout.Stop()
	select {
	case <-p.done:
		return nil
	case <-timeout.C:
	}
	_ = p.cmd.Process.Kill()
	<-p.done
	return fmt.Errorf("%s did not end within %s and was killed", p.name, stopWithin)
}

// end says how a process that is done has ended.
func (p *process) end() error {
	if p.err == nil {
		return fmt.Errorf("%s ended", p.name)
	}
	return fmt.Errorf("%s ended: %w", p.name, p.err)
}

// lastWords returns the end of the process's log as an error.
func (p *process) lastWords() error {
	const lines, bytes = 12, 8 << 10
	b, err := os.ReadFile(p.log)
	if err != nil {
		return fmt.Errorf("read log of %s: %w", p.name, err)
	}
	b = b[max(0, len(b)-bytes):]
	said := strings.Split(strings.TrimSpace(string(b)), "\n")
	return errors.New(p.name + " said last:\n  " + strings.Join(said[max(0, len(said)-lines):], "\n  "))
}
