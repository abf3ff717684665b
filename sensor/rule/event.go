package rule

import (
	"net/netip"
	"path"
	"slices"
	"time"

	"tourniquet.dev/tourniquet/internal/detection"
)

// A Kind says what happened.
type Kind string

// The kinds of events that rules can ask for.
const (
	Exec    Kind = "exec"
	Open    Kind = "open"
	Connect Kind = "connect"
	Call    Kind = "call" // a rare system call
	Unix    Kind = "unix" // a connection to a local socket
	DNS     Kind = "dns"  // a query for a name
)

// Valid reports whether k is one of the known kinds.
func (k Kind) Valid() bool { return slices.Contains([]Kind{Exec, Open, Connect, Call, Unix, DNS}, k) }

// Event is one thing that a process did, as rules see it. Everything in it may be an attacker's text.
type Event struct {
	Kind Kind
	Time time.Time
	// KernelNS and SeenNS are CLOCK_BOOTTIME at the system call and in user space.
	KernelNS, SeenNS uint64
	// Path is the file opened or executed, resolved by the kernel; only a hint when Unresolved.
	Path       string
	Unresolved bool
	// Read and Write say how a file was opened; Failed that it was not.
	Read, Write, Failed bool
	Addr                netip.Addr
	Port                uint16
	// Upper and Unlinked say of an executed file that it was written after the image was made, or has no name any more;
	// Network that the process has an internet socket as its standard input, output or error.
	Upper, Unlinked, Network bool
	// Call names a rare system call: "ptrace", "setns", …; Flags is the argument that says what was asked for. Gained says
	// that the process has more rights after it.
	Call   string
	Flags  uint64
	Gained bool
	// Target is the process that the call was about.
	TargetPID           uint32
	TargetName          string
	TargetSameContainer bool
	// Query is the name that was asked for.
	Query string
}

// Subject is who did it: the process with its ancestry, and the workload it belongs to.
type Subject struct {
	Process Process
	// Ancestors are inside the same container, the nearest first.
	Ancestors []Process
	// Init is the container's first process; its PID is 0 where nobody saw it.
	Init     Process
	Workload detection.Workload
}

// Process is one process. StartNS tells apart two that had the same PID.
type Process struct {
	PID, PPID, UID uint32
	StartNS        uint64
	Comm, Exe      string
	Args           []string
}

// Name is the last component of the executable's path, or else what the process calls itself.
func (p Process) Name() string {
	if p.Exe == "" {
		return p.Comm
	}
	return path.Base(p.Exe)
}

// shells are programs that run what they are told. toolboxes are one file for many programs, so that an equal
// executable says nothing; there Comm has to be equal too.
var (
	shells    = []string{"sh", "bash", "dash", "ash", "zsh", "ksh", "mksh", "fish", "csh", "tcsh", "rbash", "busybox"}
	toolboxes = []string{"busybox", "toybox", "coreutils"}
)

func (p Process) shell() bool {
	if slices.Contains(toolboxes, p.Name()) {
		return slices.Contains(shells, p.Comm)
	}
	return slices.Contains(shells, p.Name())
}

// main reports whether p is the container's main program: its first process, or another one of the same executable. A
// container whose first process is a shell has, apart from that process, no main program.
func (s Subject) main(p Process) bool {
	switch {
	case s.Init.PID == 0 || p.PID == 0:
		return false
	case p.PID == s.Init.PID && p.StartNS == s.Init.StartNS:
		return true
	case p.Exe == "" || p.Exe != s.Init.Exe || p.shell():
		return false
	case slices.Contains(toolboxes, p.Name()):
		return p.Comm == s.Init.Comm
	}
	return true
}

// Tree identifies a process tree: what hangs below the container's main program, or below whoever entered from outside.
type Tree struct {
	PID     uint32
	StartNS uint64
}

// Tree returns the tree of the subject's process: its highest ancestor that is not the container's main program.
func (s Subject) Tree() Tree {
	root := s.Process
	for _, a := range s.Ancestors {
		if s.main(root) || s.main(a) {
			break
		}
		root = a
	}
	return Tree{root.PID, root.StartNS}
}

func (s Subject) parent() Process {
	if len(s.Ancestors) == 0 {
		return Process{}
	}
	return s.Ancestors[0]
}
