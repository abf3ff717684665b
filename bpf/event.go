package bpf

import "unsafe"

// Kind says what happened.
type Kind uint16

// The kinds of records, as event.h numbers them.
const (
	KindExec    Kind = 1
	KindFork    Kind = 2
	KindExit    Kind = 3
	KindOpen    Kind = 4
	KindConnect Kind = 5
	KindCgroup  Kind = 6
	KindUring   Kind = 7
	KindCall    Kind = 8
	KindCred    Kind = 9
	KindUnix    Kind = 10
	KindDNS     Kind = 11

	kindMax = 16
)

// Kinds returns all kinds.
func Kinds() []Kind {
	return []Kind{KindExec, KindFork, KindExit, KindOpen, KindConnect, KindCgroup, KindUring, KindCall, KindCred, KindUnix, KindDNS}
}

// String returns the kind's name, as metrics and recordings use it.
func (k Kind) String() string {
	switch k {
	case KindExec:
		return "exec"
	case KindFork:
		return "fork"
	case KindExit:
		return "exit"
	case KindOpen:
		return "open"
	case KindConnect:
		return "connect"
	case KindCgroup:
		return "cgroup"
	case KindUring:
		return "uring"
	case KindCall:
		return "call"
	case KindCred:
		return "cred"
	case KindUnix:
		return "unix"
	case KindDNS:
		return "dns"
	default:
		return "unknown"
	}
}

// hook returns the hook whose programs tell of the kind.
func (k Kind) hook() Hook {
	switch k {
	case KindUring:
		return HookOpen
	case KindUnix:
		return HookCall
	default:
		return Hook(k.String())
	}
}

// Class says which ring a record takes.
type Class uint8

// The classes. A flood of telemetry cannot push out critical records: each has its own ring.
const (
	Critical  Class = 0
	Telemetry Class = 1
)

// String returns the class's name, as metrics use it.
func (c Class) String() string {
	if c == Critical {
		return "critical"
	}
	return "telemetry"
}

// Bits of Header.Flags, as event.h numbers them.
const (
	FlagUpper      uint16 = 1 << iota // the file lies in an overlay's upper layer: it did not come with the image
	FlagUnlinked                      // the file has no name any more: deleted, or a memfd
	FlagPathCut                       // the path has more components, or a longer one, than a record holds
	FlagArgsCut                       // the arguments are longer than asked for
	FlagUnresolved                    // the path is the caller's own string: a hint, not a fact
	FlagSendmsg                       // a datagram to an address, not a connect
	FlagArgsLost                      // the arguments could not be read
	FlagDetached                      // the path ends below a mount that hangs nowhere
	FlagCompat                        // a 32-bit system call on a 64-bit kernel
	FlagSecure                        // the program runs with more rights than its caller had
	FlagAbstract                      // a unix socket's name that lies in no file system
)

// Hints in the type of a file descriptor; its low four bits are the S_IFMT bits of its mode, shifted down by 12.
const (
	FDPty  uint8 = 0x10
	FDInet uint8 = 0x20
)

// Values of CgroupEvent.Op.
const (
	CgroupMade    uint16 = 1
	CgroupRemoved uint16 = 2
)

// Header begins every record. Times are nanoseconds of CLOCK_BOOTTIME; ids are those of the first pid namespace.
type Header struct {
	TimeNS   uint64
	StartNS  uint64
	CgroupID uint64
	TGID     uint32
	TID      uint32
	PPID     uint32
	UID      uint32
	Policy   uint32
	Match    uint32
	EUID     uint32
	Kind     Kind
	Flags    uint16
	Comm     [16]byte
}

// ForkEvent tells of a new process; its header describes the child.
type ForkEvent struct {
	Header        Header
	ParentStartNS uint64
}

// ExitEvent tells of a process that ended.
type ExitEvent struct {
	Header Header
	Code   uint32
	_      uint32
}

