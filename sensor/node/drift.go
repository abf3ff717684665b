package node

import (
	"context"
	"fmt"
	"path"
	"strconv"
	"strings"
	"time"

	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/sensor/probe"
	"tourniquet.dev/tourniquet/sensor/process"
	"tourniquet.dev/tourniquet/sensor/profile"
	"tourniquet.dev/tourniquet/sensor/rule"
)

// Profiles learn what each workload does, and tell how one drifts from that; profile.Book does.
type Profiles interface {
	Observe(key profile.Key, labels map[string]string, e profile.Event, now time.Time) (profile.Drift, bool, error)
	Save() error
}

const (
	saveProfiles   = time.Minute
	maxEarly       = 64  // events of one container that wait to be known whose they are
	maxEarlyGroups = 256 // containers
	askPod         = 250 * time.Millisecond
)

// early is an event that came before the API server said whose container it is of.
type early struct {
	event profile.Event
	found found
	who   rule.Subject
	at    time.Duration
}

// drifts keeps events until it is known whose they are. One goroutine uses it.
type drifts struct {
	waiting map[uint64][]early // by cgroup
	asked   map[uint64]time.Duration
}

func newDrifts() *drifts {
	return &drifts{waiting: map[uint64][]early{}, asked: map[uint64]time.Duration{}}
}

// profile has the workload's profile learn from an event, or tells of how it drifts. A rule that told of the event, or of
// its process tree before, keeps it from being learned.
func (n *Node) profile(ctx context.Context, e probe.Event, who rule.Subject, f found, told bool) {
	if n.o.Profiles == nil {
		return
	}
	event, ok := profileEvent(e, who)
	if !ok {
		return
	}
	event.Suspect = told || n.opened.suspect(who.Tree())
	this := early{event, f, who, e.Head().At}
	cgroup := e.Head().Cgroup
	if waiting := n.drifts.waiting[cgroup]; len(waiting) > 0 && (len(waiting) < maxEarly && this.at-n.drifts.asked[cgroup] < askPod) {
		n.drifts.waiting[cgroup] = append(waiting, this)
		return
	}
	pod, known := n.profiled(f.container)
	switch {
	case known:
		n.drifts.flush(ctx, n, cgroup, pod)
		n.drift(ctx, this, pod)
	case len(n.drifts.waiting[cgroup]) >= maxEarly || (n.drifts.waiting[cgroup] == nil && len(n.drifts.waiting) >= maxEarlyGroups):
		n.count.unprofiled.Add(1)
	default:
		n.drifts.waiting[cgroup] = append(n.drifts.waiting[cgroup], this)
		n.drifts.asked[cgroup] = this.at
	}
}

// profiled returns the pod of a container, once its name is known.
func (n *Node) profiled(c process.Container) (process.Pod, bool) {
	pod, known := n.lookup(c)
	if !known {
		return pod, false
	}
	_, named := pod.Container(c.ID)
	return pod, named
}

func (d *drifts) flush(ctx context.Context, n *Node, cgroup uint64, pod process.Pod) {
	for _, e := range d.waiting[cgroup] {
		n.drift(ctx, e, pod)
	}
	delete(d.waiting, cgroup)
	delete(d.asked, cgroup)
}

// flushAll gives up waiting.
func (d *drifts) flushAll(ctx context.Context, n *Node) {
	for cgroup := range d.waiting {
		d.settle(ctx, n, cgroup)
	}
}

// ended gives up waiting for a container that is gone.
func (d *drifts) ended(n *Node, cgroup uint64) { d.settle(context.Background(), n, cgroup) }

func (d *drifts) settle(ctx context.Context, n *Node, cgroup uint64) {
	waiting := d.waiting[cgroup]
	if len(waiting) == 0 {
		return
	}
	if pod, known := n.profiled(waiting[0].found.container); known {
		d.flush(ctx, n, cgroup, pod)
		return
	}
	n.count.unprofiled.Add(uint64(len(waiting)))
	delete(d.waiting, cgroup)
	delete(d.asked, cgroup)
}

