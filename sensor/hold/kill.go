package hold

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrGone says that the process has ended, or that its number is another's by now.
var ErrGone = errors.New("process is gone")

// Kill ends the one process that has this number and began at this moment since boot. The number alone is never enough: the
// process is pinned first, then looked at.
func Kill(proc string, pid uint32, start time.Duration) error {
	if pid <= 1 || int(pid) == os.Getpid() {
		return fmt.Errorf("kill process %d: %w", pid, ErrInvalid)
	}
	fd, err := unix.PidfdOpen(int(pid), 0)
	if errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", pid, ErrGone)
	}
	if err != nil {
		return fmt.Errorf("kill process %d: %w", pid, err)
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	began, err := startOf(proc, pid)
	if err != nil {
		return fmt.Errorf("kill process %d: %w: %w", pid, ErrGone, err)
	}
	if (began - start).Abs() > tick {
		return fmt.Errorf("kill process %d: %w: it began at %v, not %v", pid, ErrGone, began, start)
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		return fmt.Errorf("kill process %d: %w", pid, err)
	}
	return nil
}

const tick = 10 * time.Millisecond // USER_HZ is 100 on every machine that we run on

func startOf(proc string, pid uint32) (time.Duration, error) {
	data, err := os.ReadFile(filepath.Join(proc, strconv.FormatUint(uint64(pid), 10), "stat"))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(data)[strings.LastIndexByte(string(data), ')')+1:], " ") // the name may hold anything
	fields := strings.Fields(rest)
	const startTime = 22 - 3 // of proc(5), counted after the name
	if len(fields) <= startTime {
		return 0, fmt.Errorf("stat has %d fields", len(fields))
	}
	ticks, err := strconv.ParseInt(fields[startTime], 10, 64)
	return time.Duration(ticks) * tick, err
}
