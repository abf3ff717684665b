package hold_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const deedEnv = "TOURNIQUET_TEST_DEED"

// TestMain lets the test binary be the held process and its peer too, each in a network namespace of its own. Both obey
// one command a line and end with their standard input, so none outlives a killed test.
func TestMain(m *testing.M) {
	switch os.Getenv(deedEnv) {
	case "":
		os.Exit(m.Run())
	case "peer":
		obey(map[string]func([]string) string{"net": setUpNet, "serve": serve})
	case "held":
		obey(map[string]func([]string) string{"net": setUpNet, "flow": startFlow, "count": countFlow, "try": tryDial, "send": trySend})
	case "freezer":
		fmt.Println(freezeAndWait())
		select {}
	case "cutter":
		fmt.Println(cutAndWait())
		select {}
	}
}

func obey(commands map[string]func(args []string) string) {
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		fmt.Println(commands[fields[0]](fields[1:]))
	}
}

func itoa(n int) string { return strconv.Itoa(n) }

func told(err error) string {
	if err == nil {
		return "ok"
	}
	var errno syscall.Errno
	if errors.As(err, &errno) && errno == syscall.EPERM {
		return "EPERM"
	}
	return strings.ReplaceAll(err.Error(), "\n", " ")
}

// setUpNet gives a device its number's addresses.
func setUpNet(args []string) string {
	device, n := args[0], args[1]
	for _, c := range []string{
		"link set lo up",
		"addr add 10.77.0." + n + "/24 dev " + device,
		"-6 addr add fd77::" + n + "/64 dev " + device + " nodad",
		"link set " + device + " up",
	} {
		if out, err := exec.Command("ip", strings.Fields(c)...).CombinedOutput(); err != nil {
			return fmt.Sprintf("ip %s: %v %s", c, err, out)
		}
	}
	return "ok"
}

func serve([]string) string {
	listener, err := net.Listen("tcp", ":7000") // both families
	if err != nil {
		return told(err)
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() { defer conn.Close(); io.Copy(conn, conn) }()
		}
	}()
	return "ok"
}

var (
	exchanged atomic.Int64
	datagrams net.PacketConn
)

// startFlow plays ping-pong over one connection for ever.
func startFlow(args []string) string {
	conn, err := net.Dial("tcp", args[0])
	if err != nil {
		return told(err)
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
	return "ok"
}

func countFlow([]string) string { return strconv.FormatInt(exchanged.Load(), 10) }

func tryDial(args []string) string {
	conn, err := net.DialTimeout(args[0], args[1], 10*time.Second)
	if err == nil {
		conn.Close()
	}
	return told(err)
}

func trySend(args []string) string {
	if datagrams == nil {
		conn, err := net.ListenPacket("udp", ":0")
		if err != nil {
			return told(err)
		}
		datagrams = conn
	}
	to, err := net.ResolveUDPAddr("udp", args[0])
	if err == nil {
		_, err = datagrams.WriteTo([]byte("x"), to)
	}
	return told(err)
}

// process is one of the two.
type process struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.Writer
	out *bufio.Scanner
}

func start(t *testing.T, deed string, cgroup string) *process {
	t.Helper()
	dir, err := os.Open(cgroup)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	p := &process{t: t, cmd: exec.Command("/proc/self/exe")}
	p.cmd.Env = append(os.Environ(), deedEnv+"="+deed)
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, UseCgroupFD: true, CgroupFD: int(dir.Fd())}
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
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		p.cmd.Wait()
	})
	return p
}

func (p *process) tell(format string, args ...any) string {
	p.t.Helper()
	if _, err := fmt.Fprintf(p.in, format+"\n", args...); err != nil {
		p.t.Fatal(err)
	}
	if !p.out.Scan() {
		p.t.Fatalf("the process is gone: %v", p.out.Err())
	}
	return p.out.Text()
}

func (p *process) must(format string, args ...any) {
	p.t.Helper()
	if answer := p.tell(format, args...); answer != "ok" {
		p.t.Fatalf(format+": %s", append(args, answer)...)
	}
}

func (p *process) count() int {
	p.t.Helper()
	n, err := strconv.Atoi(p.tell("count"))
	if err != nil {
		p.t.Fatal(err)
	}
	return n
}

// connectNets lays a veth pair between two processes' namespaces; it goes with them.
func connectNets(t *testing.T, a, b *process) {
	t.Helper()
	args := fmt.Sprintf("link add tqa netns %d type veth peer name tqb netns %d", a.cmd.Process.Pid, b.cmd.Process.Pid)
	if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v %s", args, err, out)
	}
	a.must("net tqa 1")
	b.must("net tqb 2")
	b.must("serve")
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for deadline := time.Now().Add(20 * time.Second); !is(); <-look.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func makeCgroup(t *testing.T, parent string) string {
	t.Helper()
	dir, err := os.MkdirTemp(parent, "tourniquet-test-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		eventually(t, "cgroup is empty", func() bool {
			err := syscall.Rmdir(dir)
			return err == nil || errors.Is(err, syscall.ENOENT)
		})
	})
	return dir
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	var stat syscall.Stat_t
	if err := syscall.Stat(path, &stat); err != nil {
		t.Fatal(err)
	}
	return stat.Ino
}