// profileEvent is what profiles see of a kernel event.
func profileEvent(e probe.Event, who rule.Subject) (profile.Event, bool) {
	switch e := e.(type) {
	case *probe.Exec:
		return profile.Event{Kind: profile.Executable, Path: path.Clean(e.Path), Written: e.Upper || e.Unlinked}, e.Path != ""
	case *probe.Open:
		read := e.Flags&oPath == 0 && e.Flags&3 != 1 // O_WRONLY
		return profile.Event{Kind: profile.Credential, Path: path.Clean(e.Path), By: who.Process.Exe, Main: who.IsMain()}, read && e.Errno == 0 && e.Resolved
	case *probe.Connect:
		return profile.Event{Kind: profile.Destination, Addr: e.Addr, Protocol: protocolOf(e)}, true
	}
	return profile.Event{}, false
}

// Protocols as IP numbers them.
const (
	protocolUDP  = 17
	protocolSCTP = 132
)

func protocolOf(e *probe.Connect) string {
	switch {
	case e.Protocol == protocolUDP || e.Datagram:
		return "UDP"
	case e.Protocol == protocolSCTP:
		return "SCTP"
	}
	return "TCP"
}

// drift has the profile judge one event, and tells of a drift as of what a rule found.
func (n *Node) drift(ctx context.Context, e early, pod process.Pod) {
	container, _ := pod.Container(e.found.container.ID)
	key, ok := profile.NewKey(pod.Namespace, container.Name, container.ImageID, pod.Owner.Kind, pod.Owner.Name)
	if !ok {
		n.count.unprofiled.Add(1)
		return
	}
	drift, drifts, err := n.o.Profiles.Observe(key, pod.Labels, e.event, n.o.Source.Wall(e.at))
	if err != nil {
		n.o.Log.Error("a profile is not as it should be", "profile", key.ID(), "err", err)
	}
	if drifts {
		n.tell(ctx, n.driftDetection(drift, e), e.found, e.who.Tree(), e.at)
	}
}

// driftDetection never is so severe that a bundled playbook acts on it unasked, but for a program that came after the
// image, which none takes: behaviour that is new is not yet an attack.
func (n *Node) driftDetection(drift profile.Drift, e early) *detection.Detection {
	workload := e.who.Workload
	d := &detection.Detection{V: detection.Version, Time: n.o.Source.Wall(e.at).UTC().Truncate(time.Millisecond), KernelNS: uint64(e.at),
		SeenNS: uint64(n.o.Boot()), Rule: "profile-drift-" + string(drift.Kind), Severity: detection.Medium, Confidence: 60, Workload: &workload}
	technique := ""
	switch {
	case drift.Kind == profile.Executable && drift.Item.Written:
		d.Title, d.Severity, technique = "A program that is not of the image runs for the first time in this workload", detection.High, "T1105"
	case drift.Kind == profile.Executable:
		d.Title, technique = "A program runs for the first time in this workload", "T1059"
	case drift.Kind == profile.Credential:
		d.Title, technique = "A credential file is read that this workload, or this program of it, never read before", "T1552.001"
		if strings.HasSuffix(drift.Item.Path, "token") {
			technique = "T1552.007"
		}
	default:
		d.Title, technique = "A connection to where this workload never connected before", "T1041"
	}
	if drift.Reason == profile.Full { // it may be known: there was no room to say
		d.Rule, d.Confidence = d.Rule+"-full", 30
	}
	if attack, ok := rule.Technique(technique); ok {
		d.Attacks = []detection.Attack{attack}
	}
	for _, p := range append([]rule.Process{e.who.Process}, e.who.Ancestors[:min(len(e.who.Ancestors), 15)]...) {
		d.Processes = append(d.Processes, asDetected(p))
	}
	d.Evidence = map[string]string{"drift": drift.Item.String(), "reason": string(drift.Reason), "profile": drift.Profile,
		"learned": fmt.Sprintf("%d of this kind in %d observations, %s to %s", drift.Known, drift.Observations,
			drift.Since.Format(time.RFC3339), drift.Until.Format(time.RFC3339))}
	if len(drift.Like) > 0 {
		d.Evidence["learned_some"] = strings.Join(drift.Like, ", ")
	}
	if drift.Repeated > 0 {
		d.Evidence["kept_back"] = strconv.Itoa(drift.Repeated)
	}
	return d
}

// saveProfiles brings profiles to disk from time to time, and at the end.
func (n *Node) saveProfiles(ended <-chan struct{}) {
	if n.o.Profiles == nil {
		return
	}
	tick := time.NewTicker(saveProfiles)
	defer tick.Stop()
	for more := true; more; {
		select {
		case <-tick.C:
		case <-ended:
			more = false
		}
		if err := n.o.Profiles.Save(); err != nil {
			n.o.Log.Error("profiles are not on disk", "err", err)
		}
	}
}
