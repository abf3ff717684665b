package bpf_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"tourniquet.dev/tourniquet/bpf"
)

// BenchmarkPrograms has the kernel measure what a run of each program costs, with acts of all kinds mixed in. The figures of
// programs on system calls are of all calls of the machine, so nearly of the way out only.
func BenchmarkPrograms(b *testing.B) {
	p, err := bpf.Load(bpf.Options{Hooks: bpf.Hooks(), CgroupRoot: kernel(b), TelemetryBytes: 32 << 20})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { p.Close() })
	calls := map[bpf.Call]uint32{}
	for _, c := range bpf.Calls() {
		calls[c] = 1
	}
	if err := p.MatchCalls(calls); err != nil {
		b.Fatal(err)
	}
	if err := p.Configure(bpf.Config{WatchAll: true, MaxArgs: 1024}); err != nil {
		b.Fatal(err)
	}
	if err := p.Attach(); err != nil {
		b.Fatal(err)
	}
	stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { stats.Close() })
	file := filepath.Join(b.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		act(b, file)
	}
	costs, err := p.Costs()
	if err != nil {
		b.Fatal(err)
	}
	for name, c := range costs {
		if c.Runs > 0 {
			b.ReportMetric(float64(c.Took.Nanoseconds())/float64(c.Runs), "ns/"+name)
		}
	}
}

func act(b *testing.B, file string) {
	f, err := os.Open(file)
	if err != nil {
		b.Fatal(err)
	}
	f.Close()
	conn, err := net.Dial("udp", "127.0.0.1:53")
	if err != nil {
		b.Fatal(err)
	}
	_, _ = conn.Write(append(make([]byte, 5), 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1)) // refused is as good
	conn.Close()
	_ = syscall.Chroot("/no/such") // refused
	for range 1000 {
		syscall.Getppid()
	}
	if err := exec.Command("/bin/true").Run(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkSystemCall shows what hooks on every system call cost one that none of them looks at: compare within one run.
func BenchmarkSystemCall(b *testing.B) {
	for _, v := range []struct {
		name  string
		hooks []bpf.Hook
	}{
		{"bare", nil},
		{"open", []bpf.Hook{bpf.HookOpen}},
		{"call", []bpf.Hook{bpf.HookCall}},
		{"cred", []bpf.Hook{bpf.HookCred}},
		{"open+call", []bpf.Hook{bpf.HookOpen, bpf.HookCall}},
		{"open+call+cred", []bpf.Hook{bpf.HookOpen, bpf.HookCall, bpf.HookCred}},
	} {
		b.Run(v.name, func(b *testing.B) {
			if v.hooks != nil {
				p, err := bpf.Load(bpf.Options{Hooks: v.hooks, CgroupRoot: kernel(b)})
				if err != nil {
					b.Fatal(err)
				}
				defer p.Close()
				if err := p.Attach(); err != nil {
					b.Fatal(err)
				}
			}
			for b.Loop() {
				syscall.Getppid()
			}
		})
	}
}
