package node

import (
	"net/netip"
	"slices"

	"tourniquet.dev/tourniquet/bpf"
	"tourniquet.dev/tourniquet/sensor/probe"
	"tourniquet.dev/tourniquet/sensor/rule"
)

// Filter has the kernel tell at once, or at all, of what the rules watch.
func Filter(w rule.Watch) probe.Filter {
	f := probe.Filter{Names: map[probe.Name]uint32{}, Addresses: map[netip.Addr]uint32{}, Calls: map[bpf.Call]uint32{}}
	for what, names := range map[bpf.NameKind][]string{bpf.NameFile: w.Files, bpf.NameDir: w.Dirs, bpf.NameExec: w.Programs, bpf.NameSocket: w.Sockets} {
		for _, name := range names {
			f.Names[probe.Name{What: what, Name: name}] = 1
		}
	}
	for _, addr := range w.Addresses {
		f.Addresses[addr] = 1
	}
	for _, call := range bpf.Calls() {
		if slices.Contains(w.Calls, call.String()) {
			f.Calls[call] = 1
		}
	}
	if len(w.Sockets) > 0 {
		f.Calls[bpf.CallConnect] = 1
	}
	return f
}

// Hooks are those that the rules need, so that what none asks for costs nothing. Ancestry and containers are always told;
// learns adds what profiles are made of.
func Hooks(w rule.Watch, learns bool) []bpf.Hook {
	f := Filter(w)
	hooks := []bpf.Hook{bpf.HookCgroup, bpf.HookFork, bpf.HookExec, bpf.HookExit}
	add := func(hook bpf.Hook, needed bool) {
		if needed {
			hooks = append(hooks, hook)
		}
	}
	_, setid := f.Calls[bpf.CallSetID]
	_, capset := f.Calls[bpf.CallCapset]
	rights := 0
	for _, one := range []bool{setid, capset} {
		if one {
			rights++
		}
	}
	add(bpf.HookConnect, learns || slices.Contains(w.Kinds, rule.Connect))
	add(bpf.HookOpen, learns || len(w.Files)+len(w.Dirs) > 0)
	add(bpf.HookCall, len(f.Calls) > rights)
	add(bpf.HookCred, rights > 0)
	add(bpf.HookDNS, slices.Contains(w.Kinds, rule.DNS))
	return hooks
}

// UnknownCalls are calls that rules watch and the kernel side does not know.
func UnknownCalls(w rule.Watch) []string {
	var out []string
	for _, name := range w.Calls {
		if !slices.ContainsFunc(bpf.Calls(), func(c bpf.Call) bool { return c.String() == name }) {
			out = append(out, name)
		}
	}
	return out
}
