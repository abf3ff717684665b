package rule

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Watch is what the kernel has to tell of at once, or at all, for rules to see it. Names are those of the file itself,
// not of the path that a caller used.
type Watch struct {
	Kinds     []Kind   // that any rule asks for
	Files     []string // opened files, by name
	Dirs      []string // opened files, by the name of their directory
	Programs  []string // executed files, by name
	Addresses []netip.Addr
	Calls     []string // rare system calls
	Sockets   []string // unix sockets that are connected to, by name
}

// resolve follows lists.
func (n *Names) resolve(w words) (Watch, error) {
	var out Watch
	if n == nil {
		return out, nil
	}
	var errs []error
	all := func(items []string) []string {
		more, err := w.expand(items, 0)
		errs = append(errs, err)
		return more
	}
	out.Files, out.Dirs, out.Programs = all(n.Files), all(n.Dirs), all(n.Programs)
	out.Calls, out.Sockets = all(n.Calls), all(n.Sockets)
	for _, text := range all(n.Addresses) {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("%q is not an address", text))
			continue
		}
		out.Addresses = append(out.Addresses, addr)
	}
	return out, errors.Join(errs...)
}

// Watch returns what the rules need that are not off. A rule about a file that none of them names never sees it: the
// cases beside the rules fail then.
func (s *Set) Watch() Watch {
	var out Watch
	t := s.table.Load()
	for kind := range t.byKind {
		out.Kinds = append(out.Kinds, kind)
	}
	for _, r := range t.all {
		if r.Mode == Off {
			continue
		}
		out.Files, out.Dirs = append(out.Files, r.watch.Files...), append(out.Dirs, r.watch.Dirs...)
		out.Programs, out.Addresses = append(out.Programs, r.watch.Programs...), append(out.Addresses, r.watch.Addresses...)
		out.Calls, out.Sockets = append(out.Calls, r.watch.Calls...), append(out.Sockets, r.watch.Sockets...)
	}
	slices.Sort(out.Kinds)
	for _, names := range []*[]string{&out.Files, &out.Dirs, &out.Programs, &out.Calls, &out.Sockets} {
		slices.Sort(*names)
		*names = slices.Compact(*names)
	}
	slices.SortFunc(out.Addresses, netip.Addr.Compare)
	out.Addresses = slices.Compact(out.Addresses)
	return out
}

// opens reports whether a rule with this watch can hold for the path: one that names no file may hold for any that others
// have the kernel tell of. It spares most rules their evaluation.
func (w Watch) opens(p string) bool {
	return len(w.Files)+len(w.Dirs) == 0 || slices.Contains(w.Files, base(p)) || (len(w.Dirs) > 0 && slices.Contains(w.Dirs, base(dir(p))))
}

// Tells reports whether the kernel, asked for w, tells of an event.
func (w Watch) Tells(e Event) bool {
	switch e.Kind {
	case Open:
		return slices.Contains(w.Files, base(e.Path)) || slices.Contains(w.Dirs, base(dir(e.Path)))
	case Call:
		return slices.Contains(w.Calls, e.Call)
	case Unix:
		return slices.Contains(w.Sockets, base(e.Path))
	default: // with delay, where no name or address matches
		return slices.Contains(w.Kinds, e.Kind)
	}
}
