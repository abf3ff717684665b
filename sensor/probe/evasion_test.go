package probe_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"tourniquet.dev/tourniquet/bpf"
	"tourniquet.dev/tourniquet/sensor/probe"
)

// What docs/sensor.md says of each way around the sensor, these tests show; those of paths are in open_test.go.

var evasions = map[string]func(args []string) error{
	"reopen": func(args []string) error { // named only, then opened by what it was named
		fd, err := unix.Open(args[0], unix.O_PATH, 0)
		if err != nil {
			return err
		}
		_, err = unix.Open(fmt.Sprint("/proc/self/fd/", fd), unix.O_RDONLY, 0)
		return err
	},
	"race": race,
	"receive": func(args []string) error {
		conn, err := net.Dial("unix", args[0])
		if err != nil {
			return err
		}
		oob := make([]byte, unix.CmsgSpace(4))
		if _, _, _, _, err = conn.(*net.UnixConn).ReadMsgUnix(make([]byte, 1), oob); err != nil {
			return err
		}
		messages, err := unix.ParseSocketControlMessage(oob)
		if err != nil {
			return err
		}
		fds, err := unix.ParseUnixRights(&messages[0])
		if err != nil {
			return err
		}
		_, err = unix.Read(fds[0], make([]byte, 16))
		return err
	},
}

// race opens args[0] through a buffer into which another thread writes a harmless path of the same length, args[1], all the
// while; it ends when the watched file was opened often enough.
func race(args []string) error {
	buffer := append([]byte(args[0]), 0)
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; !stop.Load(); i++ {
			copy(buffer, args[i%2])
		}
	}()
	defer func() { stop.Store(true); <-done }()
	var want unix.Stat_t
	if err := unix.Stat(args[0], &want); err != nil {
		return err
	}
	opened := 0
	for range 1_000_000 {
		cwd := unix.AT_FDCWD
		fd, _, errno := syscall.Syscall6(unix.SYS_OPENAT, uintptr(cwd), uintptr(unsafe.Pointer(&buffer[0])), unix.O_RDONLY, 0, 0, 0)
		if errno != 0 {
			continue
		}
		var got unix.Stat_t
		err := errors.Join(unix.Fstat(int(fd), &got), unix.Close(int(fd)))
		if err != nil {
			return err
		}
		if got.Ino != want.Ino {
			continue
		}
		if opened++; opened == 100 {
			os.Exit(opened) // how often is the exit code
		}
	}
	return errors.New("the watched file was not opened often enough")
}

func TestANameThatChangesMeanwhileHidesNoOpen(t *testing.T) {
	dir, file := credentials(t)
	harmless := filepath.Join(dir, ".awk", "harmless-id")
	if err := errors.Join(os.Mkdir(filepath.Dir(harmless), 0o700), os.WriteFile(harmless, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	w := newWatch(t, probe.Options{Filter: byName()})
	err := w.command("race", file, harmless).Run()
	if e := await(w, func(*probe.Exit) bool { return true }); e.Code != 100<<8 {
		t.Fatalf("exit %d: %v", e.Code, err)
	}
	seen := 0
	for _, event := range w.seen {
		if e, ok := event.(*probe.Open); ok {
			if e.Path != file || !e.Resolved {
				t.Errorf("%+v", e)
			}
			seen++
		}
	}
	if seen != 100 {
		t.Errorf("%d opens seen of 100", seen)
	}
}

func TestAFileNamedFirstAndOpenedLaterIsSeen(t *testing.T) {
	_, file := credentials(t)
	w := newWatch(t, probe.Options{Filter: byName()})
	w.do("reopen", file)
	for name, path := range map[string]bool{"named": true, "opened": false} {
		e := await(w, func(e *probe.Open) bool { return e.Flags&unix.O_PATH != 0 == path })
		if e.Path != file || e.Inode != inode(t, file) {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

func TestARenamedToolIsSeenByItsFile(t *testing.T) {
	w := newWatch(t, probe.Options{Filter: probe.Filter{Names: map[probe.Name]uint32{{What: bpf.NameExec, Name: "kubectl"}: bitFile}}})
	dir := t.TempDir()
	tool, link := filepath.Join(dir, "kubectl"), filepath.Join(dir, "link")
	copySelf(t, tool)
	if err := errors.Join(os.Symlink(tool, link), os.Link(tool, filepath.Join(dir, "renamed"))); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		path string
		bits uint32
	}{"linked": {link, bitFile}, "renamed": {filepath.Join(dir, "renamed"), 0}} {
		cmd := w.command("nothing")
		cmd.Path, cmd.Args = tc.path, []string{"sleep"} // whatever it calls itself
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
		e := await(w, func(e *probe.Exec) bool { return e.Named == tc.path })
		if e.Inode != inode(t, tool) || e.Match != tc.bits {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

// The one who opens is seen, the one who is given the descriptor is not: docs/sensor.md names it as a limit.
func TestADescriptorThatIsPassedOnIsSeenWhereItWasOpened(t *testing.T) {
	_, file := credentials(t)
	at := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: at, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	w := newWatch(t, probe.Options{Config: bpf.Config{WatchAll: true}, Filter: byName()})
	cmd := w.command("receive", at)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	conn, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, _, err := conn.WriteMsgUnix([]byte{1}, unix.UnixRights(int(f.Fd())), nil); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	await(w, func(e *probe.Exit) bool { return int(e.TGID) == cmd.Process.Pid })
	for _, event := range w.seen {
		if e, ok := event.(*probe.Open); ok && e.Path == file && int(e.TGID) != os.Getpid() {
			t.Errorf("%+v", e)
		}
	}
	if find(w, func(e *probe.Open) bool { return e.Path == file && int(e.TGID) == os.Getpid() }) == nil {
		t.Error("who opened it was not seen")
	}
}
