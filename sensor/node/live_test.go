package node_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"tourniquet.dev/tourniquet/bpf"
	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/authz/authztest"
	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/internal/identity"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/sys/needs"
	"tourniquet.dev/tourniquet/internal/sys/spool"
	"tourniquet.dev/tourniquet/internal/trust"
	"tourniquet.dev/tourniquet/sensor/hold"
	"tourniquet.dev/tourniquet/sensor/node"
	"tourniquet.dev/tourniquet/sensor/probe"
	"tourniquet.dev/tourniquet/sensor/process"
	"tourniquet.dev/tourniquet/sensor/rule"
)

const deedEnv = "TOURNIQUET_TEST_DEED"

// TestMain lets the test binary be the container's main program too: it obeys one command a line, and ends with its
// standard input.
func TestMain(m *testing.M) {
	if os.Getenv(deedEnv) == "" {
		os.Exit(m.Run())
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		verb, rest, _ := strings.Cut(lines.Text(), " ")
		var err error
		switch verb {
		case "sh":
			err = exec.Command("/bin/sh", "-c", rest).Run() //nolint:gosec // the test's own words
		case "unix":
			var conn net.Conn
			if conn, err = net.Dial("unix", rest); err == nil {
				conn.Close()
			}
		case "ask":
			err = ask(rest)
		case "dial":
			var conn net.Conn
			if conn, err = net.DialTimeout("tcp", rest, 5*time.Second); err == nil {
				conn.Close()
			}
		}
		if errors.Is(err, syscall.EPERM) {
			err = syscall.EPERM
		}
		fmt.Println(err)
	}
}

