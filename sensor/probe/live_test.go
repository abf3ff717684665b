package probe_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"tourniquet.dev/tourniquet/bpf"
	"tourniquet.dev/tourniquet/internal/sys/needs"
	"tourniquet.dev/tourniquet/sensor/probe"
)

const deedEnv = "TOURNIQUET_TEST_DEED"

// TestMain lets the test binary be the watched process too: with a deed in its environment it does that and ends.
func TestMain(m *testing.M) {
	maps.Copy(deeds, callDeeds)
	maps.Copy(deeds, evasions)
	if deed := os.Getenv(deedEnv); deed != "" {
		if err := deeds[deed](os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

var deeds = map[string]func(args []string) error{
	"nothing": func([]string) error { return nil },
	"exit":    func(args []string) error { os.Exit(7); return nil },
	"open": func(args []string) error {
		file, err := os.Open(args[0])
		if err != nil {
			return err
		}
		return file.Close()
	},
	"try": func(args []string) error {
		if _, err := os.Open(args[0]); err == nil {
			return errors.New("it was there")
		}
		return nil
	},
	"open-at": func(args []string) error {
		dir, err := unix.Open(args[0], unix.O_PATH, 0)
		if err != nil {
			return err
		}
		_, err = unix.Openat(dir, args[1], unix.O_RDONLY, 0)
		return err
	},
	"open-relative": func(args []string) error {
		if err := os.Chdir(args[0]); err != nil {
			return err
		}
		_, err := unix.Open(args[1], unix.O_RDONLY, 0)
		return err
	},
	"open-handle": func(args []string) error {
		handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, args[0], 0)
		if err != nil {
			return err
		}
		mount, err := unix.Open(filepath.Dir(args[0]), unix.O_RDONLY, 0)
		if err != nil {
			return err
		}
		_, err = unix.OpenByHandleAt(mount, handle, unix.O_RDONLY)
		return err
	},
	"connect": func(args []string) error {
		conn, err := net.Dial(args[0], args[1])
		if err == nil {
			conn.Close()
		}
		return nil // refused is as good
	},
	"send": func(args []string) error {
		conn, err := net.ListenUDP("udp", nil)
		if err != nil {
			return err
		}
		for range 5 {
			_, err = conn.WriteToUDPAddrPort([]byte("x"), netip.MustParseAddrPort(args[0]))
		}
		return err
	},
	"uring": func([]string) error {
		var params [120]byte
		_, _, errno := syscall.Syscall(425, 8, uintptr(unsafe.Pointer(&params)), 0)
		if errno != 0 {
			return errno
		}
		return nil
	},
	"uring-open": func(args []string) error { return uringOpen(args[0]) },
	"flood": func(args []string) error {
		n, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		for i := range n {
			if err := unix.Connect(fd, &unix.SockaddrInet4{Port: 9, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
				return err
			}
			if i%100 == 0 {
				file, err := os.Open(args[1])
				if err != nil {
					return err
				}
				file.Close()
			}
		}
		return nil
	},
}

// watch is a reader of the live kernel that sees the processes of one cgroup.
type watch struct {
	*probe.Reader
	t      *testing.T
	cgroup *os.File
	id     uint64
	events chan probe.Event
	seen   []probe.Event
}

// skipTiers are the tiers that test/kernels leaves out, so that each one is tested on a kernel that has them all.
func skipTiers() []bpf.Tier {
	var all []bpf.Tier
	for tier := range strings.SplitSeq(os.Getenv("TOURNIQUET_TEST_SKIP_TIERS"), ",") {
		all = append(all, bpf.Tier(tier))
	}
	return all
}

func live(t *testing.T) string {
	t.Helper()
	needs.Root(t)
	needs.BTF(t)
	needs.Kernel(t, needs.RingBuffer)
	needs.Kernel(t, needs.Tracepoints)
	needs.Kernel(t, needs.CgroupAddr)
	needs.Kernel(t, needs.CgroupWrite)
	return needs.CgroupV2(t)
}

func newWatch(t *testing.T, o probe.Options) *watch {
	t.Helper()
	o.CgroupRoot = live(t)
	o.SkipTiers = append(o.SkipTiers, skipTiers()...)
	w := &watch{t: t, events: make(chan probe.Event, 256)}
	dir, err := os.MkdirTemp(o.CgroupRoot, "tourniquet-test-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeCgroup(t, dir) })
	if w.cgroup, err = os.Open(dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.cgroup.Close() })
	w.id = inode(t, dir)
	if w.Reader, err = probe.New(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, s := range w.Status() {
		if s.Err != nil {
			t.Fatal(s.Err)
		}
	}
	if err := w.Watch(w.id, 42); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx, w.events) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return w
}

func removeCgroup(t *testing.T, dir string) {
	for deadline := time.Now().Add(10 * time.Second); ; {
		err := syscall.Rmdir(dir)
		if err == nil || errors.Is(err, syscall.ENOENT) {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("remove cgroup %s: %v", dir, err)
			return
		}
	}
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	var stat syscall.Stat_t
	if err := syscall.Stat(path, &stat); err != nil {
		t.Fatal(err)
	}
	return stat.Ino
}

func (w *watch) command(deed string, args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), deedEnv+"="+deed)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(w.cgroup.Fd())}
	return cmd
}

