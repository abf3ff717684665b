// Package demo_test runs the demo's program as a person would, stops it in the ways that people do, and looks from outside
// at what it leaves on the machine.
package demo_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf/link"

	"tourniquet.dev/tourniquet/internal/sys/needs"
)

// demo is a running demo.
type demo struct {
	t       *testing.T
	program string
	state   string
	env     []string
	cmd     *exec.Cmd
	out     bytes.Buffer // all that it said, once it has ended
	lines   chan string
}

// build makes the demo's program in a folder of the test's own.
func build(t *testing.T) *demo {
	t.Helper()
	d := &demo{t: t, program: filepath.Join(t.TempDir(), "demo"), state: filepath.Join(t.TempDir(), "state")}
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", d.program, "./dev/demo")
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the demo: %v: %s", err, out)
	}
	d.env = append(os.Environ(), "DEMO_STATE="+d.state)
	t.Cleanup(func() { // a failed test leaves nothing either
		if d.cmd != nil && d.cmd.ProcessState == nil {
			_ = d.cmd.Process.Kill()
			d.end()
			d.down()
		}
	})
	return d
}

// up starts the demo and returns when a person is asked to press the button.
func (d *demo) up() {
	d.t.Helper()
	d.out.Reset()
	d.cmd = exec.Command(d.program, "up")
	d.cmd.Dir, d.cmd.Env = "../..", d.env
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := d.cmd.StdoutPipe()
	if err == nil {
		d.cmd.Stderr = d.cmd.Stdout
		err = d.cmd.Start()
	}
	if err != nil {
		d.t.Fatal(err)
	}
	d.lines = make(chan string, 4096)
	go func() { // ends with the program
		defer close(d.lines)
		for in := bufio.NewScanner(out); in.Scan(); {
			d.lines <- in.Text()
		}
	}()
	d.await("press Approve")
}

// await reads on until a line has the words.
func (d *demo) await(words string) {
	d.t.Helper()
	deadline := time.NewTimer(10 * time.Minute) // a first build of the API server
	defer deadline.Stop()
	for {
		select {
		case line, more := <-d.lines:
			fmt.Fprintln(&d.out, line)
			if strings.Contains(line, words) {
				return
			}
			if !more {
				d.t.Fatalf("the demo ended before it said %q:\n%s", words, d.out.String())
			}
		case <-deadline.C:
			d.t.Fatalf("the demo does not say %q:\n%s", words, d.out.String())
		}
	}
}

// end waits for the program and returns its exit code.
func (d *demo) end() int {
	for line := range d.lines {
		fmt.Fprintln(&d.out, line)
	}
	_ = d.cmd.Wait() // its code says all
	return d.cmd.ProcessState.ExitCode()
}

func (d *demo) down() string {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, d.program, "down")
	cmd.Dir, cmd.Env = "../..", d.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		d.t.Errorf("demo down: %v: %s", err, out)
	}
	return string(out)
}

// marks are what the demo has put on the machine: found from outside, and by the book that it keeps.
type marks struct {
	processes []string // names, of those whose command line names the state folder or that stand in the book
	netns     []string
	cgroups   []string
	links     []link.ID // in the kernel, held by those processes
}

func (m marks) empty() bool {
	return len(m.processes)+len(m.netns)+len(m.cgroups)+len(m.links) == 0
}

type entry struct {
	Kind, Name, Start string
	PID               int
}

// book reads what the demo says that it put on the machine.
func (d *demo) book() []entry {
	data, err := os.ReadFile(filepath.Join(d.state, "machine.jsonl"))
	if err != nil {
		return nil
	}
	var all []entry
	for line := range bytes.Lines(data) {
		var e entry
		if json.Unmarshal(line, &e) == nil {
			all = append(all, e)
		}
	}
	return all
}

// look finds what of the book is on the machine, and every process that knows the state folder.
func (d *demo) look(book []entry) marks {
	var m marks
	for _, pid := range processes() {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		cwd, _ := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
		if !strings.Contains(string(line), d.state) && !strings.HasPrefix(cwd, d.state) {
			continue
		}
		m.processes = append(m.processes, strings.ReplaceAll(strings.TrimRight(string(line), "\x00"), "\x00", " "))
		m.links = append(m.links, linksOf(pid)...)
	}
	for _, e := range book {
		switch e.Kind {
		case "netns":
			if _, err := os.Stat("/run/netns/" + e.Name); err == nil {
				m.netns = append(m.netns, e.Name)
			}
		case "cgroup", "cgroup folder":
			if _, err := os.Stat(e.Name); err == nil {
				m.cgroups = append(m.cgroups, e.Name)
			}
		}
	}
	return m
}

