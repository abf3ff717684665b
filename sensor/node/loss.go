package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/internal/sys/spool"
	"tourniquet.dev/tourniquet/sensor/probe"
	"tourniquet.dev/tourniquet/sensor/process"
	"tourniquet.dev/tourniquet/sensor/rule"
)

// The rules by which the sensor tells of itself.
const (
	RuleLost     = "sensor-lost-events"
	RulePressure = "sensor-spool-pressure"
	RuleSight    = "sensor-lost-sight"
)

// The causes of a loss that are the node's own; the kernel's are probe's. Between the source and the rules nothing is
// lost: that queue makes the source wait, and then it is the ring that is full.
const (
	causeSpoolFull = "spool-full" // its class is the lane
	causeInvalid   = "invalid"
	causeStopping  = "stopping"     // found when the process was about to end
	causeDamage    = "spool-damage" // spooled, and not readable any more
	causeOther     = "other"
)

// impaired is the technique of what blinds a detector. No bundled playbook takes it, and none could cut by it: a loss names
// the node and no pod, so there is no target.
const impaired = "T1685"

const (
	lossLook  = time.Second
	lossAgain = 10 * time.Second // a loss that goes on is told of this often
	maxLosses = 128              // kinds of losses; what is beyond is counted as other
)

// Loss is what is missing for one cause.
type Loss struct {
	Cause string // see probe.Cause, and spool-full, invalid, stopping
	Kind  string // of the kernel's events; "": detections
	Class string // of the kernel's events, or the spool's lane
	Count uint64
}

type lossKey struct{ Cause, Kind, Class string }

// losses counts what is missing, and keeps what is to be told of it until it is told. Safe for concurrent use.
type losses struct {
	mu  sync.Mutex
	sum map[lossKey]*lossEntry
}

type lossEntry struct {
	total, untold uint64
	from, to      time.Time // of what is untold
	told          time.Time // when it was last; zero: never
}

func newLosses() *losses { return &losses{sum: map[lossKey]*lossEntry{}} }

func (l *losses) add(k lossKey, count uint64, from, to time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sum[k] == nil && len(l.sum) >= maxLosses {
		k = lossKey{Cause: causeOther}
	}
	e := l.sum[k]
	if e == nil {
		e = &lossEntry{}
		l.sum[k] = e
	}
	if e.untold == 0 {
		e.from, e.to = from, to
	}
	e.total, e.untold = e.total+count, e.untold+count
	if from.Before(e.from) {
		e.from = from
	}
	if to.After(e.to) {
		e.to = to
	}
}

// all returns the sums, sorted.
func (l *losses) all() []Loss {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []Loss
	for k, e := range l.sum {
		out = append(out, Loss{k.Cause, k.Kind, k.Class, e.total})
	}
	slices.SortFunc(out, func(a, b Loss) int {
		return cmp.Or(cmp.Compare(a.Cause, b.Cause), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Class, b.Class))
	})
	return out
}

type untold struct {
	Loss
	from, to time.Time
}

// due takes what is to be told now: each kind at once when it begins, then every lossAgain while it goes on, and all of it
// at the end.
func (l *losses) due(now time.Time, end bool) []untold {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []untold
	for k, e := range l.sum {
		if e.untold == 0 || (!end && !e.told.IsZero() && now.Sub(e.told) < lossAgain && !now.Before(e.told)) {
			continue
		}
		out = append(out, untold{Loss{k.Cause, k.Kind, k.Class, e.untold}, e.from, e.to})
		e.untold, e.told = 0, now
	}
	slices.SortFunc(out, func(a, b untold) int {
		return cmp.Or(cmp.Compare(a.Cause, b.Cause), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Class, b.Class))
	})
	return out
}

// back takes what could not be told, to be told later.
func (l *losses) back(u untold) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.sum[lossKey{u.Cause, u.Kind, u.Class}]
	if e.untold == 0 || u.to.After(e.to) {
		e.to = u.to
	}
	e.untold, e.from, e.told = e.untold+u.Count, u.from, time.Time{}
}

// lose counts a detection that nobody will see.
func (n *Node) lose(k lossKey) {
	n.count.lost.Add(1)
	now := n.o.Now()
	n.losses.add(k, 1, now, now)
}

// tellLosses has each loss become a detection of its own, until ended; then the last ones.
func (n *Node) tellLosses(ctx context.Context, ended <-chan struct{}) error {
	tick := time.NewTicker(lossLook)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := n.tellLossesNow(ctx, false); err != nil {
				return err
			}
		case <-ended:
			return n.tellLossesNow(ctx, true)
		}
	}
}

