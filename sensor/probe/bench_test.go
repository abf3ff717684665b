package probe_test

import (
	"context"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"tourniquet.dev/tourniquet/bpf"
	"tourniquet.dev/tourniquet/internal/sys/needs"
	"tourniquet.dev/tourniquet/sensor/probe"
)

// startBench attaches the hooks and returns the channel of their events; none: nothing is attached.
func startBench(b *testing.B, hooks []bpf.Hook, watchAll bool) <-chan probe.Event {
	b.Helper()
	needs.Root(b)
	needs.BTF(b)
	needs.Kernel(b, needs.Tracepoints)
	if len(hooks) == 0 {
		return nil
	}
	r, err := probe.New(probe.Options{
		Options: bpf.Options{Hooks: hooks, CgroupRoot: needs.CgroupV2(b)},
		Config:  bpf.Config{WatchAll: watchAll, MaxArgs: 1024},
		Filter:  byName(),
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	events := make(chan probe.Event, 256)
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx, events) }()
	b.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
		if err := r.Close(); err != nil {
			b.Error(err)
		}
	})
	return events
}

// BenchmarkEventToUser measures from the kernel hook of a critical event to its receiver.
func BenchmarkEventToUser(b *testing.B) {
	dir := b.TempDir()
	file := dir + "/credentials"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		b.Fatal(err)
	}
	events := startBench(b, []bpf.Hook{bpf.HookOpen}, true)
	var took []time.Duration
	for b.Loop() {
		f, err := os.Open(file)
		if err != nil {
			b.Fatal(err)
		}
		for e := range events {
			if o, ok := e.(*probe.Open); ok && o.Path == file {
				took = append(took, bpf.Now()-o.At)
				break
			}
		}
		f.Close()
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}

func drainEvents(b *testing.B, events <-chan probe.Event) {
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-events:
			case <-done:
				return
			}
		}
	}()
	b.Cleanup(func() { close(done) })
}

// BenchmarkOpen and BenchmarkExec show what the hooks cost the watched: compare the variants of one run.
func BenchmarkOpen(b *testing.B) {
	for name, hooks := range map[string][]bpf.Hook{"bare": nil, "attached": {bpf.HookOpen}} {
		b.Run(name, func(b *testing.B) {
			drainEvents(b, startBench(b, hooks, true))
			for b.Loop() {
				f, err := os.Open("/dev/null")
				if err != nil {
					b.Fatal(err)
				}
				f.Close()
			}
		})
	}
}

func BenchmarkExec(b *testing.B) {
	process := []bpf.Hook{bpf.HookFork, bpf.HookExec, bpf.HookExit}
	for name, v := range map[string]struct {
		hooks    []bpf.Hook
		watchAll bool
	}{"bare": {nil, false}, "watched": {process, true}, "unwatched": {process, false}} {
		b.Run(name, func(b *testing.B) {
			drainEvents(b, startBench(b, v.hooks, v.watchAll))
			for b.Loop() {
				if err := exec.Command("/bin/true").Run(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
