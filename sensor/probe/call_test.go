package probe_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
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

const bitCall = 16

// allCalls watches every call, and sockets called api.sock or shim.
func allCalls() probe.Options {
	f := probe.Filter{Calls: map[bpf.Call]uint32{}, Names: map[probe.Name]uint32{
		{What: bpf.NameSocket, Name: "api.sock"}: bitFile, {What: bpf.NameSocket, Name: "shim"}: bitDir,
	}}
	for _, c := range bpf.Calls() {
		f.Calls[c] = bitCall
	}
	return probe.Options{Options: bpf.Options{Hooks: bpf.Hooks()}, Filter: f}
}

var callDeeds = map[string]func(args []string) error{
	"calls":       doCalls,
	"trace":       trace,
	"become-root": becomeRoot,
	"connects":    connects,
	"dial": func(args []string) error {
		conn, err := net.Dial(args[0], args[1])
		if err != nil {
			return err
		}
		return conn.Close()
	},
	"query": func(args []string) error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		if err != nil {
			return err
		}
		message := append([]byte{0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, question(args[0], 16)...)
		if len(args) > 1 { // an answer
			message[2] |= 0x80
		}
		return unix.Sendto(fd, message, 0, &unix.SockaddrInet4{Port: 53, Addr: [4]byte{127, 0, 0, 1}})
	},
}

func question(name string, kind byte) []byte {
	var b []byte
	for _, label := range strings.Split(name, ".") {
		b = append(append(b, byte(len(label))), label...)
	}
	return append(b, 0, 0, kind, 0, 1)
}

// doCalls makes harmless calls of many kinds; those that are refused are told too.
func doCalls([]string) error {
	runtime.LockOSThread()
	ns, err := unix.Open("/proc/self/ns/uts", unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	inet, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	_, memErr := unix.MemfdCreate("x", unix.MFD_CLOEXEC)
	_, rawErr := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	var buf [8]byte
	local := []unix.Iovec{{Base: &buf[0], Len: 8}}
	remote := []unix.RemoteIovec{{Base: uintptr(unsafe.Pointer(&buf[0])), Len: 8}}
	_, readErr := unix.ProcessVMReadv(os.Getpid(), local, remote, 0)
	err = errors.Join(memErr, rawErr, readErr, unix.Dup3(inet, 0, 0), unix.Setns(ns, unix.CLONE_NEWUTS), unix.Unshare(unix.CLONE_NEWUTS))
	for _, refused := range []error{
		unix.Mount("", "/no/such", "", unix.MS_BIND, ""), unix.PivotRoot("/no/such", "/no/such"), unix.Chroot("/no/such"),
		unix.FinitModule(-1, "", 0), unix.MoveMount(-1, "", -1, "", 0),
	} {
		if refused == nil {
			err = errors.Join(err, errors.New("a call that cannot succeed did"))
		}
	}
	_, _ = unix.Open("/dev/null", unix.O_RDONLY, 0)
	_, _, _ = syscall.Syscall(unix.SYS_BPF, 5, 0, 0)
	return err
}

// trace stops a child of its own and looks into it.
func trace([]string) error {
	runtime.LockOSThread()
	child := exec.Command("/bin/sleep", "100")
	if err := child.Start(); err != nil {
		return err
	}
	defer child.Wait()
	defer child.Process.Kill()
	return unix.PtraceSeize(child.Process.Pid)
}

// becomeRoot drops to another effective user and takes the rights back.
func becomeRoot([]string) error {
	runtime.LockOSThread()
	for _, euid := range []uintptr{65534, 0} {
		if _, _, errno := syscall.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), euid, ^uintptr(0)); errno != 0 {
			return errno
		}
	}
	return nil
}

