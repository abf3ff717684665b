package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"tourniquet.dev/tourniquet/sensor/probe"
)

var errNoProc = errors.New("no /proc to read")

// Fill takes in the processes that /proc lists now, and buries the known ones that are gone: to be called when the
// source runs, and after events of processes were lost. What events have told already is not overwritten.
func (t *Tree) Fill() error {
	if t.options.Proc == "" {
		return nil
	}
	t.mu.Lock()
	before := make(map[key]bool, len(t.nodes))
	for k, n := range t.nodes {
		before[k] = n.queue == t.live
	}
	t.mu.Unlock()

	entries, err := os.ReadDir(t.options.Proc)
	if err != nil {
		return fmt.Errorf("list processes: %w", err)
	}
	found := map[key]bool{}
	starts := map[uint32]time.Duration{}
	var processes []Process
	for _, entry := range entries {
		pid, err := strconv.ParseUint(entry.Name(), 10, 32)
		if err != nil {
			continue
		}
		p, err := t.options.read(uint32(pid))
		if err != nil {
			continue // it ended meanwhile
		}
		found[keyOf(p.ID)] = true
		starts[p.ID.TGID] = p.ID.Start
		processes = append(processes, p)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range processes {
		p.Parent.Start = starts[p.Parent.TGID]
		t.fillOne(p)
	}
	for k, live := range before {
		if n, ok := t.nodes[k]; ok && live && !found[k] && n.queue == t.live {
			n.Exited = max(t.now, 1)
			t.move(n, t.dead)
		}
	}
	t.shrink()
	return nil
}

func (t *Tree) fillOne(p Process) {
	n, known := t.nodes[keyOf(p.ID)]
	if known && !n.Partial {
		return
	}
	if !known {
		n = t.insert(p.ID, p.Parent)
	}
	if n.Cgroup != 0 {
		p.Cgroup = n.Cgroup // as an event told
	}
	p.Exited, p.Code = n.Exited, n.Code
	t.adopt(n, p.Parent)
	p.Parent = n.Parent
	n.Process = p
}

// read reads what /proc tells about a process.
func (o *TreeOptions) read(pid uint32) (Process, error) {
	if o.Proc == "" {
		return Process{}, errNoProc
	}
	dir := filepath.Join(o.Proc, strconv.FormatUint(uint64(pid), 10))
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return Process{}, fmt.Errorf("read process %d: %w", pid, err)
	}
	p, err := parseStat(stat)
	if err != nil {
		return Process{}, fmt.Errorf("read process %d: %w", pid, err)
	}
	p.ID.TGID = pid
	if path, err := os.Readlink(filepath.Join(dir, "exe")); err == nil {
		p.Path, p.NoFile = strings.CutSuffix(path, " (deleted)")
		p.Named = p.Path
	}
	if status, err := os.ReadFile(filepath.Join(dir, "status")); err == nil {
		p.UID, p.EUID = parseUIDs(status)
	}
	if table, err := os.ReadFile(filepath.Join(dir, "cgroup")); err == nil && o.CgroupRoot != "" {
		p.Cgroup = o.cgroupID(table)
	}
	return p, nil
}

// cgroupID turns the v2 line of /proc/PID/cgroup into the cgroup's id, which is its folder's inode; 0: it has none.
func (o *TreeOptions) cgroupID(table []byte) uint64 {
	for line := range strings.Lines(string(table)) {
		path, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::")
		if !ok {
			continue
		}
		var stat syscall.Stat_t
		if syscall.Stat(filepath.Join(o.CgroupRoot, path), &stat) != nil {
			return 0
		}
		return stat.Ino
	}
	return 0
}

// Fields of /proc/PID/stat after the name, which is in brackets and may hold anything.
const (
	statParent = 1
	statStart  = 19
)

func parseStat(stat []byte) (Process, error) {
	open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return Process{}, errors.New("no name in stat")
	}
	fields := strings.Fields(string(stat[end+1:]))
	if len(fields) <= statStart {
		return Process{}, errors.New("stat is too short")
	}
	parent, err := strconv.ParseUint(fields[statParent], 10, 32)
	if err != nil {
		return Process{}, fmt.Errorf("parent in stat: %w", err)
	}
	start, err := strconv.ParseInt(fields[statStart], 10, 63)
	if err != nil || start < 0 || start > int64(1<<62/startUnit) {
		return Process{}, fmt.Errorf("start in stat: %q", fields[statStart])
	}
	return Process{
		ID:     probe.ID{Start: time.Duration(start) * startUnit},
		Parent: probe.ID{TGID: uint32(parent)},
		Comm:   string(stat[open+1 : end]),
	}, nil
}

func parseUIDs(status []byte) (real, effective uint32) {
	for line := range strings.Lines(string(status)) {
		rest, ok := strings.CutPrefix(line, "Uid:")
		if !ok {
			continue
		}
		fields := strings.Fields(rest)
		if len(fields) < 2 {
			return 0, 0
		}
		r, _ := strconv.ParseUint(fields[0], 10, 32) // the kernel writes numbers
		e, _ := strconv.ParseUint(fields[1], 10, 32)
		return uint32(r), uint32(e)
	}
	return 0, 0
}
