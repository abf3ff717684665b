package probe

import (
	"net/netip"
	"syscall"
	"time"

	"tourniquet.dev/tourniquet/bpf"
)

// Event is one of *Exec, *Fork, *Exit, *Open, *Connect, *Cgroup, *Uring, *Call, *Cred, *Unix, *DNS and *Blind.
type Event interface {
	// Head returns what all events have. It is never nil; a Blind has only its time and kind.
	Head() *Meta
}

// ID names a process for as long as the machine is up: process ids are used again, pairs of id and start are not.
type ID struct {
	TGID  uint32        `json:"tgid"`
	Start time.Duration `json:"start_ns"` // since boot
}

// Meta is what all events have. Times are since boot, suspended time included; ids are those of the first pid namespace.
type Meta struct {
	At     time.Duration `json:"at_ns"`
	TGID   uint32        `json:"tgid,omitempty"` // the process
	TID    uint32        `json:"tid,omitempty"`  // its thread
	PPID   uint32        `json:"ppid,omitempty"`
	UID    uint32        `json:"uid,omitempty"`
	EUID   uint32        `json:"euid,omitempty"`
	Start  time.Duration `json:"start_ns,omitempty"` // when the process began
	Cgroup uint64        `json:"cgroup,omitempty"`   // id in the v2 hierarchy
	Policy uint32        `json:"policy,omitempty"`   // of the cgroup, as given to the filter
	Match  uint32        `json:"match,omitempty"`    // bits of the names, files or addresses that matched, as given to the filter
	Comm   string        `json:"comm,omitempty"`     // the thread's name: 15 bytes that it chooses itself
}

// Head returns m.
func (m *Meta) Head() *Meta { return m }

// Process returns the name of the process that the event is about.
func (m *Meta) Process() ID { return ID{m.TGID, m.Start} }

// Exec tells that a process became another program.
type Exec struct {
	Meta
	ParentStart time.Duration `json:"parent_start_ns,omitempty"`
	Path        string        `json:"path"` // of the file itself, from the root of its mount namespace
	Named       string        `json:"named,omitempty"`
	Args        []string      `json:"args,omitempty"`
	Argc        uint32        `json:"argc,omitempty"`
	Device      uint32        `json:"device,omitempty"` // in the kernel's form, see bpf.KernelDev
	Inode       uint64        `json:"inode,omitempty"`
	Links       uint32        `json:"links,omitempty"`
	Stdio       [3]FD         `json:"stdio"`
	Upper       bool          `json:"upper,omitempty"`    // the file was written after the image was made
	Unlinked    bool          `json:"unlinked,omitempty"` // the file has no name any more: deleted, or a memfd
	PathCut     bool          `json:"path_cut,omitempty"`
	ArgsCut     bool          `json:"args_cut,omitempty"`
	ArgsLost    bool          `json:"args_lost,omitempty"`
	Secure      bool          `json:"secure,omitempty"`        // it has more rights than its caller had: set-uid, set-gid, file capabilities
	Effective   uint64        `json:"cap_effective,omitempty"` // its capabilities, a bit each
}

// Parent returns the name of the process's parent at that moment.
func (e *Exec) Parent() ID { return ID{e.PPID, e.ParentStart} }

// FD is the type of an open file: a few words that rules compare with.
type FD string

// The types of an open file. FDInet is a socket of IPv4 or IPv6, FDSocket any other one.
const (
	FDClosed FD = ""
	FDInet   FD = "inet"
	FDSocket FD = "socket"
	FDPipe   FD = "pipe"
	FDPty    FD = "pty"
	FDChar   FD = "char"
	FDFile   FD = "file"
	FDOther  FD = "other"
)

// Valid reports whether f is one of the types.
func (f FD) Valid() bool {
	switch f {
	case FDClosed, FDInet, FDSocket, FDPipe, FDPty, FDChar, FDFile, FDOther:
		return true
	}
	return false
}

