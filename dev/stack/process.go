package stack

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	readyWithin = 2 * time.Minute  // seconds on an idle machine; a busy one must not fail
	stopWithin  = 15 * time.Second // then it is killed
)

// A process is one part of the stack, in a process of its own.
type process struct {
	name string
	log  string // path
	cmd  *exec.Cmd
	done chan struct{} // closed after err is set
	err  error

	stopping sync.Once
}

// command says what to run. Everything the process knows stands in its arguments and files: its environment is empty but
// for PATH, HOME (an empty folder) and TMPDIR.
type command struct {
	name string
	bin  string
	args []string
	// stdin, if not nil, is the process's standard input.
	stdin io.Reader
}

// start starts a process and waits for its line of JSON on standard output. When that does not come, nothing is left
// running, and the error has the last lines of its log.
func (s *Stack) start(ctx context.Context, c command) (ready map[string]any, err error) {
	p := &process{name: c.name, log: filepath.Join(s.dir, "logs", c.name+".log"), done: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log of %s: %w", c.name, err)
	}
	stdout, in, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", c.name, err), log.Close())
	}
	p.cmd = exec.Command(c.bin, c.args...) // #nosec G204 -- binaries that we built
	p.cmd.Dir = s.dir
	p.cmd.Env = s.environment()
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = c.stdin, in, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig: syscall.SIGKILL, // dies with us, even when we are killed
		Setpgid:   true,            // Ctrl-C reaches us alone, and we stop all in order
	}
	lines := make(chan string, 1)
	if err := p.run(); err != nil {
		return nil, errors.Join(err, log.Close(), in.Close(), stdout.Close())
	}
	_ = in.Close()
	go func() { // ends with the process, which holds the other end
		defer stdout.Close()
		defer log.Close()
		first(stdout, log, lines)
	}()
	if err := s.book.process(c.name, p.cmd.Process.Pid); err != nil {
		return nil, errors.Join(err, p.stop())
	}
	s.add(p)
	ctx, cancel := context.WithTimeoutCause(ctx, readyWithin, fmt.Errorf("not ready within %s", readyWithin))
	defer cancel()
	select {
	case line, ok := <-lines:
		if ok && json.Unmarshal([]byte(line), &ready) == nil {
			return ready, nil
		}
		err = fmt.Errorf("its first line is not the JSON of a process that is ready: %.200q", line)
		if !ok {
			<-p.done
			err = p.end()
		}
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	return nil, fmt.Errorf("start %s: %w\n%s", c.name, err, p.lastWords())
}

// run starts the process from a thread that lives as long as the child: the kernel sends the death signal when the
// *thread* that forked ends.
func (p *process) run() error {
	started := make(chan error)
	go func() { // ends with the process
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
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	return nil
}

// first sends the first line, if it comes, and writes everything to the log.
func first(r io.Reader, log io.Writer, lines chan<- string) {
	defer close(lines)
	in := bufio.NewReaderSize(r, 64<<10)
	line, err := in.ReadString('\n')
	if err == nil {
		_, _ = io.WriteString(log, line)
		lines <- line
	}
	_, _ = io.Copy(log, in)
}

// environment is all that a part inherits of ours: a demo must not know a real cluster, account or Slack.
func (s *Stack) environment() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + filepath.Join(s.dir, "home"), "TMPDIR=" + filepath.Join(s.dir, "tmp")}
}

// stop ends the process and waits until it is gone. It may be called again.
func (p *process) stop() (err error) {
	p.stopping.Do(func() {
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails only when it has ended
		timeout := time.NewTimer(stopWithin)
		defer timeout.Stop()
		select {
		case <-p.done:
			return
		case <-timeout.C:
		}
		_ = p.cmd.Process.Kill()
		<-p.done
		err = fmt.Errorf("%s did not end within %s and was killed", p.name, stopWithin)
	})
	return err
}

// end says how a process that is done has ended.
func (p *process) end() error {
	if p.err == nil {
		return fmt.Errorf("%s ended by itself", p.name)
	}
	return fmt.Errorf("%s ended: %w", p.name, p.err)
}

// lastWords returns the end of the process's log.
func (p *process) lastWords() string { return tail(p.log, p.name) }

func tail(path, name string) string {
	const lines, bytes = 12, 8 << 10
	b, err := os.ReadFile(path) // #nosec G304 -- our own log
	if err != nil {
		return fmt.Sprintf("its log cannot be read: %v", err)
	}
	said := strings.Split(strings.TrimSpace(string(b[max(0, len(b)-bytes):])), "\n")
	return fmt.Sprintf("%s said last (%s):\n  %s", name, path, strings.Join(said[max(0, len(said)-lines):], "\n  "))
}

// peakMemory is the most memory, in KiB, that a process ever had resident; 0 when it is gone.
func peakMemory(pid int) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	var kib int64
	for line := range strings.Lines(string(status)) {
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kib); err == nil {
			return kib
		}
	}
	return 0
}

// child is the process id of our child with that name; 0 when there is none.
func child(name string) int {
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0
	}
	for _, path := range paths {
		var pid, parent int
		var comm, state string
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // it ended meanwhile
		}
		if n, _ := fmt.Sscanf(string(stat), "%d %s %s %d", &pid, &comm, &state, &parent); n == 4 && parent == os.Getpid() && comm == "("+name+")" {
			return pid
		}
	}
	return 0
}