func processes() []int {
	entries, _ := os.ReadDir("/proc")
	var out []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && pid != os.Getpid() {
			out = append(out, pid)
		}
	}
	return out
}

// linksOf are the bpf links that a process holds open.
func linksOf(pid int) []link.ID {
	infos, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", pid))
	var out []link.ID
	for _, path := range infos {
		data, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(data)) {
			if text, ok := strings.CutPrefix(line, "link_id:"); ok {
				if id, err := strconv.Atoi(strings.TrimSpace(text)); err == nil {
					out = append(out, link.ID(id))
				}
			}
		}
	}
	return out
}

// clean waits until nothing of what was there before is there any more.
func (d *demo) clean(was marks, book []entry) {
	d.t.Helper()
	var left marks
	var links []link.ID
	for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		left, links = d.look(book), nil
		for _, id := range was.links {
			if l, err := link.NewFromID(id); err == nil {
				links = append(links, id)
				l.Close()
			} else if !errors.Is(err, os.ErrNotExist) {
				d.t.Errorf("ask for link %d: %v", id, err)
			}
		}
		if left.empty() && len(links) == 0 {
			return
		}
	}
	d.t.Errorf("left behind: %+v, links %v", left, links)
}

// TestDemoLeavesNothing: killed and cleaned by the next command, or stopped by Ctrl-C, the demo leaves no process, network
// namespace, cgroup or bpf object; and it never speaks to what the person's environment names.
func TestDemoLeavesNothing(t *testing.T) {
	needs.Root(t)
	needs.BTF(t)
	needs.CgroupV2(t)
	d := build(t)
	trap, asked := listen(t)
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(kubeconfig, fmt.Appendf(nil, `{"apiVersion":"v1","kind":"Config","current-context":"c","contexts":[{"name":"c","context":{"cluster":"c","user":"u"}}],
		"clusters":[{"name":"c","cluster":{"server":"http://%s"}}],"users":[{"name":"u","user":{"token":"t"}}]}`, trap), 0o600); err != nil {
		t.Fatal(err)
	}
	d.env = append(d.env, "KUBECONFIG="+kubeconfig, "AWS_ENDPOINT_URL=http://"+trap, "AWS_ACCESS_KEY_ID=AKIAEXAMPLE000000009", "AWS_SECRET_ACCESS_KEY=x",
		"AWS_REGION=eu-west-1", "SLACK_BOT_TOKEN=xoxb-1", "SLACK_API_URL=http://"+trap+"/", "TEMPORAL_ADDRESS="+trap)

	d.up()
	book := d.book()
	was := d.look(book)
	if len(was.processes) < 8 || len(was.netns) < 2 || len(was.cgroups) < 1 || len(was.links) < 5 {
		t.Fatalf("a running demo shows %d processes, namespaces %v, cgroups %v and %d links: the test looks past it; its book: %+v",
			len(was.processes), was.netns, was.cgroups, len(was.links), book)
	}
	if err := d.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	d.end()
	t.Logf("after kill -9: %s", strings.ReplaceAll(strings.TrimSpace(d.down()), "\n", "; "))
	d.clean(was, book)

	d.up() // on the state folder of a demo that was killed
	book = d.book()
	was = d.look(book)
	if err := d.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if code := d.end(); code != 0 || !strings.Contains(d.out.String(), "nothing is left behind") {
		t.Errorf("Ctrl-C ended it with %d:\n%s", code, d.out.String())
	}
	d.clean(was, book)
	if n := asked.Load(); n != 0 {
		t.Errorf("what the environment names was asked %d times", n)
	}
}

// listen counts who connects.
func listen(t *testing.T) (address string, asked *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	asked = &atomic.Int64{}
	go func() { // ends with the listener
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			asked.Add(1)
			c.Close()
		}
	}()
	return l.Addr().String(), asked
}
