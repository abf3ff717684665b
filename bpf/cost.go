package bpf

import (
	"fmt"
	"time"
)

// Cost is what a program's runs took, as far as the kernel was told to measure.
type Cost struct {
	Runs uint64
	Took time.Duration
}

// Costs returns the cost of each loaded program by its name. The kernel measures while somebody asks it to: the sysctl
// kernel.bpf_stats_enabled, or ebpf.EnableStats.
func (p *Programs) Costs() (map[string]Cost, error) {
	p.hooksMu.RLock()
	defer p.hooksMu.RUnlock()
	costs := map[string]Cost{}
	for _, h := range p.hooks {
		if h.loaded == nil {
			continue
		}
		for name, program := range h.loaded.Programs {
			stats, err := program.Stats()
			if err != nil {
				return nil, fmt.Errorf("read cost of %s: %w", name, err)
			}
			costs[name] = Cost{Runs: stats.RunCount, Took: stats.Runtime}
		}
	}
	return costs, nil
}