func TestRareCallsAreSeenWithTheirOutcome(t *testing.T) {
	w := newWatch(t, allCalls())
	w.do("calls")
	await(w, func(*probe.Exit) bool { return true })
	uts := uint32(inode(t, "/proc/self/ns/uts"))
	for name, fits := range map[string]func(*probe.Call) bool{
		"process_vm_readv": func(e *probe.Call) bool {
			return e.Errno == 0 && e.Target == e.Process() && e.TargetCgroup == w.id && e.Result == 8
		},
		"setns":        func(e *probe.Call) bool { return e.Errno == 0 && e.Namespace == uts && e.Number == unix.CLONE_NEWUTS },
		"unshare":      func(e *probe.Call) bool { return e.Errno == 0 && e.Number == unix.CLONE_NEWUTS },
		"mount":        func(e *probe.Call) bool { return e.Errno == int32(unix.ENOENT) && e.Number == unix.MS_BIND },
		"pivot_root":   func(e *probe.Call) bool { return e.Errno == int32(unix.ENOENT) },
		"chroot":       func(e *probe.Call) bool { return e.Errno == int32(unix.ENOENT) },
		"move_mount":   func(e *probe.Call) bool { return e.Errno != 0 },
		"finit_module": func(e *probe.Call) bool { return e.Errno != 0 },
		"bpf":          func(e *probe.Call) bool { return e.Errno != 0 && e.Number == 5 },
		"memfd_create": func(e *probe.Call) bool {
			return e.Errno == 0 && e.FDType == probe.FDFile && e.Number == unix.MFD_CLOEXEC
		},
		"dup2":   func(e *probe.Call) bool { return e.FD == 0 && e.FDType == probe.FDInet },
		"socket": func(e *probe.Call) bool { return e.Family == unix.AF_PACKET && e.SocketType == unix.SOCK_RAW },
	} {
		if e := find(w, func(e *probe.Call) bool { return e.Call == name && fits(e) }); e == nil {
			t.Errorf("%s was not seen so", name)
		} else if e.Match != bitCall || e.Cgroup != w.id || e.Policy != 42 {
			t.Errorf("%+v", e)
		}
	}
	for _, event := range w.seen {
		if e, ok := event.(*probe.Call); ok && e.Call == "socket" && e.Family != unix.AF_PACKET {
			t.Errorf("a plain socket was told of: %+v", e)
		}
	}
	if t.Failed() {
		for _, event := range w.seen {
			if e, ok := event.(*probe.Call); ok {
				t.Logf("%+v", e)
			}
		}
	}
}

// find looks among what was awaited already.
func find[E probe.Event](w *watch, fits func(E) bool) (none E) {
	for _, event := range w.seen {
		if e, ok := event.(E); ok && fits(e) {
			return e
		}
	}
	return none
}

func TestWhoIsTracedIsTold(t *testing.T) {
	w := newWatch(t, allCalls())
	w.do("trace")
	e := await(w, func(e *probe.Call) bool { return e.Call == "ptrace" && e.Number == unix.PTRACE_SEIZE })
	child := await(w, func(f *probe.Fork) bool { return f.TGID == e.Target.TGID })
	if e.Errno != 0 || e.Target != child.Process() || child.PPID != e.TGID {
		t.Errorf("%+v, child %+v", e, child)
	}
}

func TestTheTargetIsFoundFromWithinAPidNamespace(t *testing.T) {
	needs.Kernel(t, needs.MountNS)
	w := newWatch(t, allCalls())
	cmd := w.command("calls")
	cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWPID
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	e := await(w, func(e *probe.Call) bool { return e.Call == "process_vm_readv" })
	if e.TargetPID != 1 || e.Target != e.Process() || e.TGID == 1 {
		t.Errorf("%+v", e)
	}
}

func TestACallThatNothingAsksForIsNotTold(t *testing.T) {
	o := allCalls()
	o.Filter.Calls = map[bpf.Call]uint32{bpf.CallChroot: bitCall}
	w := newWatch(t, o)
	w.do("calls")
	await(w, func(*probe.Exit) bool { return true })
	for _, event := range w.seen {
		if e, ok := event.(*probe.Call); ok && e.Call != "chroot" {
			t.Errorf("%+v", e)
		}
	}
	if find(w, func(e *probe.Call) bool { return e.Call == "chroot" }) == nil {
		t.Error("chroot was not seen")
	}
}

func TestRightsTakenBackAreAGain(t *testing.T) {
	w := newWatch(t, allCalls())
	w.do("become-root")
	await(w, func(*probe.Exit) bool { return true })
	var gains []*probe.Cred
	for _, event := range w.seen {
		if e, ok := event.(*probe.Cred); ok {
			gains = append(gains, e)
		}
	}
	if len(gains) != 1 {
		t.Fatalf("%d gains, want the one: dropping rights is none", len(gains))
	}
	if e := gains[0]; e.Call != "setid" || e.EUIDBefore != 65534 || e.EUID != 0 || e.Before != 0 || e.Gained() == 0 {
		t.Errorf("%+v", e)
	}
}

