package bpf

import (
	"reflect"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"
)

type field struct {
	Name   string
	Offset uint32
	Size   int
}

// mirrored says which C struct of which object each Go type repeats.
var mirrored = map[string]struct {
	object func() (*ebpf.CollectionSpec, error)
	value  any
}{
	"header":        {loadExec, Header{}},
	"fork_event":    {loadFork, ForkEvent{}},
	"exit_event":    {loadExit, ExitEvent{}},
	"exec_event":    {loadExec, ExecEvent{}},
	"open_event":    {loadOpen, OpenEvent{}},
	"connect_event": {loadConnect, ConnectEvent{}},
	"cgroup_event":  {loadCgroup, CgroupEvent{}},
	"uring_event":   {loadOpen, UringEvent{}},
	"call_event":    {loadCall, CallEvent{}},
	"cred_event":    {loadCred, CredEvent{}},
	"unix_event":    {loadCall, UnixEvent{}},
	"dns_event":     {loadDns, DNSEvent{}},
	"call_table":    {loadCall, callTable{}},
	"call_row":      {loadCall, tableRow{}},
	"config":        {loadExec, configValue{}},
	"counter":       {loadExec, counterValue{}},
	"name_key":      {loadExec, nameKey{}},
	"inode_key":     {loadOpen, inodeKey{}},
	"hold":          {loadHold, HoldValue{}},
	"hold_drops":    {loadHold, HoldDrops{}},
}

func TestGoTypesHaveTheLayoutOfTheObjects(t *testing.T) {
	for name, tc := range mirrored {
		t.Run(name, func(t *testing.T) {
			spec, err := tc.object()
			if err != nil {
				t.Fatal(err)
			}
			var c *btf.Struct
			if err := spec.Types.TypeByName(name, &c); err != nil {
				t.Fatal(err)
			}
			if got, want := reflect.TypeOf(tc.value).Size(), uintptr(c.Size); got != want {
				t.Errorf("%d bytes in Go, %d in C", got, want)
			}
			if diff := cmp.Diff(cFields(t, c), goFields(tc.value)); diff != "" {
				t.Errorf("fields (-C +Go):\n%s", diff)
			}
		})
	}
}

func cFields(t *testing.T, c *btf.Struct) []field {
	var all []field
	for _, m := range c.Members {
		size, err := btf.Sizeof(m.Type)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, field{plain(m.Name), m.Offset.Bytes(), size})
	}
	return all
}

func goFields(value any) []field {
	var all []field
	of := reflect.TypeOf(value)
	for i := range of.NumField() {
		f := of.Field(i)
		all = append(all, field{plain(f.Name), uint32(f.Offset), int(f.Type.Size())})
	}
	return all
}

// plain makes the names of both languages comparable.
func plain(name string) string {
	switch name = strings.ToLower(strings.ReplaceAll(name, "_", "")); name {
	case "h":
		return "header"
	case "", "pad":
		return "pad"
	default:
		return name
	}
}

func TestKindsAreThoseOfTheHeader(t *testing.T) {
	spec, err := loadExec()
	if err != nil {
		t.Fatal(err)
	}
	if got := spec.Maps[execMapCounters].MaxEntries; got != kindMax {
		t.Errorf("the objects have %d counters, want %d", got, kindMax)
	}
	for _, kind := range Kinds() {
		if kind.String() == "unknown" || kind >= kindMax {
			t.Errorf("kind %d has no name or no counter", kind)
		}
	}
}

func TestKernelDevIsWhatTheKernelKeeps(t *testing.T) {
	for name, tc := range map[string]struct {
		stDev uint64
		want  uint32
	}{
		"a disk":                {0xfe00, 254 << 20},
		"an anonymous device":   {0x35, 0x35},
		"a minor above a byte":  {0x100045, 0x145},
		"a major above 12 bits": {0x100000000000 | 1<<8, 0x100100000 & 0xffffffff},
	} {
		if got := KernelDev(tc.stDev); got != tc.want {
			t.Errorf("%s: %#x, want %#x", name, got, tc.want)
		}
	}
}

func TestDecodeReadsWhatEncodeWrote(t *testing.T) {
	want := ExecEvent{Header: Header{TimeNS: 1, Kind: KindExec, Comm: [16]byte{'s', 'h'}}, Argc: 3, FD: [3]uint8{1, 2, 3}}
	record := Encode(want, 'a', 'b')
	got, rest, ok := Decode[ExecEvent](record)
	if !ok || got != want || string(rest) != "ab" {
		t.Errorf("got %+v, %q, %v", got, rest, ok)
	}
	if _, _, ok := Decode[ExecEvent](record[:len(record)-3]); ok {
		t.Error("a cut record was decoded")
	}
}
