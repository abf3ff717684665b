package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/sys/fault"
	"tourniquet.dev/tourniquet/sensor/hold"
	"tourniquet.dev/tourniquet/sensor/process"
)

// cgroups returns the pod's own cgroup, or those of its containers where it has none of its own.
func (o *orders) cgroups(podUID string) []uint64 {
	var own, containers []uint64
	for _, g := range o.n.o.Cgroups.Find(func(g process.Cgroup) bool { return g.Contained && g.Container.PodUID == podUID }) {
		if g.Container.ID == "" {
			own = append(own, g.ID)
		} else {
			containers = append(containers, g.ID)
		}
	}
	if len(own) > 0 {
		containers = own
	}
	slices.Sort(containers)
	return containers
}

// cover has the kernel do to all of the pod what the order says, and tells of it when that was not so before.
func (o *orders) cover(ctx context.Context, rec *record) error {
	all := o.cgroups(rec.Order.PodUID)
	if len(all) == 0 {
		all = rec.Cgroups // known from before: this process has not seen them yet, or they are gone
	}
	if len(all) == 0 && o.n.o.Now().Sub(rec.Heard) < grace {
		return nil // a cgroup that was made just now is told of a moment later; look comes by again
	}
	if len(all) == 0 {
		return o.fail(ctx, rec, errors.New("no cgroup of the pod is known on this node"))
	}
	if rec.Order.Action.Once() {
		return o.once(ctx, rec, all)
	}
	fresh := false
	for _, id := range all {
		want := o.until(id, rec)
		is, stands, err := o.stands(rec.Order.Action, id)
		if err == nil && stands && slices.Contains(rec.Cgroups, id) && near(is, want) {
			continue
		}
		fault.Point("hold.put/before")
		if err := o.put(rec.Order.Action, id, want); err != nil {
			return o.fail(ctx, rec, err)
		}
		fault.Point("hold.put/after")
		fresh = true
		if !slices.Contains(rec.Cgroups, id) {
			rec.Cgroups = append(rec.Cgroups, id)
		}
	}
	if !fresh && rec.Told {
		return nil
	}
	return o.tell(ctx, rec, plan.Applied, byOrder)
}

// near allows for the wall clock's being set between two readings of the same end.
func near(a, b time.Duration) bool { return (a - b).Abs() < 2*time.Second }

// until is the latest end, by the kernel's clock, that any order in force wants for a cgroup and the same effect.
func (o *orders) until(cgroup uint64, also *record) time.Duration {
	return o.untilOf(also.Order.Action, cgroup, also)
}

func (o *orders) untilOf(action plan.Action, cgroup uint64, also *record) time.Duration {
	now, boot := o.n.o.Now(), o.n.o.Boot()
	var latest time.Duration
	for _, rec := range o.book.Records {
		if rec == also || (rec.Order.Action == action && rec.active() && rec.Order.Until.After(now) && slices.Contains(rec.Cgroups, cgroup)) {
			latest = max(latest, boot+rec.Order.Until.Sub(now))
		}
	}
	return latest
}

// lift takes an effect off, but for what other orders in force still want.
func (o *orders) lift(ctx context.Context, rec *record, why string) error {
	if rec.Order.Action.Once() {
		return o.interrupted(ctx, rec)
	}
	rec.count(o.drops(rec))
	for _, id := range rec.Cgroups {
		fault.Point("hold.lift/before")
		var err error
		if others := o.untilOf(rec.Order.Action, id, nil); others > 0 {
			err = o.put(rec.Order.Action, id, others)
		} else {
			err = o.takeOff(rec.Order.Action, id)
		}
		if err != nil && !errors.Is(err, hold.ErrNotHeld) {
			return o.fail(ctx, rec, err)
		}
		fault.Point("hold.lift/after")
	}
	rec.Done = true
	return o.tell(ctx, rec, plan.Undone, why)
}

var (
	errNoHolds   = errors.New("this node cannot hold: see its first lines")
	errNoFreezer = errors.New("this node can neither freeze nor kill: see its first lines")
)

// stands says until when an effect is on; false when it is not.
func (o *orders) stands(action plan.Action, cgroup uint64) (until time.Duration, stands bool, err error) {
	switch {
	case action == plan.NodeFreeze && o.n.o.Freezer != nil:
		until, stands = o.n.o.Freezer.Until(cgroup)
		return until, stands, nil
	case action == plan.NodeCutNetwork && o.n.o.Holds != nil:
		held, err := o.n.o.Holds.Get(cgroup)
		if errors.Is(err, hold.ErrNotHeld) {
			return 0, false, nil
		}
		return held.Until, err == nil, err
	}
	return 0, false, nil
}

