package reflex_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"tourniquet.dev/tourniquet/bpf"
	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/authz/authztest"
	"tourniquet.dev/tourniquet/internal/sys/needs"
	"tourniquet.dev/tourniquet/internal/sys/spool"
	"tourniquet.dev/tourniquet/internal/trust"
	"tourniquet.dev/tourniquet/sensor/hold"
	"tourniquet.dev/tourniquet/sensor/node"
	"tourniquet.dev/tourniquet/sensor/probe"
	"tourniquet.dev/tourniquet/sensor/process"
	"tourniquet.dev/tourniquet/sensor/reflex"
	"tourniquet.dev/tourniquet/sensor/rule"
)

// The parties of the bench, each this test binary: the container's first process, the attacker below it, and the peer in
// another network namespace. They obey one command a line.
var benchDeeds = map[string]func(){
	"bench-main": func() {
		child := exec.Command(os.Getenv("ATTACKER")) // not the container's main program
		child.Env = append(os.Environ(), deedEnv+"=bench-attacker")
		child.Stdin, child.Stdout, child.Stderr = os.Stdin, os.Stdout, os.Stderr
		if err := child.Run(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	},
	"bench-attacker": func() { obey(map[string]func([]string) string{"net": setUpNet, "flow": flow, "open": openFile}) },
	"bench-peer":     func() { obey(map[string]func([]string) string{"net": setUpNet, "serve": serve, "last": lastByte}) },
}

func obey(commands map[string]func(args []string) string) {
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		fmt.Println(commands[fields[0]](fields[1:]))
	}
}

func said(err error) string {
	if err == nil {
		return "ok"
	}
	return strings.ReplaceAll(err.Error(), "\n", " ")
}

func setUpNet(args []string) string {
	for _, c := range []string{"link set lo up", "addr add 10.78.0." + args[1] + "/24 dev " + args[0], "link set " + args[0] + " up"} {
		if out, err := exec.Command("ip", strings.Fields(c)...).CombinedOutput(); err != nil {
			return fmt.Sprintf("ip %s: %v %s", c, err, out)
		}
	}
	return "ok"
}

var (
	lastAt  atomic.Int64
	current net.Conn
)

// serve notes when the last byte came, and answers a ping.
func serve([]string) string {
	listener, err := net.Listen("tcp", "10.78.0.2:7000")
	if err != nil {
		return said(err)
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				buf := make([]byte, 64<<10)
				for {
					n, err := conn.Read(buf)
					if err != nil {
						return
					}
					lastAt.Store(int64(bpf.Now()))
					if n == 1 {
						conn.Write(buf[:1])
					}
				}
			}()
		}
	}()
	return "ok"
}

func lastByte([]string) string { return strconv.FormatInt(lastAt.Load(), 10) }

// flow begins to play ping-pong, or to send as fast as it goes.
func flow(args []string) string {
	if current != nil {
		current.Close()
	}
	conn, err := net.Dial("tcp", "10.78.0.2:7000")
	if err != nil {
		return said(err)
	}
	current = conn
	go func() {
		buf := make([]byte, 1)
		if args[0] == "bulk" {
			buf = make([]byte, 32<<10)
		}
		for {
			if _, err := conn.Write(buf); err != nil {
				return
			}
			if len(buf) == 1 {
				if _, err := io.ReadFull(conn, buf); err != nil {
					return
				}
			}
		}
	}()
	return "ok"
}

// openFile returns when the system call began.
func openFile(args []string) string {
	at := bpf.Now()
	f, err := os.Open(args[0])
	if err != nil {
		return said(err)
	}
	f.Close()
	return strconv.FormatInt(int64(at), 10)
}

