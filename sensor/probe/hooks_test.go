package probe_test

import (
	"strconv"
	"testing"
	"time"

	"tourniquet.dev/tourniquet/bpf"
	"tourniquet.dev/tourniquet/sensor/probe"
)

func TestAHookComesAndGoesWithWhatNeedsIt(t *testing.T) {
	_, file := credentials(t)
	o := allCalls()
	o.Hooks = []bpf.Hook{bpf.HookFork, bpf.HookExec, bpf.HookExit}
	for name, bits := range byName().Names {
		o.Filter.Names[name] = bits
	}
	w := newWatch(t, o)
	for round := range 3 {
		w.seen = nil
		w.do("open", file)
		died := await(w, func(*probe.Exit) bool { return true })
		if err := w.SetHooks(append([]bpf.Hook{bpf.HookOpen, bpf.HookCall}, o.Hooks...)); err != nil {
			t.Fatal(err)
		}
		w.do("open", file)
		if e := await(w, func(*probe.Open) bool { return true }); e.Path != file || e.Process() == died.Process() {
			t.Errorf("round %d: an open told without the hook: %+v", round, e)
		}
		w.do("calls")
		await(w, func(e *probe.Call) bool { return e.Call == "chroot" })
		if err := w.SetHooks(o.Hooks); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range w.Status() {
		if s.Hook == bpf.HookOpen || s.Hook == bpf.HookCall || s.Err != nil {
			t.Errorf("%+v", s)
		}
	}
}

// Hooks are changed all the while connects are made: every one of them is told.
func TestChangingHooksLosesNoEventOfTheOthers(t *testing.T) {
	const connects = 400_000
	_, file := credentials(t)
	o := allCalls()
	o.Hooks, o.TelemetryBytes = []bpf.Hook{bpf.HookConnect, bpf.HookExit}, 128<<20
	w := newWatch(t, o)
	cmd := w.command("flood", strconv.Itoa(connects), file)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	counted := make(chan int)
	go func() {
		told := 0
		for deadline := time.After(60 * time.Second); told < connects; {
			select {
			case event := <-w.events:
				switch event.(type) {
				case *probe.Connect:
					told++
				case *probe.Blind:
					t.Errorf("%+v", event)
				}
			case <-deadline:
				counted <- told
				return
			}
		}
		counted <- told
	}()
	for changes := 0; ; changes++ {
		hooks := o.Hooks
		if changes%2 == 0 {
			hooks = append([]bpf.Hook{bpf.HookOpen, bpf.HookCall, bpf.HookCred}, hooks...)
		}
		if err := w.SetHooks(hooks); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-ended:
			if told := <-counted; err != nil || told != connects || changes < 2 {
				t.Errorf("%d of %d told over %d changes, %v", told, connects, changes, err)
			}
			return
		default:
		}
	}
}
