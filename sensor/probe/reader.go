package probe

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"tourniquet.dev/tourniquet/bpf"
)

const (
	telemetryPoll = 20 * time.Millisecond // telemetry wakes nobody
	lossPoll      = 100 * time.Millisecond
	fullWait      = time.Millisecond      // the receiver is slow: the ring keeps what comes meanwhile
	busyWait      = 20 * time.Microsecond // a record is being written
	orderWait     = 2 * time.Millisecond  // a critical event waits no longer for the telemetry that came before it
)

// Options says what to watch. Config.SelfTGID is best set to the own process.
type Options struct {
	bpf.Options
	Config bpf.Config
	Filter Filter
}

// Stats is the account of what was seen, and of what was not.
type Stats struct {
	Kernel    []bpf.Counter // by kind
	Delivered [2]uint64     // by bpf.Class
	Malformed uint64        // records that could not be decoded: a bug, or another version's program
	Realtime  error         // why the critical reader has no real-time priority; nil: it has, or does not run yet
}

// Reader is the live kernel as a Source. The programs are attached from New to Close. The critical ring has a goroutine
// that the kernel wakes; the other one looks into the telemetry ring from time to time. Safe for concurrent use.
type Reader struct {
	programs  *bpf.Programs
	waker     *waker
	critical  *ring
	telemetry *ring

	filterMu sync.Mutex
	filter   Filter // in the kernel
	asked    Filter // also for hooks that are not loaded

	mu sync.Mutex // held by the goroutine that reads the rings

	proofMu sync.Mutex

	delivered [2]atomic.Uint64
	malformed atomic.Uint64
	realtime  atomic.Pointer[error]

	lossAt   time.Duration
	lossSeen []bpf.Counter
}

// New loads and attaches the programs with their filter. Hooks that the kernel refuses are left out; see Status.
func New(o Options) (*Reader, error) {
	if o.Config.FailedOpens { // an open without a file comes to no security module: only the system call tells of it
		o.SkipTiers = append(slices.Clone(o.SkipTiers), bpf.TierLSM, bpf.TierFentry)
	}
	programs, err := bpf.Load(o.Options)
	if err != nil {
		return nil, fmt.Errorf("load probes: %w", err)
	}
	r := &Reader{programs: programs, lossAt: bpf.Now()}
	if err := r.open(o); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

func (r *Reader) open(o Options) (err error) {
	if r.critical, err = newRing(r.programs.Critical()); err != nil {
		return err
	}
	if r.telemetry, err = newRing(r.programs.Telemetry()); err != nil {
		return err
	}
	if r.waker, err = newWaker(r.programs.Critical().FD()); err != nil {
		return err
	}
	if err := r.programs.Configure(o.Config); err != nil {
		return err
	}
	if err := r.SetFilter(o.Filter); err != nil {
		return err
	}
	if r.lossSeen, err = r.programs.Counters(); err != nil {
		return err
	}
	if err := r.programs.Attach(); err != nil {
		return err
	}
	_, err = r.Prove() // never trust an attach that has not fired; what stays unproven Status and later proofs tell
	return err
}

// supported leaves out what the hooks that were refused would have matched: Status tells of those.
func (r *Reader) supported(f Filter) Filter {
	loaded := map[bpf.Hook]bool{}
	for _, s := range r.programs.Status() {
		loaded[s.Hook] = s.Err == nil
	}
	if !loaded[bpf.HookOpen] {
		f.Files = nil
	}
	if !loaded[bpf.HookConnect] {
		f.Addresses = nil
	}
	return f
}

// Status says which hooks are attached.
func (r *Reader) Status() []bpf.HookStatus { return r.programs.Status() }

// Configure replaces the programs' configuration.
func (r *Reader) Configure(c bpf.Config) error { return r.programs.Configure(c) }

// Watch gives a cgroup a policy, whose number its events then carry; it is watched even without Config.WatchAll.
func (r *Reader) Watch(cgroup uint64, policy uint32) error { return r.programs.Watch(cgroup, policy) }

// Unwatch forgets a cgroup.
func (r *Reader) Unwatch(cgroup uint64) error { return r.programs.Unwatch(cgroup) }

// Wall returns when an event happened, by the wall clock as it is set now.
func (r *Reader) Wall(at time.Duration) time.Time { return time.Now().Add(at - bpf.Now()) }

// Stats reads the account.
func (r *Reader) Stats() (Stats, error) {
	kernel, err := r.programs.Counters()
	if err != nil {
		return Stats{}, err
	}
	s := Stats{Kernel: kernel, Malformed: r.malformed.Load()}
	for class := range s.Delivered {
		s.Delivered[class] = r.delivered[class].Load()
	}
	if err := r.realtime.Load(); err != nil {
		s.Realtime = *err
	}
	return s, nil
}

// Run reads both rings until ctx is done. What is in them then stays there.
func (r *Reader) Run(ctx context.Context, out chan<- Event) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 2)
	go func() { done <- r.runCritical(ctx, out) }()
	go func() { done <- r.runTelemetry(ctx, out) }()
	var first error
	running := 2
	select {
	case <-ctx.Done():
	case first = <-done:
		running--
		cancel()
	}
	errs := []error{first, r.waker.interrupt()}
	for range running {
		errs = append(errs, <-done)
	}
	return errors.Join(errs...)
}

