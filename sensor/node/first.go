package node

import (
	"sync"
	"time"

	"tourniquet.dev/tourniquet/sensor/probe"
	"tourniquet.dev/tourniquet/sensor/process"
)

const (
	// freshFor is how long after its start a first process's environment is taken for the one that its container was
	// started with. Later a compromised first process could have overwritten it.
	freshFor = 10 * time.Second
	maxFirst = 16384
)

// first is a container's first process, and what its environment said.
type first struct {
	id    probe.ID
	hints process.Hints
	fresh bool // the hints were read soon enough to be believed
}

// firsts knows the first process of each container's cgroup: of those that live there, the one that began first.
type firsts struct {
	tree *process.Tree
	read func(pid uint32) (process.Hints, error)
	boot func() time.Duration

	mu  sync.Mutex
	all map[uint64]first
}

func newFirsts(tree *process.Tree, read func(uint32) (process.Hints, error), boot func() time.Duration) *firsts {
	return &firsts{tree: tree, read: read, boot: boot, all: map[uint64]first{}}
}

// saw learns from an event of the cgroup: after the first exec it is time to read the environment.
func (f *firsts) saw(cgroup uint64, e probe.Event) {
	exec, ok := e.(*probe.Exec)
	if !ok {
		return
	}
	if got := f.of(cgroup); got.id == exec.Process() {
		f.renew(cgroup, got.id) // what it executes now has the environment that counts
	}
}

// of returns the first process of the cgroup; its id is zero when none is known.
func (f *firsts) of(cgroup uint64) first {
	f.mu.Lock()
	got, ok := f.all[cgroup]
	f.mu.Unlock()
	if p, alive := f.tree.Get(got.id); ok && alive && p.Exited == 0 {
		return got
	}
	var id probe.ID
	for _, p := range f.tree.Find(func(p *process.Process) bool { return p.Cgroup == cgroup && p.Exited == 0 }) {
		if id.TGID == 0 || p.ID.Start < id.Start || (p.ID.Start == id.Start && p.ID.TGID < id.TGID) {
			id = p.ID
		}
	}
	if id.TGID == 0 {
		return got // it ended, and so does the container
	}
	return f.renew(cgroup, id)
}

// elder says that another process of the cgroup began before the one that was taken for the first.
func (f *firsts) elder(cgroup uint64, id probe.ID) first {
	if p, ok := f.tree.Get(id); !ok || p.Exited != 0 || p.Cgroup != cgroup {
		return f.of(cgroup)
	}
	return f.renew(cgroup, id)
}

// renew reads the environment of a cgroup's first process. What was read soon after the start is not read again later:
// by then somebody else may have written it.
func (f *firsts) renew(cgroup uint64, id probe.ID) first {
	got := first{id: id, fresh: f.boot()-id.Start < freshFor}
	f.mu.Lock()
	old := f.all[cgroup]
	f.mu.Unlock()
	if old.id == id && old.fresh && !got.fresh {
		return old
	}
	if f.read != nil {
		if hints, err := f.read(id.TGID); err == nil {
			got.hints = hints
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.all) >= maxFirst {
		for k := range f.all { // any one: it is found again when asked for
			delete(f.all, k)
			break
		}
	}
	f.all[cgroup] = got
	return got
}

// young are the cgroups of containers that were made a moment ago, whose first process is to be looked at while what it
// says can be believed. It may exec several times until it is the container's program.
type young struct {
	mu   sync.Mutex
	made map[uint64]time.Duration
}

const (
	lookAtYoung = 500 * time.Millisecond
	maxYoung    = 1024
)

func (y *young) add(cgroup uint64, now time.Duration) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if len(y.made) < maxYoung {
		y.made[cgroup] = now
	}
}

// list returns those that are still young.
func (y *young) list(now time.Duration) []uint64 {
	y.mu.Lock()
	defer y.mu.Unlock()
	var out []uint64
	for cgroup, since := range y.made {
		if now-since > freshFor {
			delete(y.made, cgroup)
			continue
		}
		out = append(out, cgroup)
	}
	return out
}

// refresh reads the environment of the cgroup's first process again, if it is still soon enough.
func (f *firsts) refresh(cgroup uint64) {
	if got := f.of(cgroup); got.id.TGID != 0 && got.fresh {
		f.renew(cgroup, got.id)
	}
}

// forget drops a cgroup that is gone.
func (f *firsts) forget(cgroup uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.all, cgroup)
}