func fdOf(v uint8) FD {
	switch v & 0xf {
	case 0:
		return FDClosed
	case syscall.S_IFSOCK >> 12:
		if v&bpf.FDInet != 0 {
			return FDInet
		}
		return FDSocket
	case syscall.S_IFIFO >> 12:
		return FDPipe
	case syscall.S_IFCHR >> 12:
		if v&bpf.FDPty != 0 {
			return FDPty
		}
		return FDChar
	case syscall.S_IFREG >> 12:
		return FDFile
	default:
		return FDOther
	}
}

// Fork tells that a process began; its Meta describes the child.
type Fork struct {
	Meta
	ParentStart time.Duration `json:"parent_start_ns,omitempty"`
}

// Parent returns the name of the process's parent.
func (e *Fork) Parent() ID { return ID{e.PPID, e.ParentStart} }

// Exit tells that a process ended.
type Exit struct {
	Meta
	Code uint32 `json:"code,omitempty"` // as wait(2) gives it
}

// Open tells that a watched file was opened, or that a watched name was tried.
type Open struct {
	Meta
	Path     string `json:"path"`               // from the root of the mount namespace; as the caller named it if not Resolved
	Resolved bool   `json:"resolved,omitempty"` // Path is the file's own, no matter what the caller named
	Device   uint32 `json:"device,omitempty"`   // in the kernel's form, see bpf.KernelDev
	Inode    uint64 `json:"inode,omitempty"`
	Links    uint32 `json:"links,omitempty"`
	Mode     uint16 `json:"mode,omitempty"`  // type and permissions of the file
	Flags    uint32 `json:"flags,omitempty"` // O_WRONLY, O_RDWR, …
	Errno    int32  `json:"errno,omitempty"` // why it was not opened; 0: it was
	Upper    bool   `json:"upper,omitempty"`
	Unlinked bool   `json:"unlinked,omitempty"`
	PathCut  bool   `json:"path_cut,omitempty"`
	Compat   bool   `json:"compat,omitempty"` // a 32-bit system call on a 64-bit kernel
}

// Connect tells that a process reached out to an address. That it was answered is not said.
type Connect struct {
	Meta
	Addr     netip.AddrPort `json:"addr"` // IPv4 also when it went through an IPv6 socket
	Protocol uint8          `json:"protocol,omitempty"`
	Datagram bool           `json:"datagram,omitempty"` // sent without a connect
}

// Cgroup tells that a cgroup came or went; its Meta describes who did that.
type Cgroup struct {
	Meta
	ID      uint64 `json:"id"`
	Path    string `json:"path"` // from the root of the v2 hierarchy
	Level   uint32 `json:"level,omitempty"`
	Removed bool   `json:"removed,omitempty"`
	PathCut bool   `json:"path_cut,omitempty"`
}

// Uring tells that a process set up an io_uring: what it opens through that is not seen.
type Uring struct {
	Meta
	FD      int32  `json:"fd,omitempty"`
	Entries uint32 `json:"entries,omitempty"`
}

// Cause says why events are missing.
type Cause string

// The causes. A ring is full when its reader is too slow; a run is missed when the kernel skips a nested one;
// telemetry is limited when one cgroup causes more of it than Config.Rate allows.
const (
	CauseRingFull  Cause = "ring-full"
	CauseMissedRun Cause = "missed-run"
	CauseLimited   Cause = "rate-limited"
)

// Valid reports whether c is one of the causes.
func (c Cause) Valid() bool { return c == CauseRingFull || c == CauseMissedRun || c == CauseLimited }

// Blind tells that events are missing: so many of one kind, between From and Meta.At.
type Blind struct {
	Meta
	Lost  string        `json:"lost"` // name of the kind, see bpf.Kind
	Class string        `json:"class,omitempty"`
	Cause Cause         `json:"cause"`
	Count uint64        `json:"count"`
	From  time.Duration `json:"from_ns"`
}
