package node_test

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/authz/authztest"
	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/internal/identity"
	"tourniquet.dev/tourniquet/internal/sys/spool"
	"tourniquet.dev/tourniquet/sensor/node"
	"tourniquet.dev/tourniquet/sensor/probe"
	"tourniquet.dev/tourniquet/sensor/process"
	"tourniquet.dev/tourniquet/sensor/rule"
)

const (
	containerID = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	podPath     = "/kubepods/burstable/pod" + authztest.PodUID
	podCgroup   = 70
	ourCgroup   = 77
)

// script is a recorded source: it sends its events and ends, or waits for the end.
type script struct {
	boot   time.Time
	events []probe.Event
	more   chan probe.Event
	stay   bool
}

func (s *script) Run(ctx context.Context, out chan<- probe.Event) error {
	for _, e := range s.events {
		out <- e
	}
	for s.stay {
		select {
		case e := <-s.more:
			out <- e
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

func (s *script) Wall(at time.Duration) time.Time { return s.boot.Add(at) }

// memory keeps what is appended, and can be full.
type memory struct {
	mu    sync.Mutex
	held  []authz.Envelope
	full  bool
	small int // entries that there is room for; 0: any number
}

func (s *memory) Append(_ context.Context, _ spool.Lane, payload []byte) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.full || (s.small > 0 && len(s.held) >= s.small) {
		return 0, spool.ErrFull
	}
	e, err := authz.DecodeEnvelope(payload)
	if err != nil {
		return 0, err
	}
	s.held = append(s.held, e)
	return uint64(len(s.held)), nil
}

func (s *memory) envelopes() []authz.Envelope {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]authz.Envelope(nil), s.held...)
}

// pods is what the API server knows.
type pods struct {
	mu    sync.Mutex
	pod   process.Pod
	known bool
	now   chan struct{}
}

func (p *pods) Lookup(c process.Container) (process.Pod, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pod, p.known && c.PodUID == p.pod.UID
}

func (p *pods) Await(ctx context.Context, c process.Container) (process.Pod, error) {
	select {
	case <-p.now:
		return p.pod, nil
	case <-ctx.Done():
		return process.Pod{}, ctx.Err()
	}
}

var cart = process.Pod{
	UID: authztest.PodUID, Namespace: authztest.Namespace, Name: "cart-7", ServiceAccount: "cart",
	Owner:      process.Owner{Kind: "ReplicaSet", Name: "cart", UID: "99999999-2222-3333-4444-555555555555"},
	Containers: []process.PodContainer{{Name: "app", ID: containerID}},
	Declared:   map[string]process.Hints{"app": {AccessKeyID: authztest.KeyID}, "sidecar": {AccessKeyID: "AKIATESTSIDECAR00009"}},
}

type rig struct {
	world  *authztest.World
	source *script
	spool  *memory
	pods   *pods
	hints  map[uint32]process.Hints
	boot   time.Duration
}

func newRig(now time.Time) *rig {
	return &rig{world: authztest.New(now), source: &script{boot: now.Add(-time.Hour)}, spool: &memory{}, boot: time.Hour + time.Second,
		pods: &pods{pod: cart, known: true, now: make(chan struct{})}, hints: map[uint32]process.Hints{}}
}

// ca signs detections' certificates for as long as the world lasts.
func (r *rig) options(t *testing.T) node.Options {
	t.Helper()
	rules, err := rule.Bundled()
	if err != nil {
		t.Fatal(err)
	}
	cgroups, err := process.NewCgroups("")
	if err != nil {
		t.Fatal(err)
	}
	return node.Options{
		Cluster: authztest.Cluster, Node: authztest.NodeName, Account: authztest.Account, Trust: r.world.TrustFile, Signer: r.world.Node,
		Instance: "boot:1", Source: r.source, Tree: process.NewTree(process.TreeOptions{}), Cgroups: cgroups, Rules: rules, Pods: r.pods, Spool: r.spool,
		Hints: func(pid uint32) (process.Hints, error) { return r.hints[pid], nil },
		State: t.TempDir(), Log: slog.New(slog.DiscardHandler),
		Now: func() time.Time { return r.world.Now }, Boot: func() time.Duration { return r.boot },
	}
}

func (r *rig) play(t *testing.T, change func(*node.Options), events ...probe.Event) (*node.Node, []*detection.Detection) {
	t.Helper()
	r.source.events = append(container(), events...)
	o := r.options(t)
	if change != nil {
		change(&o)
	}
	n, err := node.New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	return n, r.told(t)
}

// told is what stands in the spool.
func (r *rig) told(t *testing.T) []*detection.Detection {
	t.Helper()
	var out []*detection.Detection
	for _, e := range r.spool.envelopes() {
		d, err := authz.OpenDetection(r.world.TrustFile, e)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, d)
	}
	return out
}

// Events of a container whose main program is /app/cart, process 10.
const start = time.Hour

