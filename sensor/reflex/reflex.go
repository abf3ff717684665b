// Package reflex does at once, on the node and with nobody asked, what a signed playbook pre-authorizes for a detection of
// this sensor: it cuts the pod's network, freezes the pod, or kills the process that matched. Each of these but a kill ends
// within a minute; a containment's signed order takes it over before, or it lapses. The trust file's ceiling, its protected
// set and a budget on disk are kept here, whatever a playbook says. sensor/node calls Strike for each match, before the queue
// to the spool, so that what was done stands in the signed detection. It never widens what the playbook says, and decides
// nothing that it cannot check on the node: a pod that is not known is not touched.
package reflex

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/internal/trust"
	"tourniquet.dev/tourniquet/sensor/hold"
	"tourniquet.dev/tourniquet/sensor/probe"
	"tourniquet.dev/tourniquet/sensor/process"
)

// Holds cuts; hold.Table does.
type Holds interface {
	Raise(h hold.Hold) (added bool, err error)
}

// Freezer freezes; hold.Freezer does.
type Freezer interface {
	Freeze(z hold.Frozen) error
	Tick() ([]hold.Frozen, error)
}

// Pods says whose a container is; process.Pods does.
type Pods interface {
	Lookup(c process.Container) (process.Pod, bool)
}

// Options is what a Reflex needs.
type Options struct {
	Trust   *trust.File
	Books   []authz.Book
	Cgroups *process.Cgroups
	Pods    Pods    // nil: nothing is ever done
	Holds   Holds   // nil: nothing is cut
	Freezer Freezer // nil: nothing is frozen
	// Kill ends one process; nil: none is killed.
	Kill   func(pid uint32, start time.Duration) error
	State  string // folder of the budget
	BootID string
	Log    *slog.Logger
	Now    func() time.Time // the machine's if nil, and so Boot
	Boot   func() time.Duration
}

// Match is a detection with what it is about.
type Match struct {
	Detection *detection.Detection
	Container process.Container
	Cgroup    uint64 // of the process
	Actor     probe.ID
}

// Stats are counters since the start.
type Stats struct {
	Struck  uint64 // pods, each with one effect of the budget
	Refused uint64 // by ceiling, protected set, budget or cool-down
	Failed  uint64
}

// struck is a pod under a reflex.
type struck struct {
	owner string
	until time.Duration // since boot
	wide  bool          // cut both ways
	did   string
}

// Reflex strikes. Strike is for one goroutine; the rest is safe for concurrent use.
type Reflex struct {
	o     Options
	lines []line
	purse *purse
	self  string // our own cgroup
	pods  map[string]struck

	word                    chan struct{}
	struck, refused, failed atomic.Uint64
}

const (
	maxStruck = 1024
	tickEvery = 50 * time.Millisecond
)

// New compiles the playbooks for this node. What they ask for beyond the trust file is left out and logged.
func New(o Options) (*Reflex, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Boot == nil {
		o.Boot = hold.Now
	}
	ceiling := o.Trust.Ceilings.Reflex
	p, err := openPurse(o.State, ceiling, o.Now())
	if err != nil {
		return nil, err
	}
	r := &Reflex{o: o, purse: p, pods: map[string]struck{}, word: make(chan struct{}, 1)}
	var left []error
	r.lines, left = compile(ceiling, o.Books, p.book.Highest)
	for _, err := range left {
		o.Log.Error("a reflex is not live", "err", err)
	}
	if own, err := os.ReadFile("/proc/self/cgroup"); err == nil {
		for l := range strings.Lines(string(own)) {
			if _, path, ok := strings.Cut(strings.TrimSpace(l), "::"); ok {
				r.self = path
			}
		}
	}
	ahead := p.prepay()
	if len(r.lines) == 0 {
		ahead = 0
	}
	return r, p.save(o.Now(), ahead)
}

// Lines is how many reflexes are live.
func (r *Reflex) Lines() int { return len(r.lines) }

// Stats reads the counters.
func (r *Reflex) Stats() Stats { return Stats{r.struck.Load(), r.refused.Load(), r.failed.Load()} }

// Run thaws what is over and pays ahead, until ctx is done.
func (r *Reflex) Run(ctx context.Context) error {
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return r.purse.giveBack(r.o.Now())
		case <-r.word:
			err = r.purse.save(r.o.Now(), r.purse.prepay())
		case <-tick.C:
			err = r.thaw()
		}
		if err != nil {
			r.o.Log.Error("reflexes", "err", err)
		}
	}
}

func (r *Reflex) thaw() error {
	if r.o.Freezer == nil {
		return nil
	}
	over, err := r.o.Freezer.Tick()
	for _, z := range over {
		r.o.Log.Info("thawed", "cgroup", z.Cgroup)
	}
	return err
}

// refusal is why nothing was done, as the detection's evidence says it.
var (
	errUnknown   = errors.New("pod-unknown")
	errProtected = errors.New("protected")
	errCoolDown  = errors.New("cool-down")
	errMeans     = errors.New("not-possible-here")
)

// Strike does what the playbooks pre-authorize for a match, and writes into the detection's evidence what it did, or why not.
// It reports whether it did something now.
func (r *Reflex) Strike(m Match) bool {
	if r == nil || len(r.lines) == 0 {
		return false
	}
	want := choose(r.lines, m.Detection)
	if want.last == nil {
		return false
	}
	did, err := r.strike(m, want)
	if m.Detection.Evidence == nil {
		m.Detection.Evidence = map[string]string{}
	}
	e := m.Detection.Evidence
	e["reflex_playbook"] = strings.Join(want.names, ", ")
	switch {
	case err != nil && did == "":
		e["reflex"] = "refused: " + err.Error() // bounded: our own words, and an errno
		r.refused.Add(1)
		return false
	case err != nil:
		e["reflex_failed"] = err.Error()
		r.failed.Add(1)
		r.o.Log.Error("a reflex fell short", "pod_uid", m.Container.PodUID, "did", did, "err", err)
	}
	s := r.pods[m.Container.PodUID]
	if s.did != "" {
		e["reflex"] = s.did
		e["reflex_until"] = r.o.Now().Add(s.until - r.o.Boot()).UTC().Format(time.RFC3339Nano)
		e["reflex_done_ns"] = strconv.FormatInt(int64(r.o.Boot()), 10)
	}
	return did != ""
}

