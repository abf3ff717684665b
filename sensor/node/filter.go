package node

import (
	"net/netip"

	"tourniquet.dev/tourniquet/bpf"
	"tourniquet.dev/tourniquet/sensor/probe"
	"tourniquet.dev/tourniquet/sensor/rule"
)

// Filter has the kernel tell at once, or at all, of what the rules watch.
func Filter(w rule.Watch) probe.Filter {
	f := probe.Filter{Names: map[probe.Name]uint32{}, Addresses: map[netip.Addr]uint32{}}
	for what, names := range map[bpf.NameKind][]string{bpf.NameFile: w.Files, bpf.NameDir: w.Dirs, bpf.NameExec: w.Programs} {
		for _, name := range names {
			f.Names[probe.Name{What: what, Name: name}] = 1
		}
	}
	for _, addr := range w.Addresses {
		f.Addresses[addr] = 1
	}
	return f
}