func meta(pid, ppid uint32, at time.Duration, comm string) probe.Meta {
	return probe.Meta{At: start + at, TGID: pid, TID: pid, PPID: ppid, UID: 1000, EUID: 1000, Start: start + time.Duration(pid)*time.Second/100, Cgroup: ourCgroup, Comm: comm}
}

func execs(pid, ppid uint32, at time.Duration, path string, args ...string) probe.Event {
	parent := start + time.Duration(ppid)*time.Second/100
	return &probe.Exec{Meta: meta(pid, ppid, at, path[1:]), ParentStart: parent, Path: path, Args: args}
}

func opens(pid uint32, at time.Duration, path string) probe.Event {
	return &probe.Open{Meta: meta(pid, 0, at, "cat"), Path: path, Resolved: true}
}

func container() []probe.Event {
	return []probe.Event{
		&probe.Cgroup{Meta: probe.Meta{At: start}, ID: podCgroup, Path: podPath},
		&probe.Cgroup{Meta: probe.Meta{At: start}, ID: ourCgroup, Path: podPath + "/" + containerID},
		execs(10, 1, 0, "/app/cart"),
	}
}

func attack() []probe.Event {
	return []probe.Event{
		execs(20, 10, time.Second, "/bin/sh", "sh", "-c", "cat ~/.aws/credentials"),
		execs(30, 20, 2*time.Second, "/bin/cat", "cat", "/root/.aws/credentials"),
		opens(30, 2*time.Second, "/root/.aws/credentials"),
		&probe.Connect{Meta: meta(20, 10, 3*time.Second, "sh"), Addr: netip.MustParseAddrPort("203.0.113.9:443")},
	}
}

func TestAttackBecomesSignedDetections(t *testing.T) {
	r := newRig(time.Now())
	r.hints[10] = process.Hints{AccessKeyID: authztest.KeyID}
	_, got := r.play(t, nil, attack()...)
	var rules []string
	for _, d := range got {
		rules = append(rules, d.Rule)
	}
	if diff := cmp.Diff([]string{"server-shell", "aws-credentials-read", "egress-after-credential-access"}, rules); diff != "" {
		t.Fatal(diff)
	}
	d := got[1]
	want := &detection.Workload{Cluster: authztest.Cluster, Node: authztest.NodeName, Namespace: "shop", Pod: "cart-7", PodUID: authztest.PodUID,
		OwnerKind: "ReplicaSet", OwnerName: "cart", OwnerUID: "99999999-2222-3333-4444-555555555555", Container: "app", ContainerID: containerID,
		ServiceAccount: "cart", CgroupID: ourCgroup}
	if diff := cmp.Diff(want, d.Workload); diff != "" {
		t.Error(diff)
	}
	if !d.Time.Equal(r.source.Wall(start+2*time.Second).UTC().Truncate(time.Millisecond)) || d.KernelNS != uint64(start+2*time.Second) || d.SeenNS != uint64(r.boot) {
		t.Errorf("time %v, kernel %d, seen %d", d.Time, d.KernelNS, d.SeenNS)
	}
	var exes []string
	for _, p := range d.Processes {
		exes = append(exes, p.Exe)
	}
	if diff := cmp.Diff([]string{"/bin/cat", "/bin/sh", "/app/cart"}, exes); diff != "" {
		t.Error(diff)
	}
	if d.UID != "boot:1-2" || d.Source != (detection.Source{Kind: detection.Sensor, Name: authztest.NodeName, UID: "boot:1-2"}) {
		t.Errorf("uid %s, source %+v", d.UID, d.Source)
	}
}

