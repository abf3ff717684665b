package process

import (
	"container/list"
	"sync"
	"time"

	"tourniquet.dev/tourniquet/sensor/probe"
)

const (
	defaultMaxProcesses = 16384
	defaultTombstones   = 30 * time.Second
	maxAncestors        = 32

	// /proc tells a start in these units only, so that is how exact starts are compared. An id is not given twice in one.
	startUnit = 10 * time.Millisecond
)

// Process is what is known of one process. It is a copy: reading it needs no lock.
type Process struct {
	ID      probe.ID
	Parent  probe.ID // the one that made it, also after that one has ended
	Cgroup  uint64
	UID     uint32
	EUID    uint32
	Comm    string
	Path    string // of the program's file; "" when unknown
	Named   string // as the program was called
	Args    []string
	Stdio   [3]probe.FD
	Device  uint32
	Inode   uint64
	Upper   bool          // the program's file was written after the image was made
	NoFile  bool          // the program's file has no name: deleted, or a memfd
	Execed  time.Duration // when it became this program; 0: it is still what its parent was
	Exited  time.Duration // 0: it lives
	Code    uint32        // with which it exited, as wait(2) gives it
	Partial bool          // its beginning was not seen, and /proc did not tell either
}

// TreeOptions bound the tree.
type TreeOptions struct {
	Max        int           // processes, dead ones included; 0: 16384
	Tombstones time.Duration // how long a dead process is kept for events that come late; 0: 30 s
	Proc       string        // where the first pid namespace's /proc is mounted; "": what events miss stays unknown
	CgroupRoot string        // where cgroup v2 is mounted, so that Fill can tell cgroups; "": it cannot
}

type key struct {
	tgid  uint32
	start time.Duration
}

func keyOf(id probe.ID) key { return key{id.TGID, id.Start / startUnit} }

type node struct {
	Process
	queue *list.List
	at    *list.Element
}

// Tree knows the processes of a node with their ancestry, within a fixed bound. Events may come out of order, twice or
// not at all: an exec after its exit completes the tombstone, an unknown process is looked up in /proc, and a live entry
// whose exit was lost is buried by Fill. Safe for concurrent use.
type Tree struct {
	options TreeOptions

	mu       sync.Mutex
	nodes    map[key]*node
	latest   map[uint32]key // who has a process id, or had it last
	children map[key]int    // entries that have this one as their parent, be it known or not
	live     *list.List     // least lately heard of first
	dead     *list.List     // first ended first
	parents  *list.List     // dead for longer than Tombstones, kept for their children while there is room
	now      time.Duration
	evicted  uint64
}

// NewTree makes an empty tree. Call Fill when the source of its events already runs, so that nothing falls between.
func NewTree(o TreeOptions) *Tree {
	if o.Max == 0 {
		o.Max = defaultMaxProcesses
	}
	if o.Tombstones == 0 {
		o.Tombstones = defaultTombstones
	}
	return &Tree{
		options: o, nodes: map[key]*node{}, latest: map[uint32]key{}, children: map[key]int{},
		live: list.New(), dead: list.New(), parents: list.New(),
	}
}

// Apply takes an event of any kind and learns from it what it tells about its process.
func (t *Tree) Apply(event probe.Event) {
	m := event.Head()
	if m.TGID == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.now = max(t.now, m.At)
	switch e := event.(type) {
	case *probe.Fork:
		t.fork(e)
	case *probe.Exec:
		t.exec(e)
	case *probe.Exit:
		t.exit(e)
	case *probe.Cgroup: // its Meta has no start: it is about a cgroup
	default:
		n := t.known(m)
		n.EUID, n.Cgroup = m.EUID, m.Cgroup
	}
	t.shrink()
}

func (t *Tree) fork(e *probe.Fork) {
	n, known := t.nodes[keyOf(e.Process())]
	if !known {
		n = t.insert(e.Process(), e.Parent())
	}
	n.ID = e.Process()
	if known && !n.Partial { // an exec overtook it, and knows better
		return
	}
	n.Partial = false
	n.UID, n.EUID, n.Cgroup, n.Comm = e.UID, e.EUID, e.Cgroup, e.Comm
	t.adopt(n, e.Parent())
	if parent, ok := t.nodes[keyOf(e.Parent())]; ok && n.Execed == 0 {
		n.Path, n.Named, n.Args, n.Stdio = parent.Path, parent.Named, parent.Args, parent.Stdio
		n.Device, n.Inode, n.Upper, n.NoFile = parent.Device, parent.Inode, parent.Upper, parent.NoFile
	}
}

func (t *Tree) exec(e *probe.Exec) {
	n, known := t.nodes[keyOf(e.Process())]
	if !known { // its fork was lost, or comes later
		n = t.insert(e.Process(), e.Parent())
	}
	if e.At < n.Execed {
		return
	}
	if n.Partial { // else its parent at the fork is known, which may have died since
		t.adopt(n, e.Parent())
	}
	n.ID, n.Partial = e.Process(), false
	n.UID, n.EUID, n.Cgroup, n.Comm = e.UID, e.EUID, e.Cgroup, e.Comm
	n.Path, n.Named, n.Args, n.Stdio = e.Path, e.Named, e.Args, e.Stdio
	n.Device, n.Inode, n.Upper, n.NoFile = e.Device, e.Inode, e.Upper, e.Unlinked
	n.Execed = e.At
	t.touch(n)
}