// put moves an effect's end to until, or puts it on. What a reflex has put is taken over by this.
func (o *orders) put(action plan.Action, cgroup uint64, until time.Duration) error {
	switch {
	case action == plan.NodeCutNetwork && o.n.o.Holds != nil:
		return o.n.o.Holds.Put(hold.Hold{Cgroup: cgroup, Until: until, Bits: hold.All})
	case action == plan.NodeCutNetwork:
		return errNoHolds
	case o.n.o.Freezer == nil:
		return errNoFreezer
	}
	group, ok := o.n.o.Cgroups.Lookup(cgroup)
	if !ok {
		return fmt.Errorf("cgroup %d has no path", cgroup)
	}
	return o.n.o.Freezer.Freeze(hold.Frozen{Cgroup: cgroup, Path: group.Path, Until: until, Boot: o.n.o.BootID})
}

func (o *orders) takeOff(action plan.Action, cgroup uint64) error {
	switch {
	case action == plan.NodeFreeze && o.n.o.Freezer != nil:
		return o.n.o.Freezer.Thaw(cgroup)
	case action == plan.NodeCutNetwork && o.n.o.Holds != nil:
		_, err := o.n.o.Holds.Lift(cgroup)
		return err
	}
	return hold.ErrNotHeld
}

// once does what cannot be undone at most one time: that it begins is on disk before.
func (o *orders) once(ctx context.Context, rec *record, all []uint64) error {
	rec.Cgroups, rec.Done, rec.Failed = all, true, ""
	if err := o.book.save(); err != nil {
		return err
	}
	fault.Point("order.once/during")
	rec.Outcome = didIt
	if err := o.strike(rec); err != nil {
		rec.Outcome = err.Error()
	}
	fault.Point("order.once/after")
	return o.report(ctx, rec)
}

const didIt = "done"

// report tells how a deed of one moment came out. Where the spool is full, look comes by again.
func (o *orders) report(ctx context.Context, rec *record) error {
	if rec.Outcome == didIt {
		return o.tell(ctx, rec, plan.Applied, byOrder)
	}
	rec.Failed = rec.Outcome
	o.n.o.Log.Error("order not obeyed", "incident_id", rec.Order.IncidentID, "resource", rec.Order.Namespace+"/"+rec.Order.Pod, "err", rec.Failed)
	return o.tell(ctx, rec, plan.Failed, byOrder)
}

func (o *orders) strike(rec *record) error {
	if rec.Order.Action == plan.NodeKillProcess {
		if o.n.o.Kill == nil {
			return errNoFreezer
		}
		if err := o.inPod(rec); err != nil {
			return err
		}
		return o.n.o.Kill(rec.Order.PID, time.Duration(rec.Order.StartNS)) //nolint:gosec // checked against the process
	}
	if o.n.o.Freezer == nil {
		return errNoFreezer
	}
	var errs []error
	for _, id := range rec.Cgroups {
		group, ok := o.n.o.Cgroups.Lookup(id)
		if !ok {
			errs = append(errs, fmt.Errorf("cgroup %d has no path", id))
			continue
		}
		errs = append(errs, o.n.o.Freezer.KillAll(id, group.Path))
	}
	return errors.Join(errs...)
}

// inPod wants the process of a kill to be the pod's. Kill itself wants it to be the one that began then.
func (o *orders) inPod(rec *record) error {
	data, err := os.ReadFile("/proc/" + strconv.FormatUint(uint64(rec.Order.PID), 10) + "/cgroup")
	if err != nil {
		return fmt.Errorf("process %d: %w", rec.Order.PID, hold.ErrGone)
	}
	for line := range strings.Lines(string(data)) {
		_, path, v2 := strings.Cut(strings.TrimSpace(line), "::")
		if c, ok := process.ParseCgroup(path); v2 && ok && c.PodUID == rec.Order.PodUID {
			return nil
		}
	}
	return fmt.Errorf("process %d is not of pod %s", rec.Order.PID, rec.Order.PodUID)
}

// interrupted ends a deed of one moment that was not told of: the order was lifted before it was done, or this node died
// while doing it.
func (o *orders) interrupted(ctx context.Context, rec *record) error {
	switch {
	case !rec.Done:
		return o.tell(ctx, rec, plan.Undone, rec.why())
	case rec.Outcome == "":
		rec.Outcome = "this node stopped in between: it may have been done, and is not done again"
	}
	return o.report(ctx, rec)
}
