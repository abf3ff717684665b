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
	root    string      // of the cgroups; "" for a recording
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
	for _, f := range examine(c.Source.Proc) {
		if !f.Present {
			log.Warn("degraded", "lacks", f.Thing, "mode", f.Mode, "reason", f.Reason)
		}
	}
	return openKernel(c, longest, watch, log)
}

// seesRings reports whether opens through an io_uring are seen: not where the hook is on the system calls.
func (e *eyes) seesRings() bool {
	if e.reader == nil {
		return false
	}
	for _, s := range e.reader.Status() {
		if s.Hook == bpf.HookOpen {
			return s.Err == nil && (s.Tier == bpf.TierLSM || s.Tier == bpf.TierFentry)
		}
	}
	return false
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
	e := &eyes{told: map[string]any{"source": "kernel"}, root: root}
	var err error
	if e.holds, err = openHolds(root, c.Source.Pins, longest, e.told, log); err != nil {
		return nil, err
	}
	if e.reader, err = openProbes(c, root, watch); err != nil {
		return nil, errors.Join(fmt.Errorf("%w (a recording is played only where the configuration names one: source.recording)", err), e.closeHolds())
	}
	tellHooks(e, log)
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

// tellHooks says by which tier each hook sees, and why by no stronger one.
func tellHooks(e *eyes, log *slog.Logger) {
	hooks, refused := map[string]string{}, map[string]string{}
	for _, s := range e.reader.Status() {
		hook := string(s.Hook)
		hooks[hook] = string(s.Tier)
		if s.Err != nil {
			hooks[hook] = "none"
			log.Warn("degraded", "lacks", "hook "+hook, "err", s.Err)
		}
		for _, r := range s.Refused {
			refused[hook+"/"+string(r.Tier)] = r.Err.Error()
			log.Info("a tier is not used", "hook", hook, "tier", r.Tier, "err", r.Err)
		}
	}
	e.told["hooks"], e.told["refused_tiers"] = hooks, refused
}

// prove looks whether the hooks still fire. One that does not has been lowered to its next tier, or sees nothing any more.
func (e *eyes) prove(log *slog.Logger) {
	if e.reader == nil {
		return
	}
	before := map[bpf.Hook]bpf.Tier{}
	for _, s := range e.reader.Status() {
		before[s.Hook] = s.Tier
	}
	proofs, err := e.reader.Prove()
	if err != nil {
		log.Error("the hooks cannot be proven", "err", err)
		return
	}
	for _, p := range proofs {
		switch {
		case p.Err == nil && !p.Fired && probe.Acted(p.Hook):
			log.Error("a hook does not fire", "hook", p.Hook, "tier", p.Tier)
		case before[p.Hook] != p.Tier:
			log.Error("a hook no longer fired and was lowered", "hook", p.Hook, "from", before[p.Hook], "to", p.Tier)
		}
	}
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

// What one container may have told of connects, and of queries, in a second, and at once. Beyond that they are counted; what
// rules watch by address is never held back.
const telemetryRate, telemetryBurst = 2_000, 4_000

func openProbes(c config, root string, watch rule.Watch) (*probe.Reader, error) {
	return probe.New(probe.Options{
		Options: bpf.Options{CgroupRoot: root, Hooks: node.Hooks(watch, c.Profiles.learns())},
		Config: bpf.Config{SelfTGID: uint32(os.Getpid()), MaxArgs: c.Source.Arguments, Datagrams: true, Quiet: time.Second, //nolint:gosec // a process id
			Rate: telemetryRate, Burst: telemetryBurst},
		Filter: node.Filter(watch),
	})
}
