package probe

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
	"unsafe"

	"tourniquet.dev/tourniquet/bpf"
)

// ErrRecord marks a record that is not one of ours: cut, of an unknown kind, or with lengths that do not add up.
var ErrRecord = errors.New("malformed record")

const (
	timeOffset = unsafe.Offsetof(bpf.Header{}.TimeNS)
	kindOffset = unsafe.Offsetof(bpf.Header{}.Kind)
	headerSize = unsafe.Sizeof(bpf.Header{})
)

// Decode turns one record of a ring into its event. It keeps no reference to the record.
func Decode(record []byte) (Event, error) {
	if len(record) < int(headerSize) {
		return nil, fmt.Errorf("%w: %d bytes", ErrRecord, len(record))
	}
	kind := bpf.Kind(binary.LittleEndian.Uint16(record[kindOffset:]))
	var event Event
	switch kind {
	case bpf.KindExec:
		event = decodeExec(record)
	case bpf.KindFork:
		event = decodeFork(record)
	case bpf.KindExit:
		event = decodeExit(record)
	case bpf.KindOpen:
		event = decodeOpen(record)
	case bpf.KindConnect:
		event = decodeConnect(record)
	case bpf.KindCgroup:
		event = decodeCgroup(record)
	case bpf.KindUring:
		event = decodeUring(record)
	case bpf.KindCall:
		event = decodeCall(record)
	case bpf.KindCred:
		event = decodeCred(record)
	case bpf.KindUnix:
		event = decodeUnix(record)
	case bpf.KindDNS:
		event = decodeDNS(record)
	default:
		return nil, fmt.Errorf("%w: kind %d", ErrRecord, kind)
	}
	if event == nil {
		return nil, fmt.Errorf("%w: %s of %d bytes", ErrRecord, kind, len(record))
	}
	return event, nil
}

func metaOf(h *bpf.Header) Meta {
	return Meta{
		At: time.Duration(h.TimeNS), Start: time.Duration(h.StartNS),
		TGID: h.TGID, TID: h.TID, PPID: h.PPID, UID: h.UID, EUID: h.EUID,
		Cgroup: h.CgroupID, Policy: h.Policy, Match: h.Match,
		Comm: cString(h.Comm[:]),
	}
}

// cString returns the bytes before the first NUL.
func cString(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

func decodeExec(record []byte) Event {
	raw, rest, ok := bpf.Decode[bpf.ExecEvent](record)
	path, file, args := int(raw.PathLen), int(raw.FileLen), int(raw.ArgsLen)
	if !ok || path+file+args > len(rest) {
		return nil
	}
	flags := raw.Header.Flags
	return &Exec{
		Meta: metaOf(&raw.Header), ParentStart: time.Duration(raw.ParentStartNS),
		Path: pathOf(rest[:path]), Named: cString(rest[path : path+file]), Args: argsOf(rest[path+file : path+file+args]), Argc: raw.Argc,
		Device: raw.Dev, Inode: raw.Ino, Links: raw.Nlink,
		Stdio: [3]FD{fdOf(raw.FD[0]), fdOf(raw.FD[1]), fdOf(raw.FD[2])},
		Upper: flags&bpf.FlagUpper != 0, Unlinked: flags&bpf.FlagUnlinked != 0, PathCut: flags&bpf.FlagPathCut != 0,
		ArgsCut: flags&bpf.FlagArgsCut != 0, ArgsLost: flags&bpf.FlagArgsLost != 0,
		Secure: flags&bpf.FlagSecure != 0, Effective: raw.CapEffective,
	}
}

func decodeFork(record []byte) Event {
	raw, _, ok := bpf.Decode[bpf.ForkEvent](record)
	if !ok {
		return nil
	}
	return &Fork{Meta: metaOf(&raw.Header), ParentStart: time.Duration(raw.ParentStartNS)}
}

func decodeExit(record []byte) Event {
	raw, _, ok := bpf.Decode[bpf.ExitEvent](record)
	if !ok {
		return nil
	}
	return &Exit{Meta: metaOf(&raw.Header), Code: raw.Code}
}

func decodeOpen(record []byte) Event {
	raw, rest, ok := bpf.Decode[bpf.OpenEvent](record)
	if !ok || int(raw.PathLen) > len(rest) {
		return nil
	}
	flags := raw.Header.Flags
	e := &Open{
		Meta: metaOf(&raw.Header), Device: raw.Dev, Inode: raw.Ino, Links: raw.Nlink, Mode: raw.Mode, Flags: raw.OpenFlags,
		Upper: flags&bpf.FlagUpper != 0, Unlinked: flags&bpf.FlagUnlinked != 0, PathCut: flags&bpf.FlagPathCut != 0,
		Compat: flags&bpf.FlagCompat != 0, Resolved: flags&bpf.FlagUnresolved == 0,
	}
	if raw.Result < 0 {
		e.Errno = -raw.Result
	}
	if e.Resolved {
		e.Path = pathOf(rest[:raw.PathLen])
	} else {
		e.Path = cString(rest[:raw.PathLen])
	}
	return e
}

func decodeConnect(record []byte) Event {
	raw, _, ok := bpf.Decode[bpf.ConnectEvent](record)
	if !ok {
		return nil
	}
	return &Connect{
		Meta: metaOf(&raw.Header), Addr: netip.AddrPortFrom(netip.AddrFrom16(raw.Addr).Unmap(), raw.Port),
		Protocol: raw.Protocol, Datagram: raw.Header.Flags&bpf.FlagSendmsg != 0,
	}
}

func decodeCgroup(record []byte) Event {
	raw, rest, ok := bpf.Decode[bpf.CgroupEvent](record)
	if !ok || int(raw.PathLen) > len(rest) {
		return nil
	}
	return &Cgroup{
		Meta: metaOf(&raw.Header), ID: raw.ID, Level: raw.Level, Path: cString(rest[:raw.PathLen]),
		Removed: raw.Op == bpf.CgroupRemoved, PathCut: raw.Header.Flags&bpf.FlagPathCut != 0,
	}
}

func decodeUring(record []byte) Event {
	raw, _, ok := bpf.Decode[bpf.UringEvent](record)
	if !ok {
		return nil
	}
	return &Uring{Meta: metaOf(&raw.Header), FD: raw.FD, Entries: raw.Entries}
}

// pathOf puts together the components of a path, which come last one first, each ended by a NUL.
func pathOf(b []byte) string {
	var path strings.Builder
	path.Grow(len(b) + 1)
	for len(b) > 0 {
		b = b[:len(b)-1] // the NUL
		at := bytes.LastIndexByte(b, 0) + 1
		if name := b[at:]; string(name) != "/" {
			path.WriteByte('/')
			path.Write(name)
		}
		b = b[:at]
	}
	if path.Len() == 0 {
		return "/"
	}
	return path.String()
}

func argsOf(b []byte) []string {
	if len(b) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
}
