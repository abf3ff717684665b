package needs

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"unsafe"
)

// cgroupV2 finds where the v2 hierarchy is mounted: beside the v1 trees on hybrid machines.
func cgroupV2() (string, error) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("read mounts: %w", err)
	}
	for line := range strings.Lines(string(table)) {
		before, after, _ := strings.Cut(line, " - ")
		fields := strings.Fields(before)
		if strings.HasPrefix(after, "cgroup2 ") && len(fields) > 4 {
			return fields[4], nil
		}
	}
	return "", errors.New("no cgroup2 in /proc/self/mountinfo")
}

const (
	schedFIFO        = 1
	schedResetOnFork = 0x40000000
)

// tryRealtime asks for SCHED_FIFO in a thread that is thrown away.
func tryRealtime() error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		priority := int32(1)
		_, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_SETSCHEDULER, 0, schedFIFO|schedResetOnFork, uintptr(unsafe.Pointer(&priority)))
		if errno != 0 {
			result <- fmt.Errorf("sched_setscheduler: %w", errno)
			return
		}
		result <- nil
	}()
	return <-result
}

const sysIOUringSetup = 425

func tryURing() error {
	var params [120]byte
	fd, _, errno := syscall.Syscall(sysIOUringSetup, 1, uintptr(unsafe.Pointer(&params)), 0)
	if errno != 0 {
		return fmt.Errorf("io_uring_setup: %w", errno)
	}
	return syscall.Close(int(fd))
}

// exit386 is a whole 32-bit program: exit(0).
var exit386 = append([]byte("\x7fELF\x01\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00"+
	"\x02\x00\x03\x00\x01\x00\x00\x00\x54\x80\x04\x08\x34\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"+
	"\x34\x00\x20\x00\x01\x00\x28\x00\x00\x00\x00\x00"+
	"\x01\x00\x00\x00\x00\x00\x00\x00\x00\x80\x04\x08\x00\x80\x04\x08\x5d\x00\x00\x00\x5d\x00\x00\x00\x05\x00\x00\x00\x00\x10\x00\x00"),
	0x31, 0xc0, 0x40, 0x31, 0xdb, 0xcd, 0x80, 0x90, 0x90) // xor eax,eax; inc eax; xor ebx,ebx; int 0x80

func tryCompat32() error {
	if runtime.GOARCH != "amd64" {
		return fmt.Errorf("no 32-bit test program for %s", runtime.GOARCH)
	}
	file, err := os.CreateTemp("", "needs-*")
	if err != nil {
		return fmt.Errorf("make program: %w", err)
	}
	defer os.Remove(file.Name())
	_, err = file.Write(exit386)
	if err := errors.Join(err, file.Chmod(0o700), file.Close()); err != nil {
		return fmt.Errorf("write program: %w", err)
	}
	process, err := os.StartProcess(file.Name(), []string{"exit386"}, &os.ProcAttr{})
	if err != nil {
		return fmt.Errorf("run a 32-bit program: %w", err)
	}
	state, err := process.Wait()
	if err != nil || !state.Success() {
		return fmt.Errorf("run a 32-bit program: %v %w", state, err)
	}
	return nil
}
