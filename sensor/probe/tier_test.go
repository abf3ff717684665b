package probe_test

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"tourniquet.dev/tourniquet/bpf"
	"tourniquet.dev/tourniquet/sensor/probe"
)

// strongest says which tier the open hook must have here, found out by other means than the canary.
func strongest(t *testing.T) bpf.Tier {
	t.Helper()
	trampoline, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.Tracing, AttachType: ebpf.AttachTraceFExit, AttachTo: "security_file_open",
		License: "Dual BSD/GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}})
	if err != nil {
		t.Logf("no trampolines: %v", err)
		return bpf.TierTracepoint
	}
	trampoline.Close()
	active, err := os.ReadFile("/sys/kernel/security/lsm")
	if err != nil {
		t.Logf("security modules: %v", err)
	}
	skipped := skipTiers()
	switch {
	case slices.Contains(strings.Split(strings.TrimSpace(string(active)), ","), "bpf") && !slices.Contains(skipped, bpf.TierLSM):
		return bpf.TierLSM
	case !slices.Contains(skipped, bpf.TierFentry):
		return bpf.TierFentry
	}
	return bpf.TierTracepoint
}

// An lsm program attaches without an error on a kernel that never calls it: only the canary tells.
func TestTheTierOfOpensIsTheStrongestThatFires(t *testing.T) {
	w := newWatch(t, probe.Options{Filter: byName()})
	proofs, err := w.Prove()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range proofs {
		if p.Hook != bpf.HookOpen {
			continue
		}
		t.Logf("open hook: %s, refused: %v", p.Tier, p.Refused)
		if want := strongest(t); p.Tier != want || !p.Fired || p.Err != nil {
			t.Errorf("tier %s, fired %v, %v, want %s", p.Tier, p.Fired, p.Err, want)
		}
	}
}

// That the filter outlives it TestAHardLinkIsSeenByItsInode shows, on a kernel whose lsm programs never fire.
func TestATierThatFailsIsReplacedByTheNextOne(t *testing.T) {
	programs, err := bpf.Load(bpf.Options{CgroupRoot: live(t), Hooks: []bpf.Hook{bpf.HookOpen}, SkipTiers: skipTiers()})
	if err != nil {
		t.Fatal(err)
	}
	defer programs.Close()
	if err := programs.Attach(); err != nil {
		t.Fatal(err)
	}
	reason := errors.New("as the test says")
	for programs.Status()[0].Tier != bpf.TierTracepoint {
		before := programs.Status()[0]
		if err := programs.Lower(bpf.HookOpen, reason); err != nil {
			t.Fatal(err)
		}
		after := programs.Status()[0]
		if last := after.Refused[len(after.Refused)-1]; after.Tier == before.Tier || last.Tier != before.Tier || !errors.Is(last.Err, reason) {
			t.Errorf("from %+v to %+v", before, after)
		}
	}
	if err := programs.Lower(bpf.HookOpen, reason); !errors.Is(err, reason) {
		t.Errorf("below the last tier: %v", err)
	}
	if s := programs.Status()[0]; s.Err != nil {
		t.Errorf("the last tier was taken away: %v", s.Err)
	}
}
