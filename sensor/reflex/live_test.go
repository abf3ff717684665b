package reflex_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
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

	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/internal/sys/needs"
	"tourniquet.dev/tourniquet/internal/trust"
	"tourniquet.dev/tourniquet/sensor/hold"
	"tourniquet.dev/tourniquet/sensor/probe"
	"tourniquet.dev/tourniquet/sensor/process"
	"tourniquet.dev/tourniquet/sensor/reflex"
)

const deedEnv = "TOURNIQUET_TEST_DEED"

// TestMain lets the test binary be the pod's process too: it plays ping-pong with the address in its environment, and ends
// with its standard input.
func TestMain(m *testing.M) {
	address := os.Getenv(deedEnv)
	if address == "" {
		os.Exit(m.Run())
	}
	if deed := benchDeeds[address]; deed != nil {
		deed()
		return
	}
	var exchanged atomic.Int64
	conn, err := net.Dial("tcp", address)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	go func() {
		one := []byte{1}
		for {
			if _, err := conn.Write(one); err != nil {
				return
			}
			if _, err := io.ReadFull(conn, one); err != nil {
				return
			}
			exchanged.Add(1)
		}
	}()
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		fmt.Println(exchanged.Load())
	}
}

// pod is a process of the machine's own network, in a cgroup that is named as a kubelet names them.
type pod struct {
	t       *testing.T
	cmd     *exec.Cmd
	in      io.Writer
	out     *bufio.Scanner
	path    string // of the pod's cgroup, on disk
	cgroup  uint64 // the container's
	podPath string
}

func newPod(t *testing.T, root, address string) *pod {
	t.Helper()
	dirs := podFolders(t, root)
	container, err := os.Open(dirs[4])
	if err != nil {
		t.Fatal(err)
	}
	defer container.Close()
	p := &pod{t: t, cmd: exec.Command("/proc/self/exe"), path: dirs[3], podPath: strings.TrimPrefix(dirs[3], root)}
	var stat syscall.Stat_t
	if err := syscall.Stat(dirs[4], &stat); err != nil {
		t.Fatal(err)
	}
	p.cgroup = stat.Ino
	p.cmd.Env = append(os.Environ(), deedEnv+"="+address)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(container.Fd())}
	in, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.in, p.out = in, bufio.NewScanner(out)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.cmd.Process.Kill(); p.cmd.Wait() })
	eventually(t, "the flow runs", func() bool { return p.count() > 100 })
	return p
}

func (p *pod) count() int {
	p.t.Helper()
	fmt.Fprintln(p.in)
	if !p.out.Scan() {
		p.t.Fatal("the process is gone")
	}
	n, err := strconv.Atoi(p.out.Text())
	if err != nil {
		p.t.Fatal(err)
	}
	return n
}

// podFolders makes the cgroups of a container as a kubelet names them; the pod's is the fourth, the container's the fifth.
func podFolders(t testing.TB, root string) []string {
	t.Helper()
	base, err := os.MkdirTemp(root, "reflex-test-*")
	if err != nil {
		t.Fatal(err)
	}
	dirs := []string{base}
	for _, name := range []string{"kubepods", "burstable", "pod" + uid(1), containerID} {
		dirs = append(dirs, filepath.Join(dirs[len(dirs)-1], name))
		if err := os.Mkdir(dirs[len(dirs)-1], 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for i := len(dirs) - 1; i >= 0; i-- {
			eventually(t, "cgroup is empty", func() bool { return syscall.Rmdir(dirs[i]) != syscall.EBUSY })
		}
	})
	return dirs
}

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for deadline := time.Now().Add(20 * time.Second); !is(); <-look.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func echo(t *testing.T, address string) string {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() { defer conn.Close(); io.Copy(conn, conn) }()
		}
	}()
	return listener.Addr().String()
}

