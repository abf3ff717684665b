package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/sys/keys"
	"tourniquet.dev/tourniquet/internal/trust"
	"tourniquet.dev/tourniquet/sensor/hold"
	"tourniquet.dev/tourniquet/sensor/reflex"
)

// reflexes builds what this node may do by itself. First of all it thaws what a dead process left frozen.
func (a *agent) reflexes(t *trust.File, boot string) (*reflex.Reflex, error) {
	var books []authz.Book
	if a.config.Playbooks != "" {
		var err error
		if books, err = keys.LoadPlaybooks(t, a.config.Playbooks); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(a.config.State, 0o700); err != nil {
		return nil, fmt.Errorf("make state folder: %w", err)
	}
	o := reflex.Options{Trust: t, Books: books, Cgroups: a.eyes.cgroups, State: a.config.State, BootID: boot, Log: a.log}
	if a.pods != nil {
		o.Pods = a.pods
	}
	if a.eyes.holds != nil {
		o.Holds = a.eyes.holds
	}
	if a.eyes.root != "" {
		var err error
		if a.freeze, err = a.openFreezer(boot); err != nil {
			return nil, err
		}
		o.Kill = func(pid uint32, start time.Duration) error { return hold.Kill(a.config.Source.Proc, pid, start) }
	}
	if a.freeze != nil {
		o.Freezer = a.freeze
	}
	return reflex.New(o)
}

// openFreezer needs a cgroup tree that can be written: without one, nothing is frozen, and that is said.
func (a *agent) openFreezer(boot string) (*hold.Freezer, error) {
	f, left, err := hold.OpenFreezer(a.eyes.root, filepath.Join(a.config.State, "freeze"), boot)
	if err != nil {
		return nil, err
	}
	for _, z := range left {
		a.log.Warn("thawed what an earlier process left frozen", "cgroup", z.Cgroup)
	}
	return f, nil
}
