package node

import (
	"context"
	"path"
	"slices"
	"syscall"
	"time"

	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/sensor/probe"
	"tourniquet.dev/tourniquet/sensor/process"
	"tourniquet.dev/tourniquet/sensor/reflex"
	"tourniquet.dev/tourniquet/sensor/rule"
)

// found is a detection on its way to the spool, with what is needed to complete it.
type found struct {
	detection *detection.Detection
	container process.Container
	first     first
	actor     probe.ID
	files     []string // credential files that the actor's process tree opened
}

// observe takes one event. It runs in the one goroutine that empties the source, so it waits for nothing but a place in
// the queue to the spool.
func (n *Node) observe(ctx context.Context, e probe.Event) {
	n.count.events.Add(1)
	switch e := e.(type) {
	case *probe.Blind:
		n.count.blind.Add(e.Count)
		n.losses.add(lossKey{string(e.Cause), e.Lost, e.Class}, e.Count, n.o.Source.Wall(e.From), n.o.Source.Wall(e.At))
		n.o.Log.Error("kernel events are missing", "kind", e.Lost, "class", e.Class, "cause", e.Cause, "count", e.Count, "from", e.From, "to", e.At)
		return
	case *probe.Cgroup:
		n.cgroup(e)
		return
	}
	n.o.Tree.Apply(e)
	m := e.Head()
	group, known := n.o.Cgroups.Lookup(m.Cgroup)
	if !known || !group.Contained || group.Container.ID == "" {
		return
	}
	n.complete(m)
	n.first.saw(m.Cgroup, e)
	if _, ok := e.(*probe.Uring); ok {
		n.count.uring.Add(1)
		n.lostSight(ctx, m, group)
		return
	}
	event, ok := n.event(e)
	if !ok {
		return
	}
	who, first := n.subject(m, group)
	all, err := n.o.Rules.Match(event, who)
	if err != nil {
		n.count.ruleError.Add(1)
		n.o.Log.Error("a rule said nothing", "err", err)
	}
	n.opened.saw(event, who.Tree(), all)
	f := found{container: group.Container, first: first, actor: m.Process(), files: n.opened.of(who.Tree())}
	for _, d := range all {
		n.tell(ctx, d, f, who.Tree(), m.At)
	}
	n.profile(ctx, e, who, f, len(all) > 0)
}

// tell has a detection go on to the spool, unless it tells of what was told of just now.
func (n *Node) tell(ctx context.Context, d *detection.Detection, f found, tree rule.Tree, at time.Duration) {
	n.count.matched.Add(1)
	struck := n.o.Reflex.Strike(reflex.Match{Detection: d, Container: f.container, Cgroup: d.Workload.CgroupID, Actor: f.actor})
	if !n.recent.take(d, tree, at) && !struck { // what was done is told of
		n.count.coalesced.Add(1)
		return
	}
	f.detection = d
	select {
	case n.found <- f:
	case <-ctx.Done():
		n.lose(lossKey{Cause: causeStopping})
	}
}

// complete has the tree look at all processes when it does not know who made this one: a container comes under watch a
// moment after it was made, and what happened before was not told.
func (n *Node) complete(m *probe.Meta) {
	p, ok := n.o.Tree.Get(m.Process())
	if ok && p.Parent.TGID != 0 {
		_, ok = n.o.Tree.Get(p.Parent)
	}
	if ok || m.At-n.completed < completeEvery {
		return
	}
	n.completed = m.At
	if err := n.o.Tree.Fill(); err != nil {
		n.o.Log.Warn("processes cannot be listed", "err", err)
	}
}

// cgroup learns of a cgroup that came or went, has the kernel tell of a container's, and lets a hold reach it.
func (n *Node) cgroup(e *probe.Cgroup) {
	group := n.o.Cgroups.Apply(e)
	switch {
	case !group.Contained:
	case group.Removed:
		n.first.forget(group.ID)
		n.drifts.ended(n, group.ID)
	default:
		n.watch(group)
		if group.Container.ID != "" {
			n.young.add(group.ID, n.o.Boot())
		}
		n.orders.cgroupMade(group.Container.PodUID)
	}
}

func (n *Node) watch(group process.Cgroup) {
	if n.o.Watch == nil || group.Container.ID == "" {
		return
	}
	if err := n.o.Watch(group.ID); err != nil {
		n.o.Log.Error("a container is not watched", "cgroup", group.ID, "err", err)
	}
}

