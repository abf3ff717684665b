package bpf

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// Refusal says why a tier is not used.
type Refusal struct {
	Tier Tier
	Err  error
}

// variant is one tier's object of a hook. All variants of a hook write the same records.
type variant struct {
	tier Tier
	load func() (*ebpf.CollectionSpec, error)
}

// stronger are the tiers above that of loaders, the strongest first. They cost nothing on system calls that they do not
// watch, and see what io_uring opens.
var stronger = map[Hook][]variant{
	HookOpen: {{TierLSM, loadLsmOpen}, {TierFentry, loadFentryOpen}},
}

// filled are the maps of a hook that user space fills: what is in them stays when the tier changes.
var filled = []string{openMapInodes}

func (p *Programs) variants(hook Hook) []variant {
	last, known := loaders[hook]
	if !known {
		return nil
	}
	var all []variant
	for _, v := range append(slices.Clone(stronger[hook]), last) {
		if !slices.Contains(p.options.SkipTiers, v.tier) || v.tier == last.tier {
			all = append(all, v)
		}
	}
	return all
}

// loadNext loads the strongest of the tiers that are left and that the kernel takes; h.err is set when there is none.
func (p *Programs) loadNext(h *objects) {
	var errs []error
	for len(h.weaker) > 0 {
		v := h.weaker[0]
		h.weaker = h.weaker[1:]
		loaded, programs, err := p.loadVariant(h, v)
		if err == nil {
			h.unload()
			h.tier, h.loaded, h.programs, h.err = v.tier, loaded, programs, nil
			return
		}
		h.tier = v.tier
		err = fmt.Errorf("hook %s: load %s: %w", h.hook, v.tier, err)
		errs = append(errs, err)
		if len(h.weaker) > 0 {
			h.refused = append(h.refused, Refusal{v.tier, err})
		}
	}
	h.err = errors.Join(append(errs, h.err)...)
	if h.err == nil {
		h.err = fmt.Errorf("hook %s: no tier is left", h.hook)
	}
}

func (p *Programs) loadVariant(h *objects, v variant) (*ebpf.Collection, map[string]*ebpf.ProgramSpec, error) {
	if v.tier == TierLSM || v.tier == TierFentry {
		if err := workersAreThreads(); err != nil {
			return nil, nil, err
		}
	}
	spec, err := v.load()
	if err != nil {
		return nil, nil, fmt.Errorf("read object: %w", err)
	}
	p.resize(spec)
	shared := map[string]*ebpf.Map{}
	for name, m := range p.shared {
		if _, used := spec.Maps[name]; used {
			shared[name] = m
		}
	}
	for _, name := range filled {
		if _, used := spec.Maps[name]; used && h.loaded != nil && h.loaded.Maps[name] != nil {
			shared[name] = h.loaded.Maps[name]
		}
	}
	loaded, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: shared})
	return loaded, spec.Programs, err
}

// workersAreThreads is nil where io_uring works in threads of the process that asks (since 5.12, and in the stable
// series that took that over). Before, its opens would seem to be the kernel's own.
func workersAreThreads() error {
	types, err := btf.LoadKernelSpec()
	if err != nil {
		return fmt.Errorf("read the kernel's types: %w", err)
	}
	var f *btf.Func
	if err := types.TypeByName("create_io_thread", &f); err != nil {
		return fmt.Errorf("io_uring opens files as the kernel on this kernel: %w", err)
	}
	return nil
}

// attachStrongest attaches what is loaded or, when that is refused, the next tier.
func (p *Programs) attachStrongest(h *objects) {
	for h.err == nil {
		err := p.attachHook(h)
		if err == nil {
			return
		}
		if len(h.weaker) == 0 {
			h.err = err
			return
		}
		h.refused = append(h.refused, Refusal{h.tier, err})
		p.loadNext(h)
	}
}

// Lower replaces the programs of a hook, which were found not to do their work, by those of the next weaker tier, and
// attaches them. Counters and what was given to MatchInode stay. Without a weaker tier the hook has failed for the reason
// given; its programs stay attached, in case the reason passes.
func (p *Programs) Lower(hook Hook, reason error) error {
	p.hooksMu.Lock()
	defer p.hooksMu.Unlock()
	for _, h := range p.hooks {
		if h.hook != hook || h.err != nil {
			continue
		}
		if len(h.weaker) == 0 {
			return fmt.Errorf("hook %s: no tier below %s: %w", hook, h.tier, reason)
		}
		h.refused = append(h.refused, Refusal{h.tier, reason})
		if err := h.detach(); err != nil {
			return fmt.Errorf("hook %s: leave %s: %w", hook, h.tier, err)
		}
		p.loadNext(h)
		p.attachStrongest(h)
		return h.err
	}
	return fmt.Errorf("hook %s is not attached: %w", hook, reason)
}

func (h *objects) unload() {
	if h.loaded != nil {
		h.loaded.Close()
	}
	h.loaded = nil
}
