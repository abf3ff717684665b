package probe_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tourniquet.dev/tourniquet/bpf"
	"tourniquet.dev/tourniquet/sensor/probe"
)

func header(kind bpf.Kind, flags uint16) bpf.Header {
	h := bpf.Header{TimeNS: 5, StartNS: 3, CgroupID: 9, TGID: 10, TID: 11, PPID: 1, UID: 1000, EUID: 0, Policy: 2, Match: 4, Kind: kind, Flags: flags}
	copy(h.Comm[:], "curl")
	return h
}

var meta = probe.Meta{At: 5, Start: 3, Cgroup: 9, TGID: 10, TID: 11, PPID: 1, UID: 1000, Policy: 2, Match: 4, Comm: "curl"}

// samples are records of every kind with the events that they hold.
func samples() map[string]struct {
	record []byte
	want   probe.Event
} {
	path := "credentials\x00.aws\x00root\x00"
	return map[string]struct {
		record []byte
		want   probe.Event
	}{
		"fork": {bpf.Encode(bpf.ForkEvent{Header: header(bpf.KindFork, 0), ParentStartNS: 2}), &probe.Fork{Meta: meta, ParentStart: 2}},
		"exit": {bpf.Encode(bpf.ExitEvent{Header: header(bpf.KindExit, 0), Code: 256}), &probe.Exit{Meta: meta, Code: 256}},
		"exec": {
			bpf.Encode(bpf.ExecEvent{
				Header: header(bpf.KindExec, bpf.FlagUpper|bpf.FlagArgsCut), ParentStartNS: 2, Ino: 7, Dev: 8, Nlink: 1, Argc: 3,
				PathLen: 11, FileLen: 5, ArgsLen: 9, FD: [3]uint8{12 | bpf.FDInet, 1, 2 | bpf.FDPty},
			}, []byte("sh\x00bin\x00usr\x00./sh\x00sh\x00-c\x00xyz")...),
			&probe.Exec{
				Meta: meta, ParentStart: 2, Inode: 7, Device: 8, Links: 1, Argc: 3,
				Path: "/usr/bin/sh", Named: "./sh", Args: []string{"sh", "-c", "xyz"},
				Stdio: [3]probe.FD{probe.FDInet, probe.FDPipe, probe.FDPty}, Upper: true, ArgsCut: true,
			},
		},
		"open": {
			bpf.Encode(bpf.OpenEvent{Header: header(bpf.KindOpen, 0), Ino: 7, Dev: 8, Nlink: 1, Result: 3, PathLen: uint16(len(path)), Mode: 0o100600}, []byte(path)...),
			&probe.Open{Meta: meta, Path: "/root/.aws/credentials", Resolved: true, Inode: 7, Device: 8, Links: 1, Mode: 0o100600},
		},
		"failed open": {
			bpf.Encode(bpf.OpenEvent{Header: header(bpf.KindOpen, bpf.FlagUnresolved), Result: -2, PathLen: 5}, []byte("a/../\x00")...),
			&probe.Open{Meta: meta, Path: "a/../", Errno: 2},
		},
		"connect": {
			bpf.Encode(bpf.ConnectEvent{Header: header(bpf.KindConnect, bpf.FlagSendmsg), Addr: netip.MustParseAddr("169.254.169.254").As16(), Port: 80, Protocol: 17}),
			&probe.Connect{Meta: meta, Addr: netip.MustParseAddrPort("169.254.169.254:80"), Protocol: 17, Datagram: true},
		},
		"cgroup": {
			bpf.Encode(bpf.CgroupEvent{Header: header(bpf.KindCgroup, 0), ID: 77, Level: 1, Op: bpf.CgroupRemoved, PathLen: 3}, []byte("/a\x00")...),
			&probe.Cgroup{Meta: meta, ID: 77, Level: 1, Path: "/a", Removed: true},
		},
		"call": {
			bpf.Encode(bpf.CallEvent{
				Header: header(bpf.KindCall, bpf.FlagCompat), Call: bpf.CallPtrace, Number: 16, TargetTGID: 70, TargetStartNS: 6, TargetCgroup: 99, TargetVpid: 7,
				NSInum: 5, NSType: 0x20000, Result: -1, FD: 2, FDType: 12 | bpf.FDInet, Family: 17, SockType: 3,
			}),
			&probe.Call{
				Meta: meta, Call: "ptrace", Number: 16, Target: probe.ID{TGID: 70, Start: 6}, TargetCgroup: 99, TargetPID: 7,
				Namespace: 5, NamespaceType: 0x20000, Errno: 1, FD: 2, FDType: probe.FDInet, Family: 17, SocketType: 3, Compat: true,
			},
		},
		"cred": {
			bpf.Encode(bpf.CredEvent{Header: header(bpf.KindCred, 0), Call: bpf.CallSetID, UIDBefore: 5, EUIDBefore: 6, CapBefore: 1, CapAfter: 3}),
			&probe.Cred{Meta: meta, Call: "setid", UIDBefore: 5, EUIDBefore: 6, Before: 1, After: 3},
		},
		"unix": {
			bpf.Encode(bpf.UnixEvent{Header: header(bpf.KindUnix, 0), Ino: 7, Dev: 8, PeerTGID: 9, SockType: 1, PathLen: 16}, []byte("docker.sock\x00run\x00")...),
			&probe.Unix{Meta: meta, Path: "/run/docker.sock", Device: 8, Inode: 7, PeerTGID: 9, Type: 1},
		},
		"dns": {
			bpf.Encode(bpf.DNSEvent{Header: header(bpf.KindDNS, 0), Addr: netip.MustParseAddr("10.0.0.10").As16(), Port: 53, Protocol: 17, Size: 29, Questions: 1, DataLen: 12},
				[]byte("\x03a.b\x02ex\x00\x00\x10\x00\x01")[:12]...),
			&probe.DNS{Meta: meta, Server: netip.MustParseAddrPort("10.0.0.10:53"), Protocol: 17, Name: `a\046b.ex`, Type: 16, Size: 29, Questions: 1},
		},
		"uring": {bpf.Encode(bpf.UringEvent{Header: header(bpf.KindUring, 0), FD: 4, Entries: 8}), &probe.Uring{Meta: meta, FD: 4, Entries: 8}},
	}
}

