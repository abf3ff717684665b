package probe

import (
	"net/netip"
	"time"

	"tourniquet.dev/tourniquet/bpf"
)

// Call tells that a process made a rare system call that the filter names, whether it was granted or not. All of it comes
// from the kernel's own objects and from numbers that the caller passed, none from the caller's memory.
type Call struct {
	Meta
	Call   string `json:"call"`             // name, as in bpf.Calls: "ptrace", "setns", …
	Number uint64 `json:"number,omitempty"` // ptrace: request; bpf, fcntl: command; unshare, mount, memfd_create, …: flags
	Errno  int32  `json:"errno,omitempty"`  // why it was refused; 0: it was not
	Result int32  `json:"result,omitempty"` // what it returned, at most 31 bits of it

	// To whom it was done: ptrace, process_vm_readv, process_vm_writev.
	Target       ID     `json:"target,omitzero"` // zero: nobody, or not found
	TargetCgroup uint64 `json:"target_cgroup,omitempty"`
	TargetPID    uint32 `json:"target_pid,omitempty"` // as the caller named it, in its own pid namespace

	// The namespace that setns entered.
	Namespace     uint32 `json:"namespace,omitempty"`      // its inode, as /proc/PID/ns shows it
	NamespaceType uint32 `json:"namespace_type,omitempty"` // CLONE_NEW…; 0 before Linux 6.18, whose Number may tell

	// The descriptor that was made or replaced; -1: none. A dup is told only where it puts an inet socket on 0, 1 or 2.
	FD         int32  `json:"fd"`
	FDType     FD     `json:"fd_type,omitempty"`
	Family     uint16 `json:"family,omitempty"`      // of a socket: AF_PACKET, …
	SocketType uint16 `json:"socket_type,omitempty"` // SOCK_RAW, …
	Compat     bool   `json:"compat,omitempty"`
}

// Cred tells that a process gained an effective user id 0 or capabilities by a system call. Meta has the ids after it. What
// an exec gains is told by Exec.Secure.
type Cred struct {
	Meta
	Call       string `json:"call"` // "setid" for all of setuid, setresgid, …; or "capset"
	UIDBefore  uint32 `json:"uid_before"`
	EUIDBefore uint32 `json:"euid_before"`
	Before     uint64 `json:"cap_before,omitempty"` // effective capabilities, a bit each
	After      uint64 `json:"cap_after,omitempty"`
}

// Gained returns the capabilities that are new, a bit each.
func (e *Cred) Gained() uint64 { return e.After &^ e.Before }

// Unix tells of a connect to a watched unix socket, as the kernel reached it: no matter what the caller named.
type Unix struct {
	Meta
	Path     string `json:"path"` // of the socket's file from the root of its mount namespace, or its abstract name
	Abstract bool   `json:"abstract,omitempty"`
	PathCut  bool   `json:"path_cut,omitempty"`
	Device   uint32 `json:"device,omitempty"` // of the socket's file, in the kernel's form
	Inode    uint64 `json:"inode,omitempty"`
	PeerTGID uint32 `json:"peer_tgid,omitempty"` // who listens
	Type     uint16 `json:"type,omitempty"`      // SOCK_STREAM, …
}

// DNS tells of a query to port 53. It takes the telemetry ring, and the limit of Config.Rate holds for it. Its Meta has only
// the cgroup where the sender is not known, as for a segment that TCP sends later.
type DNS struct {
	Meta
	Server    netip.AddrPort `json:"server"`
	Protocol  uint8          `json:"protocol,omitempty"`
	Name      string         `json:"name"` // of the first question, without the last dot; bytes but letters, digits, - and _ escaped as \\DDD
	NameCut   bool           `json:"name_cut,omitempty"`
	Type      uint16         `json:"type,omitempty"` // 1: A, 16: TXT, 28: AAAA, …
	Size      uint32         `json:"size,omitempty"` // of the whole message
	Questions uint16         `json:"questions,omitempty"`
}

func decodeCall(record []byte) Event {
	raw, _, ok := bpf.Decode[bpf.CallEvent](record)
	if !ok || !raw.Call.Valid() {
		return nil
	}
	e := &Call{
		Meta: metaOf(&raw.Header), Call: raw.Call.String(), Number: raw.Number,
		Target: ID{raw.TargetTGID, time.Duration(raw.TargetStartNS)}, TargetCgroup: raw.TargetCgroup, TargetPID: raw.TargetVpid,
		Namespace: raw.NSInum, NamespaceType: raw.NSType, FD: raw.FD, FDType: fdOf(raw.FDType), Family: raw.Family, SocketType: raw.SockType,
		Compat: raw.Header.Flags&bpf.FlagCompat != 0,
	}
	if raw.Result < 0 {
		e.Errno = -raw.Result
	} else {
		e.Result = raw.Result
	}
	return e
}

func decodeCred(record []byte) Event {
	raw, _, ok := bpf.Decode[bpf.CredEvent](record)
	if !ok || !raw.Call.Valid() {
		return nil
	}
	return &Cred{
		Meta: metaOf(&raw.Header), Call: raw.Call.String(), UIDBefore: raw.UIDBefore, EUIDBefore: raw.EUIDBefore,
		Before: raw.CapBefore, After: raw.CapAfter,
	}
}

func decodeUnix(record []byte) Event {
	raw, rest, ok := bpf.Decode[bpf.UnixEvent](record)
	if !ok || int(raw.PathLen) > len(rest) {
		return nil
	}
	flags := raw.Header.Flags
	e := &Unix{
		Meta: metaOf(&raw.Header), Abstract: flags&bpf.FlagAbstract != 0, PathCut: flags&bpf.FlagPathCut != 0,
		Device: raw.Dev, Inode: raw.Ino, PeerTGID: raw.PeerTGID, Type: raw.SockType,
	}
	if e.Abstract {
		e.Path = cString(rest[:raw.PathLen])
	} else {
		e.Path = pathOf(rest[:raw.PathLen])
	}
	return e
}

func decodeDNS(record []byte) Event {
	raw, rest, ok := bpf.Decode[bpf.DNSEvent](record)
	if !ok || int(raw.DataLen) > len(rest) {
		return nil
	}
	e := &DNS{
		Meta: metaOf(&raw.Header), Server: netip.AddrPortFrom(netip.AddrFrom16(raw.Addr).Unmap(), raw.Port), Protocol: raw.Protocol,
		Size: raw.Size, Questions: raw.Questions,
	}
	e.Name, e.Type, e.NameCut = questionOf(rest[:raw.DataLen])
	return e
}