func (t *Tree) exit(e *probe.Exit) {
	n := t.known(&e.Meta)
	n.Exited, n.Code = e.At, e.Code
	t.move(n, t.dead)
}

// known returns the entry of an event's process; one that is new is asked of /proc.
func (t *Tree) known(m *probe.Meta) *node {
	n, ok := t.nodes[keyOf(m.Process())]
	if ok {
		t.touch(n)
		return n
	}
	found, err := t.options.read(m.TGID)
	if err != nil || keyOf(found.ID) != keyOf(m.Process()) {
		found = Process{Parent: probe.ID{TGID: m.PPID}, UID: m.UID, EUID: m.EUID, Comm: m.Comm, Partial: true}
	}
	found.ID, found.Cgroup = m.Process(), m.Cgroup
	n = t.insert(found.ID, found.Parent)
	found.Parent = n.Parent
	n.Process = found
	return n
}

func (t *Tree) insert(id, parent probe.ID) *node {
	n := &node{Process: Process{ID: id}}
	t.nodes[keyOf(id)] = n
	t.latest[id.TGID] = keyOf(id)
	t.move(n, t.live)
	t.adopt(n, parent)
	return n
}

// adopt gives n a parent. One of which only the process id is known is taken to be who has that id.
func (t *Tree) adopt(n *node, parent probe.ID) {
	if parent.Start == 0 {
		if p, ok := t.nodes[t.latest[parent.TGID]]; ok {
			parent = p.ID
		}
	}
	if n.Parent == parent {
		return
	}
	t.leave(n)
	n.Parent = parent
	t.children[keyOf(parent)]++
}

// leave takes n off its parent's count; a long dead parent without children goes.
func (t *Tree) leave(n *node) {
	if n.Parent == (probe.ID{}) {
		return
	}
	k := keyOf(n.Parent)
	if t.children[k]--; t.children[k] > 0 {
		return
	}
	delete(t.children, k)
	if p, ok := t.nodes[k]; ok && p.queue == t.parents {
		t.remove(p)
	}
}

func (t *Tree) move(n *node, to *list.List) {
	if n.queue != nil {
		n.queue.Remove(n.at)
	}
	n.queue, n.at = to, to.PushBack(n)
}

func (t *Tree) touch(n *node) { n.queue.MoveToBack(n.at) }

func (t *Tree) remove(n *node) {
	k := keyOf(n.ID)
	n.queue.Remove(n.at)
	delete(t.nodes, k)
	if t.latest[n.ID.TGID] == k {
		delete(t.latest, n.ID.TGID)
	}
	t.leave(n)
}

// shrink forgets the dead in time, and keeps the bound: first the dead, last the living of which nothing was heard.
func (t *Tree) shrink() {
	for e := t.dead.Front(); e != nil; e = t.dead.Front() {
		n := e.Value.(*node)
		if n.Exited+t.options.Tombstones > t.now {
			break
		}
		if t.children[keyOf(n.ID)] > 0 {
			t.move(n, t.parents)
		} else {
			t.remove(n)
		}
	}
	for len(t.nodes) > t.options.Max {
		for _, queue := range []*list.List{t.dead, t.parents, t.live} {
			if e := queue.Front(); e != nil {
				t.remove(e.Value.(*node))
				t.evicted++
				break
			}
		}
	}
}

// Get returns a process; false when it is not known, or not any more.
func (t *Tree) Get(id probe.ID) (Process, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, ok := t.nodes[keyOf(id)]
	if !ok {
		return Process{}, false
	}
	return n.Process, true
}

// Ancestors returns who made the process, and who made that one, the nearest first, as far as it is known.
func (t *Tree) Ancestors(id probe.ID) []Process {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []Process
	n := t.nodes[keyOf(id)]
	for n != nil && len(all) < maxAncestors {
		parent := t.nodes[keyOf(n.Parent)]
		if parent == nil || parent == n {
			break
		}
		all = append(all, parent.Process)
		n = parent
	}
	return all
}

// Find returns the processes, dead ones included, that fit: those of a cgroup, say.
func (t *Tree) Find(fits func(*Process) bool) []Process {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []Process
	for _, n := range t.nodes {
		if fits(&n.Process) {
			all = append(all, n.Process)
		}
	}
	return all
}

// TreeStats says how full the tree is.
type TreeStats struct {
	Live    int
	Dead    int
	Evicted uint64 // forgotten for want of room
}

// Stats returns how full the tree is.
func (t *Tree) Stats() TreeStats {
	t.mu.Lock()
	defer t.mu.Unlock()
	return TreeStats{Live: t.live.Len(), Dead: t.dead.Len() + t.parents.Len(), Evicted: t.evicted}
}