func TestASetUIDProgramIsSeenAsSuch(t *testing.T) {
	w := newWatch(t, probe.Options{})
	dir, err := os.MkdirTemp("/var/tmp", "tourniquet-test-*") // t.TempDir may be mounted nosuid, and is closed to others
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	program := filepath.Join(dir, "setuid")
	copySelf(t, program)
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(program, 0o755|os.ModeSetuid)); err != nil {
		t.Fatal(err)
	}
	for uid, secure := range map[uint32]bool{65534: true, 0: false} {
		cmd := w.command("nothing")
		cmd.Path, cmd.Dir = program, "/"
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: uid}
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
		e := await(w, func(e *probe.Exec) bool { return e.UID == uid })
		if e.Secure != secure || e.EUID != 0 || e.Effective == 0 {
			t.Errorf("from uid %d: %+v", uid, e)
		}
	}
}

func TestAUnixSocketIsSeenByWhateverNameItIsReached(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "api.sock")
	other := filepath.Join(dir, "other.sock")
	for _, at := range []string{path, other, "@shim"} {
		l, err := net.Listen("unix", at)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
	link, hard := filepath.Join(dir, "harmless"), filepath.Join(dir, "l")
	if err := errors.Join(os.Symlink(path, link), os.Link(path, hard)); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		dial, want string
	}{
		"plainly":                 {path, path},
		"through a symbolic link": {link, path},
		"through a hard link":     {hard, path},
		"through its own root":    {"/proc/self/root" + path, path},
		"abstract":                {"@shim", "shim"},
		"another socket":          {other, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWatch(t, allCalls())
			w.do("dial", "unix", tc.dial)
			await(w, func(*probe.Exit) bool { return true })
			e := find(w, func(*probe.Unix) bool { return true })
			if tc.want == "" {
				if e != nil {
					t.Errorf("%+v", e)
				}
				return
			}
			if e == nil {
				t.Fatal("not seen")
			}
			if e.Path != tc.want || e.Match == 0 || int(e.PeerTGID) != os.Getpid() || e.Abstract != (name == "abstract") || e.Type != unix.SOCK_STREAM {
				t.Errorf("%+v", e)
			}
		})
	}
}

func TestAQueryIsSeenWithItsName(t *testing.T) {
	w := newWatch(t, allCalls())
	long := strings.Repeat("a", 63) + "." + strings.Repeat("b", 63) + "." + strings.Repeat("c", 63) + "." + strings.Repeat("d", 61)
	for _, name := range []string{"secret-7f.example.com", long} {
		w.do("query", name)
		e := await(w, func(e *probe.DNS) bool { return e.Name == name })
		if e.Type != 16 || e.NameCut || e.Server != netip.MustParseAddrPort("127.0.0.1:53") || e.Size != uint32(12+len(question(name, 16))) || e.TGID == 0 || e.Cgroup != w.id {
			t.Errorf("%+v", e)
		}
	}
	w.do("query", "answer.example.com", "answer")
	w.do("query", "end.example.com")
	await(w, func(e *probe.DNS) bool { return e.Name == "end.example.com" })
	if e := find(w, func(e *probe.DNS) bool { return e.Name == "answer.example.com" }); e != nil {
		t.Errorf("an answer was told of: %+v", e)
	}
}

func TestTelemetryBeyondItsRateIsCountedNotSent(t *testing.T) {
	o := allCalls()
	o.Config = bpf.Config{Datagrams: true, Rate: 1, Burst: 3}
	w := newWatch(t, o)
	const n = 50
	var script []string
	for i := range n {
		script = append(script, fmt.Sprint("127.0.0.1:", 1000+i))
	}
	w.do("connects", script...)
	died := await(w, func(*probe.Exit) bool { return true })
	told, limited := 0, uint64(0)
	count := func(e probe.Event) {
		switch e := e.(type) {
		case *probe.Connect:
			told++
		case *probe.Blind:
			if e.Cause == probe.CauseLimited && e.Lost == "connect" {
				limited += e.Count
			}
		}
	}
	for _, e := range w.seen {
		count(e)
	}
	for deadline := time.After(20 * time.Second); uint64(told)+limited < n; {
		select {
		case e := <-w.events:
			count(e)
		case <-deadline:
			t.Fatalf("%d told, %d limited of %d", told, limited, n)
		}
	}
	if most := 4 + int((died.At-died.Start)/time.Second); told < 3 || told > most || uint64(told)+limited != n {
		t.Errorf("%d told, want 3 to %d, %d limited, of %d", told, most, limited, n)
	}
}

func connects(args []string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	for _, arg := range args {
		if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(netip.MustParseAddrPort(arg).Port()), Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			return err
		}
	}
	return nil
}
