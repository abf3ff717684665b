package needs_test

import (
	"os"
	"testing"

	"tourniquet.dev/tourniquet/internal/sys/needs"
)

// skipper notes what a needs function does instead of doing it.
type skipper struct {
	testing.TB
	skipped bool
}

func (s *skipper) Skipf(format string, args ...any) {
	s.skipped = true
	s.Logf(format, args...)
}

func TestRootSkipsExactlyWhenNotRoot(t *testing.T) {
	s := &skipper{TB: t}
	needs.Root(s)
	if want := os.Geteuid() != 0; s.skipped != want {
		t.Errorf("skipped: %v, want %v", s.skipped, want)
	}
}

func TestBTFSkipsExactlyWhenMissing(t *testing.T) {
	s := &skipper{TB: t}
	needs.BTF(s)
	_, err := os.Stat("/sys/kernel/btf/vmlinux")
	if s.skipped != (err != nil) {
		t.Errorf("skipped: %v, BTF: %v", s.skipped, err)
	}
}

func TestEveryFeatureCanBeTried(t *testing.T) {
	for _, feature := range []needs.Feature{needs.Bpf, needs.RingBuffer, needs.Tracepoints, needs.CgroupSkb, needs.CgroupAddr,
		needs.Trampoline, needs.BpfFS, needs.NetNS, needs.Compat32, needs.Overlay, needs.Realtime, needs.IOUring, needs.MountNS,
		needs.IPTool, needs.CgroupWrite} {
		s := &skipper{TB: t}
		needs.Kernel(s, feature)
		t.Logf("%s: there: %v", feature, !s.skipped)
	}
}
