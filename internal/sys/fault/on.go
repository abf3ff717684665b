//go:build faultpoints

package fault

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// Enabled says whether this build has its points on.
const Enabled = true

var (
	target, times = armed(os.Getenv("TOURNIQUET_FAULT"))
	reached       atomic.Int64
	log           = os.Getenv("TOURNIQUET_FAULT_LOG")
)

func armed(spec string) (string, int64) {
	name, count, _ := strings.Cut(spec, "#")
	n, err := strconv.ParseInt(count, 10, 64)
	if err != nil {
		n = 1
	}
	return name, n
}

// Point marks a place at which the process may die.
func Point(name string) {
	if log != "" {
		if f, err := os.OpenFile(log, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600); err == nil {
			_, _ = f.WriteString(name + "\n") // one write, so that processes may share the file
			_ = f.Close()
		}
	}
	if name == target && reached.Add(1) == times {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // the signal is on its way
	}
}