type party struct {
	b   *testing.B
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func begin(b *testing.B, deed, cgroup string) *party {
	b.Helper()
	dir, err := os.Open(cgroup)
	if err != nil {
		b.Fatal(err)
	}
	defer dir.Close()
	p := &party{b: b, cmd: exec.Command("/proc/self/exe")}
	p.cmd.Env, p.cmd.Stderr = append(os.Environ(), deedEnv+"="+deed), os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	var out io.Reader
	if p.in, err = p.cmd.StdinPipe(); err == nil {
		if out, err = p.cmd.StdoutPipe(); err == nil {
			err = p.cmd.Start()
		}
	}
	if err != nil {
		b.Fatal(err)
	}
	p.out = bufio.NewScanner(out)
	b.Cleanup(func() { p.in.Close(); p.cmd.Wait() })
	return p
}

func (p *party) tell(command string) string {
	p.b.Helper()
	fmt.Fprintln(p.in, command)
	if !p.out.Scan() {
		p.b.Fatal("a party is gone")
	}
	return p.out.Text()
}

func (p *party) must(command string) {
	p.b.Helper()
	if got := p.tell(command); got != "ok" {
		p.b.Fatalf("%s: %s", command, got)
	}
}

func (p *party) number(command string) time.Duration {
	p.b.Helper()
	n, err := strconv.ParseInt(p.tell(command), 10, 64)
	if err != nil {
		p.b.Fatal(err)
	}
	return time.Duration(n)
}

// discard takes what the node would spool.
type discard struct{ n atomic.Uint64 }

func (d *discard) Append(context.Context, spool.Lane, []byte) (uint64, error) { return d.n.Add(1), nil }

// sensor runs a whole node on this kernel: probe, rules, reflex.
func sensor(b *testing.B, root string) (strikes func() uint64) {
	b.Helper()
	world := authztest.New(time.Now())
	file := *world.TrustFile
	file.Ceilings.Reflex = trust.ReflexCeiling{Allow: []trust.Deed{trust.Cut}, Max: time.Minute, Budget: trust.Budget{Effects: 1000, Window: 20 * time.Second}, Namespace: 1000, CoolDown: time.Second}
	reader, err := probe.New(probe.Options{Options: bpf.Options{CgroupRoot: root}, Config: bpf.Config{SelfTGID: uint32(os.Getpid()), MaxArgs: 256}, Filter: node.Filter(bundledRules(b).Watch())})
	if err != nil {
		b.Fatal(err)
	}
	table, err := hold.Open(hold.Options{CgroupRoot: root})
	if err != nil {
		b.Fatal(err)
	}
	cgroups, err := process.NewCgroups(root)
	if err != nil {
		b.Fatal(err)
	}
	pods := &node1{process.Pod{UID: uid(1), Namespace: "shop", Name: "p"}}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if !testing.Verbose() {
		log = slog.New(slog.DiscardHandler)
	}
	doc := strings.Replace(doc(1, "do: cut, confidence: 80, rules: [aws-credentials-read], for: 1s"), "T1552.005", "T1552.001", 1)
	r, err := reflex.New(reflex.Options{Trust: &file, Books: []authz.Book{world.SignBook(doc)}, Cgroups: cgroups, Pods: pods, Holds: table, State: b.TempDir(), Log: log})
	if err != nil {
		b.Fatal(err)
	}
	tree := process.NewTree(process.TreeOptions{Proc: "/proc", CgroupRoot: root})
	if err := tree.Fill(); err != nil {
		b.Fatal(err)
	}
	rules, err := rule.Bundled()
	if err != nil {
		b.Fatal(err)
	}
	n, err := node.New(node.Options{Cluster: authztest.Cluster, Node: authztest.NodeName, Trust: &file, Signer: world.Node, BootID: "b", Instance: "boot:1", Source: reader,
		Tree: tree, Cgroups: cgroups, Rules: rules, Pods: pods, Holds: table, Spool: &discard{}, Reflex: r,
		Watch: func(id uint64) error { return reader.Watch(id, 1) }, State: b.TempDir(), Log: log})
	if err != nil {
		b.Fatal(err)
	}
	n.WatchAll()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- n.Run(ctx) }()
	go func() { ended <- r.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, <-ended, reader.Close(), table.Close()); err != nil {
			b.Error(err)
		}
	})
	return func() uint64 { return r.Stats().Struck }
}