// ask sends a DNS query for a name of two labels to this machine, where nobody answers.
func ask(name string) error {
	conn, err := net.Dial("udp", "127.0.0.1:53")
	if err != nil {
		return err
	}
	defer conn.Close()
	query := []byte{0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	for _, label := range strings.Split(name, ".") {
		query = append(append(query, byte(len(label))), label...)
	}
	_, err = conn.Write(append(query, 0, 0, 1, 0, 1))
	return err
}

// tool is the test binary under another name, so that it is not the container's main program.
func tool(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "tool")
	if err := os.WriteFile(path, data, 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// pod is a real process in a real cgroup, named as a kubelet names them.
type pod struct {
	t       *testing.T
	in      io.WriteCloser
	out     *bufio.Scanner
	cgroups []uint64 // the pod's and the container's
}

func newPod(t *testing.T, root string) *pod {
	t.Helper()
	base, err := os.MkdirTemp(root, "node-test-*")
	if err != nil {
		t.Fatal(err)
	}
	p := &pod{t: t}
	dirs := []string{base}
	for _, name := range []string{"kubepods", "burstable", "pod" + authztest.PodUID, containerID} {
		dirs = append(dirs, filepath.Join(dirs[len(dirs)-1], name))
		if err := os.Mkdir(dirs[len(dirs)-1], 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		slices.Reverse(dirs)
		for _, d := range dirs {
			for range 100 { // the kernel lets go of an ended process a little later
				if err := syscall.Rmdir(d); err != syscall.EBUSY {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
		}
	})
	for _, d := range dirs[len(dirs)-2:] {
		var stat syscall.Stat_t
		if err := syscall.Stat(d, &stat); err != nil {
			t.Fatal(err)
		}
		p.cgroups = append(p.cgroups, stat.Ino)
	}
	p.start(dirs[len(dirs)-1])
	return p
}

func (p *pod) start(cgroup string) {
	p.t.Helper()
	dir, err := os.Open(cgroup)
	if err != nil {
		p.t.Fatal(err)
	}
	defer dir.Close()
	self, err := os.Executable()
	if err != nil {
		p.t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = []string{deedEnv + "=pod", "PATH=" + os.Getenv("PATH"), "AWS_ACCESS_KEY_ID=" + authztest.KeyID, "AWS_SECRET_ACCESS_KEY=" + strings.Repeat("x", 40)}
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	out, err := cmd.StdoutPipe()
	if err == nil {
		p.in, err = cmd.StdinPipe()
	}
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		p.t.Fatal(err)
	}
	p.out = bufio.NewScanner(out)
	p.t.Cleanup(func() {
		p.in.Close()
		if err := cmd.Wait(); err != nil {
			p.t.Error(err)
		}
	})
}

// do has the main program do something and returns how it went.
func (p *pod) do(command string) string {
	p.t.Helper()
	if _, err := fmt.Fprintln(p.in, command); err != nil {
		p.t.Fatal(err)
	}
	if !p.out.Scan() {
		p.t.Fatal("the pod has ended")
	}
	return p.out.Text()
}

// live is a node on the real kernel.
type live struct {
	*rig
	node    *node.Node
	spool   *spool.Spool
	watched chan uint64 // cgroups, as they come under watch
}

func newLive(t *testing.T, root string) *live {
	t.Helper()
	l := &live{rig: newRig(time.Now()), watched: make(chan uint64, 1024)}
	reader, err := probe.New(probe.Options{Options: bpf.Options{CgroupRoot: root, Hooks: node.Hooks(bundledWatch(t), false)}, Config: bpf.Config{SelfTGID: uint32(os.Getpid()), MaxArgs: 256},
		Filter: node.Filter(bundledWatch(t))})
	if err != nil {
		t.Fatal(err)
	}
	holds, err := hold.Open(hold.Options{CgroupRoot: root})
	if err != nil {
		t.Fatal(err)
	}
	if l.spool, err = spool.Open(spool.Options{Dir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	o := l.options(t)
	o.Source, o.Tree, o.Holds, o.Spool = reader, process.NewTree(process.TreeOptions{Proc: "/proc", CgroupRoot: root}), holds, l.spool
	if o.Cgroups, err = process.NewCgroups(root); err != nil {
		t.Fatal(err)
	}
	o.Watch = func(id uint64) error {
		err := reader.Watch(id, 1)
		l.watched <- id
		return err
	}
	o.Hints = func(pid uint32) (process.Hints, error) { return process.ReadHints("/proc", pid) }
	o.Now, o.Boot = time.Now, bpf.Now
	if testing.Verbose() {
		o.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	if err := o.Tree.Fill(); err != nil {
		t.Fatal(err)
	}
	if l.node, err = node.New(o); err != nil {
		t.Fatal(err)
	}
	l.node.WatchAll()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.node.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, reader.Close(), holds.Close(), l.spool.Close()); err != nil {
			t.Error(err)
		}
	})
	return l
}

// await returns when the pod's container is watched: the kernel tells of new cgroups with a little delay.
func (l *live) await(t *testing.T, p *pod) {
	t.Helper()
	for {
		select {
		case id := <-l.watched:
			if id == p.cgroups[1] {
				return
			}
		case <-time.After(20 * time.Second):
			t.Fatal("the container did not come under watch")
		}
	}
}

// next returns the next envelope of the spool. What the sensor says of itself, that it lost something on a busy machine, is
// passed over.
func (l *live) next(t *testing.T) (authz.Envelope, spool.Record) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r, err := l.spool.Next(ctx)
	if err != nil {
		t.Fatalf("nothing more in the spool: %v; %+v", err, l.node.Stats())
	}
	e, err := authz.DecodeEnvelope(r.Payload)
	if err != nil {
		t.Fatal(err)
	}
	if d, err := authz.OpenDetection(l.world.TrustFile, e); err == nil && d.Rule == node.RuleLost {
		t.Log(d.Evidence)
		return l.next(t)
	}
	return e, r
}

func kernelOrSkip(t *testing.T) string {
	t.Helper()
	needs.Root(t)
	needs.BTF(t)
	root := needs.CgroupV2(t)
	for _, f := range []needs.Feature{needs.Bpf, needs.RingBuffer, needs.Tracepoints, needs.CgroupAddr, needs.CgroupSkb, needs.CgroupWrite} {
		needs.Kernel(t, f)
	}
	return root
}

func TestShellInAPodIsDetected(t *testing.T) {
	root := kernelOrSkip(t)
	l := newLive(t, root)
	p := newPod(t, root)
	l.await(t, p)
	home, err := os.MkdirTemp("", "home")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(home)
	file := filepath.Join(home, ".aws", "credentials")
	if err := os.Mkdir(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("[default]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := p.do("sh cat " + file + " > /dev/null; true"); got != "<nil>" {
		t.Fatal(got)
	}
	var found []*detection.Detection
	var spooled time.Time
	for range 2 {
		e, r := l.next(t)
		d, err := authz.OpenDetection(l.world.TrustFile, e)
		if err != nil {
			t.Fatal(err)
		}
		found, spooled = append(found, d), r.Time
	}
	if found[0].Rule != "server-shell" || found[1].Rule != "aws-credentials-read" {
		t.Fatalf("%s, %s", found[0].Rule, found[1].Rule)
	}
	d := found[1]
	if d.Workload.PodUID != authztest.PodUID || d.Workload.Pod != "cart-7" || d.Workload.CgroupID != p.cgroups[1] || d.Evidence["path"] != file {
		t.Errorf("%+v, %v", d.Workload, d.Evidence)
	}
	if d.Identities[0].Name != authztest.KeyID || d.Identities[0].Link != identity.Attested {
		t.Errorf("%+v", d.Identities)
	}
	if time.Since(d.Time).Abs() > time.Minute {
		t.Errorf("happened at %v", d.Time)
	}
	t.Logf("system call to user space %v, to the spool %v", time.Duration(d.SeenNS-d.KernelNS), spooled.Sub(d.Time))
}

// TestRareCallInAPodIsDetected: what a tool in a real container does by a rare system call, by a local socket or by asking
// for a name comes through every layer from the kernel to the spool.
func TestRareCallInAPodIsDetected(t *testing.T) {
	root := kernelOrSkip(t)
	l := newLive(t, root)
	p := newPod(t, root)
	l.await(t, p)
	dir := t.TempDir()
	sock, err := net.Listen("unix", filepath.Join(dir, "docker.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer sock.Close()
	deeds := "unix " + sock.Addr().String() + "\\nask " + strings.Repeat("a", 60) + "." + strings.Repeat("b", 60) + "\\n"
	for _, deed := range []string{"unshare --user true; true", "printf '" + deeds + "' | " + tool(t)} {
		if got := p.do("sh " + deed); got != "<nil>" {
			t.Fatal(got)
		}
	}
	want := map[string]bool{"namespace-entered": true, "container-runtime-socket": true, "dns-exfiltration": true}
	for len(want) > 0 {
		e, _ := l.next(t)
		d, err := authz.OpenDetection(l.world.TrustFile, e)
		if err != nil {
			t.Fatal(err)
		}
		if want[d.Rule] && d.Workload.PodUID != authztest.PodUID {
			t.Errorf("%s of %+v", d.Rule, d.Workload)
		}
		delete(want, d.Rule)
	}
}

func TestOrderCutsARealPod(t *testing.T) {
	root := kernelOrSkip(t)
	l := newLive(t, root)
	p := newPod(t, root)
	l.await(t, p)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	dial := "dial " + listener.Addr().String()
	if got := p.do(dial); got != "<nil>" {
		t.Fatal(got)
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	order := authz.Order{V: 1, Key: "k", IncidentID: "iabcdefghijkl", PlanDigest: plan.DigestOf(nil), Action: plan.NodeCutNetwork, Cluster: authztest.Cluster,
		Namespace: authztest.Namespace, Pod: "cart-7", PodUID: authztest.PodUID, IssuedAt: now, Until: now.Add(time.Minute)}
	carry := func(orders ...authz.Order) {
		changed := cart
		changed.Annotations = map[string]string{}
		for i, o := range orders {
			changed.Annotations[fmt.Sprintf("%s%d", node.OrderPrefix, i)] = encode(l.world.Signers[trust.RoleContainKubernetes], o)
		}
		l.node.PodChanged(changed)
	}
	receipt := func(phase plan.Phase) plan.Receipt {
		e, _ := l.next(t)
		r, err := authz.OpenReceipt(l.world.TrustFile, e)
		if err != nil || r.Phase != phase {
			t.Fatalf("%+v, %v", r, err)
		}
		return r
	}
	carry(order)
	if r := receipt(plan.Applied); r.Effects[0].Object != fmt.Sprintf("cgroup %d", p.cgroups[0]) || r.Detail["in_force"] != "1 of 1" {
		t.Errorf("%+v", r)
	}
	if got := p.do(dial); got != syscall.EPERM.Error() {
		t.Errorf("dialled: %s", got)
	}
	if r := receipt(plan.Applied); r.Detail["refused_connects"] != "1" {
		t.Errorf("%+v", r.Detail)
	}
	off := order
	off.Lift, off.IssuedAt = true, now.Add(time.Millisecond)
	carry(order, off)
	receipt(plan.Undone)
	if got := p.do(dial); got != "<nil>" {
		t.Errorf("after the lift: %s", got)
	}
}

func bundledWatch(t *testing.T) rule.Watch {
	t.Helper()
	s, err := rule.Bundled()
	if err != nil {
		t.Fatal(err)
	}
	return s.Watch()
}
