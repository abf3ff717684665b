package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"tourniquet.dev/tourniquet/sensor/node"
	"tourniquet.dev/tourniquet/sensor/rule"
)

// rulesConfig says which rules there are beside the bundled ones, and in which modes they run.
type rulesConfig struct {
	Folder string               `yaml:"folder,omitempty"` // of *.yaml, looked at again and again
	Modes  map[string]rule.Mode `yaml:"modes,omitempty"`  // by rule; they win over the rules' own
}

// load reads and compiles all rules.
func (c rulesConfig) load() ([]*rule.Rule, error) {
	base, err := rule.BundledPacks()
	if err != nil {
		return nil, err
	}
	var own []*rule.Pack
	if c.Folder != "" {
		if own, err = rule.ReadPacks(os.DirFS(c.Folder), "."); err != nil {
			return nil, err
		}
	}
	return rule.Compile(base, own)
}

// state tells whether the folder has changed. Contents count, not times: a mounted folder changes by a symbolic link.
func (c rulesConfig) state() ([sha256.Size]byte, error) {
	h := sha256.New()
	names, err := filepath.Glob(filepath.Join(c.Folder, "*.yaml"))
	for _, name := range names {
		data, readErr := os.ReadFile(name) // #nosec G304 -- of the configured folder
		err = errors.Join(err, readErr)
		fmt.Fprintf(h, "%q %d\n", name, len(data))
		h.Write(data)
	}
	return [sha256.Size]byte(h.Sum(nil)), err
}

// rulebook keeps the rules as their folder has them.
type rulebook struct {
	config            rulesConfig
	set               *rule.Set
	seen              [sha256.Size]byte
	reloaded, refused atomic.Uint64
}

func openRules(c rulesConfig) (*rulebook, error) {
	b := &rulebook{config: c}
	var err error
	if c.Folder != "" {
		if b.seen, err = c.state(); err != nil {
			return nil, fmt.Errorf("rules: %w", err)
		}
	}
	rules, err := c.load()
	if err != nil {
		return nil, fmt.Errorf("rules: %w", err)
	}
	if b.set, err = rule.New(rules); err != nil {
		return nil, err
	}
	return b, errors.Join(b.set.Replace(rules, c.Modes), known(b.set.Watch()))
}

// known is an error when rules watch a system call that the kernel side has no number for: they would never hold.
func known(w rule.Watch) error {
	if unknown := node.UnknownCalls(w); len(unknown) > 0 {
		return fmt.Errorf("rules: watch.calls: %q are not calls that the kernel tells of", unknown)
	}
	return nil
}

// look takes the folder's rules if they have changed. On an error the old ones stay, and are not tried again until the
// folder changes. filter has the kernel tell of more before the new rules count, so that no event is missed between.
func (b *rulebook) look(filter func(rule.Watch) error) (changed bool, err error) {
	now, err := b.config.state()
	if err == nil && now == b.seen {
		return false, nil
	}
	b.seen = now
	if err == nil {
		err = b.take(filter)
	}
	if err != nil {
		b.refused.Add(1)
		return false, err
	}
	b.reloaded.Add(1)
	return true, nil
}

func (b *rulebook) take(filter func(rule.Watch) error) error {
	rules, err := b.config.load()
	if err != nil {
		return err
	}
	next, err := rule.New(rules)
	if err != nil {
		return err
	}
	if err := next.Replace(rules, b.config.Modes); err != nil {
		return err
	}
	if err := known(next.Watch()); err != nil {
		return err
	}
	if err := filter(next.Watch()); err != nil {
		return errors.Join(fmt.Errorf("set the kernel's filter: %w", err), filter(b.set.Watch()))
	}
	return b.set.Replace(rules, b.config.Modes)
}

const lookAtRules = 2 * time.Second

// tendRules looks at the folder until ctx ends.
func (a *agent) tendRules(ctx context.Context) error {
	tick := time.NewTicker(lookAtRules)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		changed, err := a.rules.look(func(w rule.Watch) error {
			if a.eyes.reader == nil {
				return nil
			}
			return errors.Join(a.eyes.reader.SetFilter(node.Filter(w)), a.eyes.reader.SetHooks(node.Hooks(w, a.config.Profiles.learns())))
		})
		if err != nil {
			a.log.Error("new rules are refused, the old ones stay", "err", err)
		}
		if changed {
			a.log.Info("rules are replaced", "rules", len(a.rules.set.Rules()))
		}
	}
}