func TestDecode(t *testing.T) {
	for name, tc := range samples() {
		t.Run(name, func(t *testing.T) {
			got, err := probe.Decode(tc.record)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestACutRecordIsAnError(t *testing.T) {
	for name, tc := range samples() {
		for n := range len(tc.record) {
			if n > len(tc.record)-8 { // the last field may be padding, or a path shorter than its record
				break
			}
			if event, err := probe.Decode(tc.record[:n]); !errors.Is(err, probe.ErrRecord) {
				t.Errorf("%s cut to %d of %d bytes: %+v, %v", name, n, len(tc.record), event, err)
			}
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range samples() {
		f.Add(s.record)
	}
	f.Fuzz(func(t *testing.T, record []byte) {
		event, err := probe.Decode(record)
		if (event == nil) == (err == nil) {
			t.Fatalf("event %v, error %v", event, err)
		}
		if err != nil {
			return
		}
		if event.Head().At != time.Duration(timeOfHeader(record)) {
			t.Errorf("time %v", event.Head().At)
		}
		again, err := probe.Decode(append([]byte(nil), record...))
		if err != nil || !cmp.Equal(event, again, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })) {
			t.Errorf("decoded twice: %+v and %+v, %v", event, again, err)
		}
		if text, err := json.Marshal(event); err != nil || bytes.Contains(text, []byte(`\ufffd`)) {
			return // a recording loses bytes that are not UTF-8
		}
		if played := roundTrip(t, event); !cmp.Equal(event, played, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })) {
			t.Errorf("recorded %+v, played %+v", event, played)
		}
	})
}

func timeOfHeader(record []byte) uint64 {
	h, _, _ := bpf.Decode[bpf.Header](record)
	return h.TimeNS
}

func roundTrip(t *testing.T, event probe.Event) probe.Event {
	t.Helper()
	var text strings.Builder
	recorder, err := probe.NewRecorder(&text, time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	if err := recorder.Write(event); err != nil {
		t.Fatal(err)
	}
	player, err := probe.NewPlayer(strings.NewReader(text.String()), probe.PlayOptions{})
	if err != nil {
		t.Fatal(err)
	}
	played, err := player.Next()
	if err != nil {
		t.Fatal(err)
	}
	return played
}