func TestIdentitiesAreAttestedOrClaimed(t *testing.T) {
	key := func(name string, link identity.Link, evidence string) identity.Identity {
		return identity.Identity{Kind: identity.AccessKey, Scope: authztest.Account, Name: name, Link: link, Evidence: evidence}
	}
	account := identity.Identity{Kind: identity.ServiceAccount, Scope: authztest.Cluster, Namespace: "shop", Name: "cart", Link: identity.Attested, Evidence: "pod specification"}
	const planted = authztest.Planted
	for name, tc := range map[string]struct {
		change func(*rig, *node.Options)
		want   []identity.Identity
	}{
		"in the specification and at the start": {func(r *rig, _ *node.Options) { r.hints[10] = process.Hints{AccessKeyID: authztest.KeyID} },
			[]identity.Identity{key(authztest.KeyID, identity.Attested, "pod specification"), account}},
		"in the specification, no environment granted": {func(_ *rig, o *node.Options) { o.Hints = nil },
			[]identity.Identity{key(authztest.KeyID, identity.Attested, "pod specification"), account}},
		"at the container's start only": {func(r *rig, _ *node.Options) {
			r.pods.pod.Declared = nil
			r.hints[10] = process.Hints{AccessKeyID: planted}
		}, []identity.Identity{key(planted, identity.Attested, "container start"), account}},
		"read long after the start": {func(r *rig, _ *node.Options) {
			r.pods.pod.Declared = nil
			r.hints[10] = process.Hints{AccessKeyID: planted}
			r.boot = time.Hour + time.Minute
		}, []identity.Identity{key(planted, identity.Claimed, "process environment"), account}},
		"of a later process": {func(r *rig, _ *node.Options) {
			r.hints[10] = process.Hints{AccessKeyID: authztest.KeyID}
			r.hints[30] = process.Hints{AccessKeyID: planted}
		}, []identity.Identity{key(authztest.KeyID, identity.Attested, "pod specification"), key(planted, identity.Claimed, "process environment"), account}},
		"a role": {func(r *rig, _ *node.Options) {
			r.pods.pod.Declared = map[string]process.Hints{"app": {RoleARN: "arn:aws:iam::123456789012:role/team/cart"}}
		}, []identity.Identity{{Kind: identity.Role, Scope: "123456789012", Name: "cart", Link: identity.Attested, Evidence: "pod specification"}, account}},
		"the container is not known yet": {func(r *rig, _ *node.Options) { r.pods.pod.Containers = nil },
			[]identity.Identity{key(authztest.KeyID, identity.Attested, "pod specification"), key("AKIATESTSIDECAR00009", identity.Attested, "pod specification"), account}},
		"no pod at all": {func(r *rig, o *node.Options) { o.Pods = nil; r.hints[10] = process.Hints{AccessKeyID: planted} },
			[]identity.Identity{key(planted, identity.Attested, "container start")}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(time.Now())
			_, got := r.play(t, func(o *node.Options) { tc.change(r, o) }, attack()...)
			if len(got) != 3 {
				t.Fatalf("%d detections", len(got))
			}
			if diff := cmp.Diff(tc.want, got[1].Identities); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestWhatFirstProcessHadAtItsStartIsNotReadAgain(t *testing.T) {
	r := newRig(time.Now())
	r.pods.pod.Declared = nil
	late := false // an hour goes by after the first reading, and somebody takes the process over
	_, got := r.play(t, func(o *node.Options) {
		o.Hints = func(pid uint32) (process.Hints, error) {
			if pid != 10 {
				return process.Hints{}, nil
			}
			if late {
				return process.Hints{AccessKeyID: authztest.Planted}, nil
			}
			late = true
			return process.Hints{AccessKeyID: authztest.KeyID}, nil
		}
		o.Boot = func() time.Duration {
			if late {
				return start + time.Hour
			}
			return start + time.Second
		}
	}, append([]probe.Event{execs(10, 1, time.Minute, "/app/cart")}, attack()...)...)
	if len(got) != 3 || len(got[1].Identities) != 2 || got[1].Identities[0].Name != authztest.KeyID {
		t.Errorf("%+v", got[1].Identities)
	}
}

func TestRepeatedDetectionsAreCoalesced(t *testing.T) {
	r := newRig(time.Now())
	events := attack()[:3]
	for i := range 5 {
		events = append(events, opens(30, 3*time.Second+time.Duration(i), "/root/.aws/credentials"))
	}
	events = append(events, opens(30, 14*time.Second, "/root/.aws/credentials"))
	n, got := r.play(t, nil, events...)
	if len(got) != 3 || got[1].Evidence["repeated"] != "" || got[2].Evidence["repeated"] != "5" {
		t.Errorf("%d detections, evidence %v", len(got), got[len(got)-1].Evidence)
	}
	if s := n.Stats(); s.Matched != 8 || s.Coalesced != 5 || s.Spooled != 3 {
		t.Errorf("%+v", s)
	}
}

func TestOutsideOfContainersNothingIsToldOf(t *testing.T) {
	r := newRig(time.Now())
	e := opens(30, time.Second, "/root/.aws/credentials").(*probe.Open)
	e.Cgroup = 5
	if _, got := r.play(t, nil, e); len(got) != 0 {
		t.Errorf("%+v", got)
	}
}

func TestDetectionWaitsForItsPod(t *testing.T) {
	r := newRig(time.Now())
	r.pods.known = false
	close(r.pods.now)
	if _, got := r.play(t, nil, attack()[:3]...); len(got) != 2 || got[1].Workload.Pod != "cart-7" {
		t.Errorf("%+v", got)
	}
}

func TestSecretsInArgumentsAreRedacted(t *testing.T) {
	r := newRig(time.Now())
	_, got := r.play(t, nil, execs(20, 10, time.Second, "/bin/sh", "sh", "-c", "curl -H 'Authorization: hunter2hunter2'"))
	if diff := cmp.Diff([]string{"sh", "-c", "curl -H '<redacted>'"}, got[0].Processes[0].Args); diff != "" {
		t.Error(diff)
	}
}

func TestFullSpoolIsCountedAndSurvived(t *testing.T) {
	r := newRig(time.Now())
	r.spool.full = true
	n, _ := r.play(t, nil, attack()...)
	if s := n.Stats(); s.Lost != 3 || s.Spooled != 0 {
		t.Errorf("%+v", s)
	}
}