// WatchAll has the kernel tell of every container that runs already.
func (n *Node) WatchAll() {
	for _, group := range n.o.Cgroups.Find(func(c process.Cgroup) bool { return c.Contained }) {
		n.watch(group)
	}
}

// event is what rules see of a kernel event; false where no rule can ask for it.
func (n *Node) event(e probe.Event) (rule.Event, bool) {
	m := e.Head()
	out := rule.Event{Time: n.o.Source.Wall(m.At), KernelNS: uint64(m.At), SeenNS: uint64(n.o.Boot())}
	switch e := e.(type) {
	case *probe.Exec:
		out.Kind, out.Path, out.Upper, out.Unlinked = rule.Exec, e.Path, e.Upper, e.Unlinked
		out.Network = slices.Contains(e.Stdio[:], probe.FDInet)
	case *probe.Open:
		out.Kind, out.Path, out.Unresolved, out.Failed = rule.Open, path.Clean(e.Path), !e.Resolved, e.Errno != 0
		if e.Flags&oPath == 0 {
			mode := e.Flags & syscall.O_ACCMODE
			out.Read, out.Write = mode != syscall.O_WRONLY, mode != syscall.O_RDONLY
		}
	case *probe.Connect:
		out.Kind, out.Addr, out.Port = rule.Connect, e.Addr.Addr(), e.Addr.Port()
	case *probe.Call:
		out.Kind, out.Call, out.Flags, out.Failed = rule.Call, e.Call, e.Number, e.Errno != 0
		n.target(&out, e)
	case *probe.Cred:
		out.Kind, out.Call, out.Gained = rule.Call, e.Call, e.Gained() != 0 || (e.EUID == 0 && e.EUIDBefore != 0)
	case *probe.Unix:
		out.Kind, out.Path = rule.Unix, e.Path
		if !e.Abstract {
			out.Path = path.Clean(e.Path)
		}
	case *probe.DNS:
		out.Kind, out.Query, out.Addr, out.Port = rule.DNS, e.Name, e.Server.Addr(), e.Server.Port()
	default:
		return out, false
	}
	return out, true
}

// target says to whom a call was done.
func (n *Node) target(out *rule.Event, e *probe.Call) {
	if e.Target.TGID == 0 {
		return
	}
	out.TargetPID, out.TargetSameContainer = e.Target.TGID, e.TargetCgroup == e.Cgroup
	if p, ok := n.o.Tree.Get(e.Target); ok {
		out.TargetName = asRule(p).Name()
	}
}

const oPath = 0x200000 // O_PATH: the file is named, not opened

// subject says who did it: the process, its ancestors inside the container, and the container's first process.
func (n *Node) subject(m *probe.Meta, group process.Cgroup) (rule.Subject, first) {
	who := rule.Subject{Process: rule.Process{PID: m.TGID, PPID: m.PPID, UID: m.UID, StartNS: uint64(m.Start), Comm: m.Comm}}
	if p, ok := n.o.Tree.Get(m.Process()); ok {
		who.Process = asRule(p)
		who.Process.Comm = m.Comm
	}
	for _, a := range n.o.Tree.Ancestors(m.Process()) {
		if a.Cgroup != m.Cgroup && !n.sameContainer(a.Cgroup, group.Container) {
			break // who entered the container from outside is not of it
		}
		who.Ancestors = append(who.Ancestors, asRule(a))
	}
	f := n.first.of(m.Cgroup)
	if last := len(who.Ancestors) - 1; last >= 0 && who.Ancestors[last].StartNS < uint64(f.id.Start) { // who was first came to be known later
		f = n.first.elder(m.Cgroup, probe.ID{TGID: who.Ancestors[last].PID, Start: time.Duration(who.Ancestors[last].StartNS)})
	}
	if f.id.TGID != 0 {
		if p, ok := n.o.Tree.Get(f.id); ok {
			who.Init = asRule(p)
		}
	}
	who.Workload = detection.Workload{Cluster: n.o.Cluster, Node: n.o.Node, PodUID: group.Container.PodUID, ContainerID: group.Container.ID, CgroupID: m.Cgroup}
	return who, f
}

func (n *Node) sameContainer(cgroup uint64, c process.Container) bool {
	g, ok := n.o.Cgroups.Lookup(cgroup)
	return ok && g.Contained && g.Container.ID == c.ID
}

func asRule(p process.Process) rule.Process {
	return rule.Process{PID: p.ID.TGID, PPID: p.Parent.TGID, UID: p.UID, StartNS: uint64(p.ID.Start), Comm: p.Comm, Exe: p.Path, Args: p.Args}
}