func (r *Reflex) strike(m Match, want deeds) (did string, err error) {
	now := r.o.Boot()
	s, on := r.pods[m.Container.PodUID]
	on = on && s.until > now
	if on && (s.wide || want.last[trust.Cut] == 0) {
		return "", nil // it stands: nothing that matches again moves its end
	}
	pod, group, err := r.target(m)
	if err != nil {
		return "", err
	}
	if on { // egress first, and both ways when it goes on
		s.wide = true
		r.pods[m.Container.PodUID] = s
		_, err := r.o.Holds.Raise(hold.Hold{Cgroup: group.ID, Until: s.until, Bits: hold.All})
		return s.did, err
	}
	owner := pod.Owner.UID
	if owner == "" {
		owner = pod.UID
	}
	if r.cooling(owner, pod.UID, now) {
		return "", errCoolDown
	}
	if !r.can(want) {
		return "", errMeans
	}
	if err := r.purse.spend(pod.Namespace, r.o.Now()); err != nil {
		return "", err
	}
	select {
	case r.word <- struct{}{}:
	default:
	}
	done, until, err := r.do(m, want, group, now)
	if done == "" {
		return "", err
	}
	r.remember(pod.UID, struck{owner: owner, until: until, did: done}, now)
	r.struck.Add(1)
	return done, err
}

// can reports whether this node has the means for any of it.
func (r *Reflex) can(want deeds) bool {
	for deed := range want.last {
		switch {
		case deed == trust.Cut && r.o.Holds != nil, deed == trust.Freeze && r.o.Freezer != nil, deed == trust.Kill && r.o.Kill != nil:
			return true
		}
	}
	return false
}

// do does all that is wanted, the mildest first: what a later one cannot do leaves the earlier ones on.
func (r *Reflex) do(m Match, want deeds, group process.Cgroup, now time.Duration) (did string, until time.Duration, err error) {
	var done []string
	var errs []error
	until = now
	for _, deed := range trust.Deeds() {
		last, wanted := want.last[deed]
		if !wanted {
			continue
		}
		var err error
		switch deed {
		case trust.Cut:
			if err = errMeans; r.o.Holds != nil {
				_, err = r.o.Holds.Raise(hold.Hold{Cgroup: group.ID, Until: now + last, Bits: hold.Egress | hold.Connect})
			}
		case trust.Freeze:
			if err = errMeans; r.o.Freezer != nil {
				err = r.o.Freezer.Freeze(hold.Frozen{Cgroup: group.ID, Path: group.Path, Until: now + last, Boot: r.o.BootID})
			}
		case trust.Kill:
			if err = errMeans; r.o.Kill != nil {
				err = r.o.Kill(m.Actor.TGID, m.Actor.Start)
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", deed, err))
			continue
		}
		done, until = append(done, string(deed)), max(until, now+last)
	}
	return strings.Join(done, ","), until, errors.Join(errs...)
}

// target finds the pod and the cgroup that holds all of it, and asks the protected set.
func (r *Reflex) target(m Match) (process.Pod, process.Cgroup, error) {
	if r.o.Pods == nil || m.Container.PodUID == "" {
		return process.Pod{}, process.Cgroup{}, errUnknown
	}
	pod, known := r.o.Pods.Lookup(m.Container)
	if !known || pod.Namespace == "" {
		return pod, process.Cgroup{}, errUnknown
	}
	c := r.o.Trust.Ceilings.Reflex
	switch {
	case r.o.Trust.ProtectsServiceAccount(pod.Namespace, pod.ServiceAccount), // and the whole namespace
		c.Spares(pod.Labels), pod.HostNetwork && !c.HostNetwork, pod.ConfigHash != "" && !c.StaticPods:
		return pod, process.Cgroup{}, errProtected
	}
	group, ok := r.o.Cgroups.Lookup(m.Cgroup)
	if !ok || !group.Contained {
		return pod, group, errUnknown
	}
	for _, g := range r.o.Cgroups.Find(func(g process.Cgroup) bool {
		return g.Contained && g.Container.ID == "" && g.Container.PodUID == m.Container.PodUID && !g.Removed
	}) {
		group = g
	}
	if r.self != "" && (r.self == group.Path || strings.HasPrefix(r.self, strings.TrimSuffix(group.Path, "/")+"/")) {
		return pod, group, errProtected
	}
	return pod, group, nil
}

// cooling reports whether a sibling of the pod was struck a short while ago. The pod itself may be struck again: that hits
// nobody else, and the budget bounds it.
func (r *Reflex) cooling(owner, podUID string, now time.Duration) bool {
	for uid, s := range r.pods {
		if s.owner == owner && uid != podUID && now < s.until+r.o.Trust.Ceilings.Reflex.CoolDown {
			return true
		}
	}
	return false
}

func (r *Reflex) remember(podUID string, s struck, now time.Duration) {
	for uid, old := range r.pods {
		if now >= old.until+r.o.Trust.Ceilings.Reflex.CoolDown || len(r.pods) >= maxStruck {
			delete(r.pods, uid)
		}
	}
	r.pods[podUID] = s
}