type node1 struct{ pod process.Pod }

func (n *node1) Lookup(c process.Container) (process.Pod, bool) { return n.pod, c.PodUID == n.pod.UID }

func (n *node1) Await(context.Context, process.Container) (process.Pod, error) { return n.pod, nil }

// reflexBench measures from the attacker's system call to the last byte that its peer gets on an established flow.
func reflexBench(b *testing.B, name, kind string) {
	needs.Root(b)
	needs.BTF(b)
	for _, f := range []needs.Feature{needs.Bpf, needs.RingBuffer, needs.Tracepoints, needs.CgroupAddr, needs.CgroupSkb, needs.CgroupWrite, needs.NetNS, needs.IPTool} {
		needs.Kernel(b, f)
	}
	root := needs.CgroupV2(b)
	program := filepath.Join(b.TempDir(), "attacker")
	self, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(program, self, 0o700)
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Setenv("ATTACKER", program)
	dirs := podFolders(b, root)
	attacker, peer := begin(b, "bench-main", dirs[4]), begin(b, "bench-peer", root)
	link := fmt.Sprintf("link add tqc netns %d type veth peer name tqd netns %d", attacker.cmd.Process.Pid, peer.cmd.Process.Pid)
	if out, err := exec.Command("ip", strings.Fields(link)...).CombinedOutput(); err != nil {
		b.Fatalf("ip %s: %v %s", link, err, out)
	}
	attacker.must("net tqc 1")
	peer.must("net tqd 2")
	peer.must("serve")
	secret := filepath.Join(b.TempDir(), ".aws", "credentials")
	if err := errors.Join(os.Mkdir(filepath.Dir(secret), 0o700), os.WriteFile(secret, []byte("[default]\n"), 0o600)); err != nil {
		b.Fatal(err)
	}
	strikes := sensor(b, root)
	var took []time.Duration
	for b.Loop() {
		var before uint64
		eventually(b, "the flow begins", func() bool { return attacker.tell("flow "+kind) == "ok" })
		seen := peer.number("last")
		eventually(b, "the flow runs", func() bool { return peer.number("last") > seen })
		before = strikes()
		at := attacker.number("open " + secret)
		eventually(b, "the reflex strikes", func() bool { return strikes() > before })
		last, still := peer.number("last"), bpf.Now()
		eventually(b, "nothing more comes", func() bool {
			if now := peer.number("last"); now != last {
				last, still = now, bpf.Now()
			}
			return bpf.Now()-still > 100*time.Millisecond
		})
		took = append(took, last-at)
		eventually(b, "the cut lapses", func() bool { return bpf.Now()-at > 1100*time.Millisecond })
	}
	slices.Sort(took)
	us := func(p float64) float64 { return float64(took[int(p*float64(len(took)-1)+0.5)].Microseconds()) }
	b.ReportMetric(us(0.5), "p50-us")
	b.ReportMetric(us(0.99), "p99-us")
	if len(took) > 1 {
		line, err := json.Marshal(map[string]any{"name": name, "value": us(0.5), "unit": "us", "n": len(took), "rounds": 1, "p50": us(0.5), "p99": us(0.99),
			"note": "open of a credentials file to last byte at the peer; whole sensor, spool excluded"})
		if err != nil {
			b.Fatal(err)
		}
		fmt.Printf("\n%s\n", line)
	}
}

func BenchmarkReflexPingpong(b *testing.B) { reflexBench(b, "reflex_pingpong", "pingpong") }

func BenchmarkReflexBulk(b *testing.B) { reflexBench(b, "reflex_bulk", "bulk") }

func bundledRules(b *testing.B) *rule.Set {
	b.Helper()
	s, err := rule.Bundled()
	if err != nil {
		b.Fatal(err)
	}
	return s
}
