package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"tourniquet.dev/tourniquet/bpf"
	"tourniquet.dev/tourniquet/sensor/hold"
	"tourniquet.dev/tourniquet/sensor/node"
	"tourniquet.dev/tourniquet/sensor/probe"
	"tourniquet.dev/tourniquet/sensor/process"
	"tourniquet.dev/tourniquet/sensor/rule"
)

// eyes are where events come from, and what goes with that: how processes and cgroups are known, what can be held.
type eyes struct {
	source  probe.Source
	reader  *probe.Reader // nil for a recording
	tree    *process.Tree
	cgroups *process.Cgroups
	holds   *hold.Table // nil where nothing can be held
	hints   func(pid uint32) (process.Hints, error)
	watch   func(cgroup uint64) error
	told    map[string]any // for the ready line
	close   func() error
}

// openEyes says in its first log lines what this node cannot do, and why. What is missing is never silently left out.
func openEyes(c config, longest time.Duration, watch rule.Watch, log *slog.Logger) (*eyes, error) {
	if c.Source.Recording != "" {
		log.Warn("degraded: a recording is played instead of the kernel, nothing is held", "recording", c.Source.Recording)
		return openRecording(c)
	}
	for _, d := range degradations() {
		log.Warn("degraded", "lacks", d)
	}
	return openKernel(c, longest, watch, log)
}

func degradations() []string {
	var out []string
	if os.Geteuid() != 0 {
		out = append(out, fmt.Sprintf("root: running as uid %d", os.Geteuid()))
	}
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		out = append(out, "BTF: the kernel does not describe its types")
	}
	return out
}

func openRecording(c config) (*eyes, error) {
	file, err := os.Open(c.Source.Recording)
	if err != nil {
		return nil, fmt.Errorf("open recording: %w", err)
	}
	player, err := probe.NewPlayer(file, probe.PlayOptions{Replace: c.Source.Replace, Shift: true, Paced: c.Source.Paced})
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	cgroups, err := process.NewCgroups("")
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &eyes{source: player, tree: process.NewTree(process.TreeOptions{}), cgroups: cgroups, close: closing(file),
		told: map[string]any{"source": "recording", "holds": "none"}}, nil
}

func closing(c io.Closer) func() error { return c.Close }

// policyWatched marks the events of cgroups that are a container's.
const policyWatched = 1

func openKernel(c config, longest time.Duration, watch rule.Watch, log *slog.Logger) (*eyes, error) {
	root := c.Source.CgroupRoot
	if root == "" {
		var err error
		if root, err = process.CgroupRoot(); err != nil {
			return nil, err
		}
	}
	e := &eyes{told: map[string]any{"source": "kernel"}}
	var err error
	if e.holds, err = openHolds(root, c.Source.Pins, longest, e.told, log); err != nil {
		return nil, err
	}
	if e.reader, err = openProbes(c, root, watch); err != nil {
		return nil, errors.Join(fmt.Errorf("%w (a recording is played only where the configuration names one: source.recording)", err), e.closeHolds())
	}
	hooks := map[string]string{}
	for _, s := range e.reader.Status() {
		hooks[string(s.Hook)] = string(s.Tier)
		if s.Err != nil {
			hooks[string(s.Hook)] = "none"
			log.Warn("degraded", "lacks", "hook "+string(s.Hook), "err", s.Err)
		}
	}
	e.told["hooks"] = hooks
	e.close = func() error { return errors.Join(e.reader.Close(), e.closeHolds()) }
	e.source, e.tree = e.reader, process.NewTree(process.TreeOptions{Proc: c.Source.Proc, CgroupRoot: root})
	if e.cgroups, err = process.NewCgroups(root); err == nil {
		err = e.tree.Fill()
	}
	if err != nil {
		return nil, errors.Join(err, e.close())
	}
	e.watch = func(cgroup uint64) error { return e.reader.Watch(cgroup, policyWatched) }
	if c.Source.Environments {
		e.hints = func(pid uint32) (process.Hints, error) { return process.ReadHints(c.Source.Proc, pid) }
	} else {
		log.Warn("degraded", "lacks", "environments: identities are attested by pod specifications only")
	}
	return e, nil
}

func (e *eyes) closeHolds() error {
	if e.holds == nil {
		return nil
	}
	return e.holds.Close()
}

// openHolds adopts the holds of an earlier process. Where they cannot be pinned they end with this one, and where the
// kernel refuses them orders are: both are said.
func openHolds(root, pins string, longest time.Duration, told map[string]any, log *slog.Logger) (*hold.Table, error) {
	if pins != "" {
		t, err := hold.Open(hold.Options{CgroupRoot: root, PinDir: pins, Longest: longest})
		if err == nil {
			told["holds"] = "pinned"
			return t, nil
		}
		log.Warn("degraded", "lacks", "pins: holds end with this process", "err", err)
	}
	t, err := hold.Open(hold.Options{CgroupRoot: root, Longest: longest})
	if err != nil {
		told["holds"] = "none"
		log.Warn("degraded", "lacks", "holds: orders are refused", "err", err)
		return nil, nil //nolint:nilnil // a node without holds still sees
	}
	told["holds"] = "until this process ends"
	return t, nil
}

func openProbes(c config, root string, watch rule.Watch) (*probe.Reader, error) {
	return probe.New(probe.Options{
		Options: bpf.Options{CgroupRoot: root},
		Config:  bpf.Config{SelfTGID: uint32(os.Getpid()), MaxArgs: c.Source.Arguments, Datagrams: true, Quiet: time.Second}, //nolint:gosec // a process id
		Filter:  node.Filter(watch),
	})
}