// runCritical never unlocks its thread, so that the thread, which has real-time priority, ends with it.
func (r *Reader) runCritical(ctx context.Context, out chan<- Event) error {
	runtime.LockOSThread()
	if err := becomeRealtime(); err != nil {
		r.realtime.Store(&err)
	}
	for {
		r.deliver(ctx, out)
		if r.critical.pending() > 0 && ctx.Err() == nil { // being written by a task that needs a CPU for it
			pause := unix.NsecToTimespec(int64(busyWait))
			_ = unix.Nanosleep(&pause, nil) // woken early is as good
			continue
		}
		if awake, err := r.waker.wait(); !awake {
			return err
		}
	}
}

// deliver empties the critical ring; the telemetry that came before goes first, unless that takes too long.
func (r *Reader) deliver(ctx context.Context, out chan<- Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for ctx.Err() == nil {
		record, ok := r.critical.peek()
		if !ok {
			return
		}
		r.catchUp(ctx, out, timeOf(record))
		r.pass(ctx, out, r.critical, record, bpf.Critical, true)
	}
}

func (r *Reader) catchUp(ctx context.Context, out chan<- Event, until time.Duration) {
	deadline := time.Now().Add(orderWait)
	for {
		record, ok := r.telemetry.peek()
		if !ok || timeOf(record) > until || !time.Now().Before(deadline) {
			return
		}
		if !r.pass(ctx, out, r.telemetry, record, bpf.Telemetry, true) {
			return
		}
	}
}

// pass decodes a record, sends its event and takes it off the ring; false when it is still there, because the receiver
// was not ready and we would not wait.
func (r *Reader) pass(ctx context.Context, out chan<- Event, from *ring, record []byte, class bpf.Class, wait bool) bool {
	event, err := Decode(record)
	if err != nil {
		r.malformed.Add(1)
		from.take(record)
		return true
	}
	if wait {
		select {
		case out <- event:
		case <-ctx.Done():
			return false
		}
	} else {
		select {
		case out <- event:
		default:
			return false
		}
	}
	r.delivered[class].Add(1)
	from.take(record)
	return true
}

func (r *Reader) runTelemetry(ctx context.Context, out chan<- Event) error {
	poll := time.NewTicker(telemetryPoll)
	defer poll.Stop()
	var lossDue time.Time
	for {
		pause := poll.C
		if !r.passTelemetry(ctx, out) {
			pause = time.After(fullWait)
		}
		if now := time.Now(); !now.Before(lossDue) {
			if err := r.tellLoss(ctx, out); err != nil {
				return err
			}
			lossDue = now.Add(lossPoll)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-pause:
		}
	}
}

// passTelemetry empties the telemetry ring, letting go of it after each record so that a critical one can go between;
// false when the receiver is slow.
func (r *Reader) passTelemetry(ctx context.Context, out chan<- Event) bool {
	for ctx.Err() == nil {
		r.mu.Lock()
		record, ok := r.telemetry.peek()
		passed := ok && r.pass(ctx, out, r.telemetry, record, bpf.Telemetry, false)
		r.mu.Unlock()
		if !passed {
			return !ok
		}
	}
	return true
}

// tellLoss sends a Blind for each kind of which events were lost since the last look.
func (r *Reader) tellLoss(ctx context.Context, out chan<- Event) error {
	now := bpf.Now()
	counters, err := r.programs.Counters()
	if err != nil {
		return err
	}
	for _, event := range blindsBetween(r.lossSeen, counters, r.lossAt, now) {
		select {
		case out <- event:
		case <-ctx.Done():
			return nil // not told, so not noted as told
		}
	}
	r.lossSeen, r.lossAt = counters, now
	return nil
}

func blindsBetween(before, after []bpf.Counter, from, to time.Duration) []*Blind {
	var blinds []*Blind
	add := func(kind bpf.Kind, class string, cause Cause, lost uint64) {
		if lost > 0 {
			blinds = append(blinds, &Blind{Meta: Meta{At: to}, Lost: kind.String(), Class: class, Cause: cause, Count: lost, From: from})
		}
	}
	for i, c := range after {
		var b bpf.Counter
		if i < len(before) {
			b = before[i]
		}
		for _, class := range []bpf.Class{bpf.Critical, bpf.Telemetry} {
			add(c.Kind, class.String(), CauseRingFull, c.Dropped[class]-b.Dropped[class])
		}
		add(c.Kind, bpf.Telemetry.String(), CauseLimited, c.Limited-b.Limited)
		add(c.Kind, "", CauseMissedRun, c.Missed-b.Missed)
	}
	return blinds
}

// becomeRealtime lets the woken thread run at once, not when the task that caused the event next blocks.
func becomeRealtime() error {
	attr := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Flags: unix.SCHED_FLAG_RESET_ON_FORK, Priority: 1}
	if err := unix.SchedSetAttr(0, attr, 0); err != nil {
		return fmt.Errorf("ask for real-time priority: %w", err)
	}
	return nil
}

// Close detaches the programs and gives everything back. Run must have returned.
func (r *Reader) Close() error {
	errs := []error{r.programs.Detach()}
	if r.waker != nil {
		errs = append(errs, r.waker.close())
	}
	for _, ring := range []*ring{r.critical, r.telemetry} {
		if ring != nil {
			errs = append(errs, ring.close())
		}
	}
	return errors.Join(append(errs, r.programs.Close())...)
}
