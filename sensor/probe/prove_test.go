package probe_test

import (
	"testing"

	"tourniquet.dev/tourniquet/bpf"
	"tourniquet.dev/tourniquet/sensor/probe"
)

func TestHooksAreProvenByWhatTheySee(t *testing.T) {
	live(t)
	w := newWatch(t, probe.Options{})
	proofs, err := w.Prove()
	if err != nil {
		t.Fatal(err)
	}
	fired := map[bpf.Hook]bool{}
	for _, p := range proofs {
		fired[p.Hook] = p.Fired
	}
	for _, hook := range []bpf.Hook{bpf.HookFork, bpf.HookExit, bpf.HookOpen, bpf.HookConnect} {
		if !fired[hook] {
			t.Errorf("%s has not fired", hook)
		}
	}
	w.do("nothing")
	if proofs, err = w.Prove(); err != nil {
		t.Fatal(err)
	}
	for _, p := range proofs {
		if p.Hook == bpf.HookExec && !p.Fired {
			t.Error("an exec was not seen")
		}
	}
}