// live is a reflex on this machine's kernel.
func live(t *testing.T, address string, lines ...string) (*reflex.Reflex, *hold.Table, *pod) {
	t.Helper()
	needs.Root(t)
	needs.BTF(t)
	needs.Kernel(t, needs.CgroupSkb)
	needs.Kernel(t, needs.CgroupAddr)
	needs.Kernel(t, needs.CgroupWrite)
	root := needs.CgroupV2(t)
	p := newPod(t, root, echo(t, address))
	table, err := hold.Open(hold.Options{CgroupRoot: root})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { table.Close() })
	freezer, _, err := hold.OpenFreezer(root, t.TempDir(), "boot")
	if err != nil {
		t.Fatal(err)
	}
	n := newNode(t, func(c *trust.ReflexCeiling) { c.HostNetwork = true }, lines...)
	host := n.pods[uid(1)]
	host.HostNetwork = true
	n.pods[uid(1)] = host
	if n.o.Cgroups, err = process.NewCgroups(root); err != nil {
		t.Fatal(err)
	}
	n.o.Holds, n.o.Freezer, n.o.Now, n.o.Boot = table, freezer, time.Now, hold.Now
	n.o.Kill = func(pid uint32, start time.Duration) error { return hold.Kill("/proc", pid, start) }
	n.restart(t)
	return n.r, table, p
}

func (p *pod) match(r *reflex.Reflex) map[string]string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	ticks, err := strconv.ParseInt(strings.Fields(string(data)[strings.LastIndexByte(string(data), ')')+2:])[19], 10, 64)
	if err != nil {
		p.t.Fatal(err)
	}
	d := &detection.Detection{Rule: "server-shell", Severity: detection.High, Confidence: 90, Attacks: []detection.Attack{{TechniqueID: "T1059"}}}
	r.Strike(reflex.Match{Detection: d, Container: process.Container{ID: containerID, PodUID: uid(1)}, Cgroup: p.cgroup,
		Actor: probe.ID{TGID: uint32(p.cmd.Process.Pid), Start: time.Duration(ticks) * 10 * time.Millisecond}})
	return d.Evidence
}

func TestAPodOnTheHostsNetworkIsCutAndGoesOn(t *testing.T) {
	for name, address := range map[string]string{"v4": "127.0.0.1:0", "v6": "[::1]:0"} {
		t.Run(name, func(t *testing.T) {
			if conn, err := net.Listen("tcp", address); err != nil {
				t.Fatal(err)
			} else {
				conn.Close()
			}
			r, table, p := live(t, address, "do: cut, confidence: 80, for: 2s")
			begun := hold.Now()
			if e := p.match(r); e["reflex"] != "cut" || e["reflex_playbook"] != "stolen v1" {
				t.Fatalf("%v", e)
			}
			var stat syscall.Stat_t
			if err := syscall.Stat(p.path, &stat); err != nil {
				t.Fatal(err)
			}
			eventually(t, "a packet is dropped", func() bool {
				held, err := table.Get(stat.Ino)
				return err == nil && held.Drops.EgressPackets > 0
			})
			if before := p.count(); p.count() != before {
				t.Error("the flow runs on")
			}
			before := p.count()
			eventually(t, "the flow runs again", func() bool { return p.count() > before+100 }) // nobody lifted it
			if hold.Now()-begun < 2*time.Second {
				t.Error("the cut ended early")
			}
		})
	}
}

func TestAPodIsFrozenAndThawed(t *testing.T) {
	r, _, p := live(t, "127.0.0.1:0", "do: freeze, confidence: 80, for: 1s")
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	t.Cleanup(func() { // before the state's folder goes
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	begun := hold.Now()
	if e := p.match(r); e["reflex"] != "freeze" {
		t.Fatalf("%v", e)
	}
	events := func() string {
		data, err := os.ReadFile(filepath.Join(p.path, "cgroup.events"))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	eventually(t, "it is frozen", func() bool { return strings.Contains(events(), "frozen 1") })
	p.count() // answers when it is thawed
	if hold.Now()-begun < time.Second {
		t.Error("thawed early")
	}
}

func TestTheProcessIsKilled(t *testing.T) {
	r, _, p := live(t, "127.0.0.1:0", "do: kill, confidence: 80")
	if e := p.match(r); e["reflex"] != "kill" {
		t.Fatalf("%v", e)
	}
	if state, err := p.cmd.Process.Wait(); err != nil || state.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("ended %v, %v", state, err)
	}
}