// ExecEvent tells of a process that became another program. PathLen, FileLen and ArgsLen bytes follow.
type ExecEvent struct {
	Header        Header
	ParentStartNS uint64
	Ino           uint64
	Dev           uint32
	Nlink         uint32
	Argc          uint32
	PathLen       uint16
	FileLen       uint16
	ArgsLen       uint16
	FD            [3]uint8
	_             [3]uint8
	CapEffective  uint64
}

// OpenEvent tells of a watched file that was opened, or was tried. PathLen bytes follow.
type OpenEvent struct {
	Header    Header
	Ino       uint64
	Dev       uint32
	Nlink     uint32
	OpenFlags uint32
	Result    int32
	PathLen   uint16
	Mode      uint16
	_         uint32
}

// ConnectEvent tells of a connect or of a datagram. IPv4 addresses are in their IPv6-mapped form.
type ConnectEvent struct {
	Header   Header
	Addr     [16]byte
	Port     uint16
	Family   uint8
	Protocol uint8
	_        uint32
}

// CgroupEvent tells of a cgroup that came or went. PathLen bytes follow; its header describes who did it.
type CgroupEvent struct {
	Header  Header
	ID      uint64
	Level   uint32
	Op      uint16
	PathLen uint16
}

// UringEvent tells of an io_uring that was set up: opens through it are not seen.
type UringEvent struct {
	Header  Header
	FD      int32
	Entries uint32
}

// CallEvent tells of a rare system call. Call is its Call's place in event.h.
type CallEvent struct {
	Header        Header
	Number        uint64
	TargetStartNS uint64
	TargetCgroup  uint64
	TargetTGID    uint32
	TargetVpid    uint32
	NSInum        uint32
	NSType        uint32
	Result        int32
	FD            int32
	Call          Call
	Family        uint16
	SockType      uint16
	FDType        uint8
	_             uint8
}

// CredEvent tells that a process gained a user id or capabilities by a system call; its header has the ids after it.
type CredEvent struct {
	Header     Header
	CapBefore  uint64
	CapAfter   uint64
	UIDBefore  uint32
	EUIDBefore uint32
	Call       Call
	_          [3]uint16
}

// UnixEvent tells of a connect to a watched unix socket. PathLen bytes follow.
type UnixEvent struct {
	Header   Header
	Ino      uint64
	Dev      uint32
	Result   int32
	PeerTGID uint32
	PathLen  uint16
	SockType uint16
}

// DNSEvent tells of a DNS query that was sent. DataLen bytes follow: the message from its first question on.
type DNSEvent struct {
	Header    Header
	Addr      [16]byte
	Size      uint32
	Port      uint16
	DataLen   uint16
	ID        uint16
	Questions uint16
	Protocol  uint8
	_         [3]uint8
}

// Event is any record's fixed part.
type Event interface {
	Header | ForkEvent | ExitEvent | ExecEvent | OpenEvent | ConnectEvent | CgroupEvent | UringEvent | CallEvent | CredEvent | UnixEvent | DNSEvent
}

// Decode copies the fixed part off a record and returns what follows it; false when the record is too short. Machines
// with another byte order do not build this package.
func Decode[T Event](record []byte) (T, []byte, bool) {
	var event T
	size := int(unsafe.Sizeof(event))
	if len(record) < size {
		return event, nil, false
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&event)), size), record)
	return event, record[size:], true
}

// Encode returns the record that Decode reads, for recordings and tests.
func Encode[T Event](event T, rest ...byte) []byte {
	return append(append([]byte(nil), unsafe.Slice((*byte)(unsafe.Pointer(&event)), unsafe.Sizeof(event))...), rest...)
}

// KernelDev turns the st_dev that stat gives into the form in which the kernel keeps it, and records carry it.
func KernelDev(stDev uint64) uint32 {
	major := (stDev>>8)&0xfff | (stDev>>32)&0xfffff000
	minor := stDev&0xff | (stDev>>12)&0xffffff00
	return uint32(major<<20 | minor)
}