func (w *watch) do(deed string, args ...string) {
	w.t.Helper()
	if err := w.command(deed, args...).Run(); err != nil {
		w.t.Fatalf("%s %q: %v", deed, args, err)
	}
}

// await returns the first event of the type, from the start of the watch on, that fits.
func await[E probe.Event](w *watch, fits func(E) bool) E {
	w.t.Helper()
	for _, event := range w.seen {
		if e, ok := event.(E); ok && fits(e) {
			return e
		}
	}
	deadline := time.After(20 * time.Second)
	for {
		select {
		case event := <-w.events:
			w.seen = append(w.seen, event)
			if e, ok := event.(E); ok && fits(e) {
				return e
			}
		case <-deadline:
			for _, event := range w.seen {
				w.t.Logf("%T %+v", event, event)
			}
			var none E
			w.t.Fatalf("no fitting %T among %d events", none, len(w.seen))
		}
	}
}

func TestAProcessIsSeenFromForkToExit(t *testing.T) {
	w := newWatch(t, probe.Options{Config: bpf.Config{MaxArgs: 4096}})
	w.command("exit", "one", "two words", "").Run()
	ran := await(w, func(e *probe.Exec) bool { return true })
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if ran.Path != self || ran.Named != "/proc/self/exe" || ran.Inode != inode(t, self) {
		t.Errorf("path %q named %q inode %d, want %q", ran.Path, ran.Named, ran.Inode, self)
	}
	if got := fmt.Sprintf("%q", ran.Args); got != `["/proc/self/exe" "one" "two words" ""]` || ran.Argc != 4 || ran.ArgsCut {
		t.Errorf("args %s of %d", got, ran.Argc)
	}
	if ran.Cgroup != w.id || ran.Policy != 42 || int(ran.PPID) != os.Getpid() || ran.TGID != ran.TID {
		t.Errorf("%+v", ran.Meta)
	}
	if ran.Stdio != [3]probe.FD{probe.FDChar, probe.FDChar, ran.Stdio[2]} { // /dev/null twice
		t.Errorf("stdio %v", ran.Stdio)
	}
	if age := bpf.Now() - ran.At; age < 0 || age > time.Minute || ran.Start > ran.At {
		t.Errorf("at %v, started %v, now %v", ran.At, ran.Start, bpf.Now())
	}
	born := await(w, func(e *probe.Fork) bool { return e.TGID == ran.TGID })
	if born.Process() != ran.Process() || born.Parent() != ran.Parent() || born.At > ran.At {
		t.Errorf("fork %+v, exec %+v", born, ran)
	}
	died := await(w, func(e *probe.Exit) bool { return e.TGID == ran.TGID })
	if died.Process() != ran.Process() || died.Code != 7<<8 || died.At < ran.At {
		t.Errorf("exit %+v", died)
	}
}

func TestArgumentsAreCutAndSaidToBe(t *testing.T) {
	w := newWatch(t, probe.Options{Config: bpf.Config{MaxArgs: 20}})
	w.do("nothing", "0123456789")
	ran := await(w, func(e *probe.Exec) bool { return true })
	if got := fmt.Sprintf("%q", ran.Args); got != `["/proc/self/exe" "01234"]` || !ran.ArgsCut || ran.Argc != 2 {
		t.Errorf("args %s, cut %v, argc %d", got, ran.ArgsCut, ran.Argc)
	}
}

func TestArgumentsAreCompleteToFourKiB(t *testing.T) {
	w := newWatch(t, probe.Options{Config: bpf.Config{MaxArgs: 4096}})
	const name = len("/proc/self/exe") + 1
	for n, cut := range map[int]bool{4096 - name - 1: false, 4096 - name: true} {
		w.do("nothing", strings.Repeat("x", n))
		ran := await(w, func(e *probe.Exec) bool { return len(e.Args) == 2 && len(e.Args[1]) == n })
		if ran.ArgsCut != cut || ran.ArgsLost {
			t.Errorf("%d bytes: cut %v, lost %v", n, ran.ArgsCut, ran.ArgsLost)
		}
	}
}

func TestASocketOnStdioMakesAnExecCritical(t *testing.T) {
	w := newWatch(t, probe.Options{})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	file, err := conn.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	cmd := w.command("nothing")
	cmd.Stdin, cmd.Stdout = file, file
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	ran := await(w, func(e *probe.Exec) bool { return true })
	if ran.Stdio[0] != probe.FDInet || ran.Stdio[1] != probe.FDInet {
		t.Errorf("stdio %v", ran.Stdio)
	}
	stats, err := w.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if stats.Delivered[bpf.Critical] == 0 {
		t.Error("it did not take the critical ring")
	}
}

func TestAProgramWithoutANameIsSeenAsSuch(t *testing.T) {
	w := newWatch(t, probe.Options{})
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.MemfdCreate("hidden", 0)
	if err != nil {
		t.Fatal(err)
	}
	memfd := os.NewFile(uintptr(fd), "hidden")
	defer memfd.Close()
	if _, err := memfd.Write(self); err != nil {
		t.Fatal(err)
	}
	cmd := w.command("nothing")
	cmd.Path = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd)
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	ran := await(w, func(e *probe.Exec) bool { return e.Unlinked })
	if ran.Path != "/memfd:hidden" || ran.Links != 0 {
		t.Errorf("path %q, %d links", ran.Path, ran.Links)
	}
}