// spoolLoss counts the records that the spool lost to damage on the disk.
func (n *Node) spoolLoss(known uint64) uint64 {
	s, ok := n.o.Spool.(interface{ Stats() spool.Stats })
	if !ok {
		return known
	}
	lost := s.Stats().Lost
	if lost > known {
		now := n.o.Now()
		n.losses.add(lossKey{Cause: causeDamage}, lost-known, now, now)
	}
	return lost
}

func (n *Node) tellLossesNow(ctx context.Context, end bool) error {
	n.damaged = n.spoolLoss(n.damaged)
	for _, u := range n.losses.due(n.o.Now(), end) {
		d, ok := n.lossDetection(u)
		if !ok {
			continue
		}
		err := n.send(ctx, d)
		switch {
		case errors.Is(err, spool.ErrFull):
			n.losses.back(u) // the spool's own pressure is told when there is room for that
			if end {
				n.o.Log.Error("a loss could not be told of: the spool is full", "cause", u.Cause, "kind", u.Kind, "class", u.Class, "count", u.Count)
			}
		case err != nil:
			n.losses.back(u)
			return fmt.Errorf("spool a loss: %w", err)
		default:
			n.count.told.Add(1)
			n.o.Log.Warn("told of a loss", "detection_id", d.UID, "cause", u.Cause, "kind", u.Kind, "class", u.Class, "count", u.Count)
		}
	}
	return nil
}

// lossDetection names the node as its subject, as what owns the workload: it is nobody's pod that lost something, and a
// detection without a pod and without an identity gives no playbook a target.
func (n *Node) lossDetection(u untold) (*detection.Detection, bool) {
	attack, ok := rule.Technique(impaired)
	if !ok {
		return nil, false
	}
	d := &detection.Detection{V: detection.Version, Time: u.to.UTC().Truncate(time.Millisecond), Rule: RuleLost,
		Title: "Kernel events are missing: what happened meanwhile was not seen", Severity: detection.Medium, Confidence: 100,
		Attacks: []detection.Attack{attack}, Workload: &detection.Workload{Cluster: n.o.Cluster, Node: n.o.Node, Namespace: unknownNamespace,
			OwnerKind: "Node", OwnerName: n.o.Node, OwnerUID: "node:" + n.o.Node},
		Evidence: map[string]string{"cause": u.Cause, "count": strconv.FormatUint(u.Count, 10),
			"from": u.from.UTC().Format(time.RFC3339Nano), "to": u.to.UTC().Format(time.RFC3339Nano)}}
	for name, v := range map[string]string{"kind": u.Kind, "class": u.Class} {
		if v != "" {
			d.Evidence[name] = v
		}
	}
	switch {
	case u.Cause == causeSpoolFull:
		d.Rule, d.Title, d.Severity = RulePressure, "Detections were lost: the sensor's spool is full", detection.High
	case u.Kind == "":
		d.Title, d.Severity = "Detections were lost on the node", detection.High
	case u.Class != "telemetry": // a missed run says of no class
		d.Severity = detection.High
	}
	return d, true
}

// lostSight tells of an io_uring in a container, where opens through it are not seen.
func (n *Node) lostSight(ctx context.Context, m *probe.Meta, group process.Cgroup) {
	attack, ok := rule.Technique(impaired)
	if n.o.SeesRings || !ok {
		return
	}
	who, first := n.subject(m, group)
	workload := who.Workload
	d := &detection.Detection{V: detection.Version, Time: n.o.Source.Wall(m.At).UTC().Truncate(time.Millisecond), KernelNS: uint64(m.At),
		SeenNS: uint64(n.o.Boot()), Rule: RuleSight, Title: "Loss of sight: files opened through an io_uring are not seen here",
		Severity: detection.Medium, Confidence: 90, Attacks: []detection.Attack{attack}, Workload: &workload,
		Evidence: map[string]string{"cause": "io_uring"}}
	for _, p := range append([]rule.Process{who.Process}, who.Ancestors[:min(len(who.Ancestors), 15)]...) {
		d.Processes = append(d.Processes, asDetected(p))
	}
	n.tell(ctx, d, found{container: group.Container, first: first, actor: m.Process(), files: n.opened.of(who.Tree())}, who.Tree(), m.At)
}

func asDetected(p rule.Process) detection.Process {
	return detection.Process{PID: p.PID, PPID: p.PPID, UID: p.UID, Comm: p.Comm, Exe: p.Exe, Args: slices.Clone(p.Args)}
}
