package bpf

import (
	"errors"
	"fmt"
	"slices"
)

// SetHooks loads and attaches the hooks that are missing, and detaches and unloads those that are not named. What the others
// tell, and what waits in the rings, is not touched. Prepare is called between loading and attaching: new hooks have empty
// filters then. A hook that the kernel refuses is left out and told of by Status, and is tried again by the next call.
func (p *Programs) SetHooks(hooks []Hook, prepare func() error) error {
	p.loadMissing(hooks)
	if err := prepare(); err != nil {
		return fmt.Errorf("prepare hooks: %w", err)
	}
	p.hooksMu.Lock()
	defer p.hooksMu.Unlock()
	var errs []error
	kept := p.hooks[:0:0]
	for _, h := range p.hooks {
		if !slices.Contains(hooks, h.hook) {
			errs = append(errs, p.unload(h))
			continue
		}
		if h.err == nil && len(h.links) == 0 {
			p.attachStrongest(h)
		}
		kept = append(kept, h)
	}
	p.hooks = kept
	return errors.Join(errs...)
}

func (p *Programs) loadMissing(hooks []Hook) {
	p.hooksMu.Lock()
	defer p.hooksMu.Unlock()
	for _, hook := range hooks {
		at := slices.IndexFunc(p.hooks, func(h *objects) bool { return h.hook == hook })
		switch {
		case at < 0:
			p.hooks = append(p.hooks, p.loadHook(hook))
		case p.hooks[at].err != nil:
			_ = p.unload(p.hooks[at]) // it never ran
			p.hooks[at] = p.loadHook(hook)
		}
	}
}

// unload forgets a hook's programs but not how many of their runs were missed.
func (p *Programs) unload(h *objects) error {
	err := h.detach()
	if h.loaded != nil {
		if p.missedBefore == nil {
			p.missedBefore = map[Hook]uint64{}
		}
		p.missedBefore[h.hook] += h.missed()
		h.loaded.Close()
		h.loaded = nil
	}
	return err
}

// missed sums the skipped runs. Kernels before 5.12 do not count them.
func (h *objects) missed() uint64 {
	if h.loaded == nil {
		return 0
	}
	var sum uint64
	for _, program := range h.loaded.Programs {
		if stats, err := program.Stats(); err == nil {
			sum += stats.RecursionMisses
		}
	}
	return sum
}
