package reflex_test

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/authz/authztest"
	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/internal/trust"
	"tourniquet.dev/tourniquet/sensor/hold"
	"tourniquet.dev/tourniquet/sensor/probe"
	"tourniquet.dev/tourniquet/sensor/process"
	"tourniquet.dev/tourniquet/sensor/reflex"
)

// machine is a node whose clock is told and whose kernel writes down what is done.
type machine struct {
	did     []string
	now     time.Time
	pods    map[string]process.Pod
	o       reflex.Options
	r       *reflex.Reflex
	holdErr error
}

func (n *machine) Raise(h hold.Hold) (bool, error) {
	bits := map[hold.Bits]string{hold.Egress | hold.Connect: "egress", hold.All: "both ways"}[h.Bits]
	n.did = append(n.did, fmt.Sprintf("cut %s of %d until %s", bits, h.Cgroup, h.Until))
	return n.holdErr == nil, n.holdErr
}

func (n *machine) Freeze(z hold.Frozen) error {
	n.did = append(n.did, fmt.Sprintf("freeze %d until %s", z.Cgroup, z.Until))
	return nil
}

func (n *machine) Tick() ([]hold.Frozen, error) { return nil, nil }

func (n *machine) Lookup(c process.Container) (process.Pod, bool) {
	p, ok := n.pods[c.PodUID]
	return p, ok
}

func uid(i int) string { return fmt.Sprintf("0000000%d-1111-2222-3333-444444444444", i) }

const containerID = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

const began = time.Hour // since boot

// newNode has pods 1 to 4 in namespace shop, each of an owner of its own, with cgroups 10, 20, 30 and 40.
func newNode(t testing.TB, ceiling func(*trust.ReflexCeiling), lines ...string) *machine {
	t.Helper()
	n := &machine{now: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC), pods: map[string]process.Pod{}}
	world := authztest.New(n.now)
	file := *world.TrustFile
	file.Ceilings.Reflex = trust.ReflexCeiling{Allow: trust.Deeds(), Max: 30 * time.Second, Budget: trust.Budget{Effects: 3, Window: time.Hour}, Namespace: 2,
		CoolDown: time.Minute, Spare: []string{"tier=core"}}
	if ceiling != nil {
		ceiling(&file.Ceilings.Reflex)
	}
	cgroups, err := process.NewCgroups("")
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i <= 4; i++ {
		path := "/kubepods/burstable/pod" + uid(i)
		cgroups.Apply(&probe.Cgroup{ID: uint64(10 * i), Path: path})
		cgroups.Apply(&probe.Cgroup{ID: uint64(10*i + 1), Path: path + "/" + containerID})
		n.pods[uid(i)] = process.Pod{UID: uid(i), Namespace: "shop", Name: "p", ServiceAccount: "cart", Owner: process.Owner{UID: fmt.Sprint("owner", i)}}
	}
	start := n.now
	n.o = reflex.Options{Trust: &file, Books: []authz.Book{world.SignBook(doc(1, lines...))}, Cgroups: cgroups, Pods: n, Holds: n, Freezer: n, State: t.TempDir(),
		Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return n.now }, Boot: func() time.Duration { return began + n.now.Sub(start) },
		Kill: func(pid uint32, start time.Duration) error {
			n.did = append(n.did, fmt.Sprintf("kill %d of %s", pid, start))
			return nil
		}}
	n.restart(t)
	return n
}

func doc(version int, lines ...string) string {
	out := fmt.Sprintf("playbook: stolen\nversion: %d\nmatch: {techniques: [T1552.005, T1059], severity: [high, critical]}\n"+
		"contain: [{action: kubernetes/isolate-pod, review: 4h}]\ntiers: [{ask: oncall, timeout: 5m}]\n", version)
	if len(lines) == 0 {
		return out
	}
	return out + "reflex:\n  - {" + strings.Join(lines, "}\n  - {") + "}\n"
}

const cutLine = "do: cut, confidence: 80, for: 20s"

func (n *machine) restart(t testing.TB) {
	t.Helper()
	var err error
	if n.r, err = reflex.New(n.o); err != nil {
		t.Fatal(err)
	}
}

// match strikes for a detection in a pod, and returns what its evidence says.
func (n *machine) match(pod int, changes ...func(*detection.Detection)) string {
	d := &detection.Detection{Rule: "server-shell", Severity: detection.High, Confidence: 90, Attacks: []detection.Attack{{TechniqueID: "T1059"}}}
	for _, change := range changes {
		change(d)
	}
	n.r.Strike(reflex.Match{Detection: d, Container: process.Container{ID: containerID, PodUID: uid(pod)}, Cgroup: uint64(10*pod + 1),
		Actor: probe.ID{TGID: 99, Start: time.Minute}})
	return d.Evidence["reflex"]
}

func (n *machine) expect(t *testing.T, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, n.did); diff != "" {
		t.Error(diff)
	}
	n.did = nil
}

func TestStrikeCutsEgressFirstAndEndsInTime(t *testing.T) {
	n := newNode(t, nil, cutLine)
	if got := n.match(1); got != "cut" {
		t.Fatal(got)
	}
	n.expect(t, "cut egress of 10 until 1h0m20s")
	n.now = n.now.Add(5 * time.Second)
	n.match(1) // it goes on: both ways, but no longer
	n.match(1) // and no more than that
	n.expect(t, "cut both ways of 10 until 1h0m20s")
	n.now = n.now.Add(15 * time.Second)
	n.match(1)
	n.expect(t, "cut egress of 10 until 1h0m40s")
	if s := n.r.Stats(); s != (reflex.Stats{Struck: 2}) {
		t.Errorf("%+v", s)
	}
}

func TestOnlyWhatThePlaybookSaysIsStruck(t *testing.T) {
	n := newNode(t, nil, "do: cut, rules: [server-shell], techniques: [T1059], severity: [high], confidence: 80, for: 20s")
	for name, change := range map[string]func(*detection.Detection){
		"another rule":      func(d *detection.Detection) { d.Rule = "other" },
		"another technique": func(d *detection.Detection) { d.Attacks[0].TechniqueID = "T1552.005" },
		"another severity":  func(d *detection.Detection) { d.Severity = detection.Critical },
		"less confidence":   func(d *detection.Detection) { d.Confidence = 79 },
	} {
		if got := n.match(1, change); got != "" {
			t.Errorf("%s: %q", name, got)
		}
	}
	n.expect(t)
	n.match(1)
	n.expect(t, "cut egress of 10 until 1h0m20s")
}

func TestCeilingNarrowsThePlaybook(t *testing.T) {
	all := []string{"do: kill, confidence: 80", "do: freeze, confidence: 80, for: 60s", "do: cut, confidence: 80, for: 20s"}
	n := newNode(t, nil, all...)
	if got := n.match(1); got != "cut,freeze,kill" {
		t.Error(got)
	}
	n.expect(t, "cut egress of 10 until 1h0m20s", "freeze 10 until 1h0m30s", "kill 99 of 1m0s") // the mildest first, at most max
	n = newNode(t, func(c *trust.ReflexCeiling) { c.Allow = []trust.Deed{trust.Freeze} }, all...)
	n.match(1)
	n.expect(t, "freeze 10 until 1h0m30s")
	n = newNode(t, func(c *trust.ReflexCeiling) { *c = trust.ReflexCeiling{} }, all...)
	n.match(1)
	n.expect(t)
	if n.r.Lines() != 0 {
		t.Error("reflexes without a ceiling")
	}
}

func TestProtectedPodsAreNeverTouched(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*process.Pod)
		want   string
	}{
		"kube-system":        {func(p *process.Pod) { p.Namespace = "Kube-System" }, "refused: protected"},
		"the responder":      {func(p *process.Pod) { p.Namespace = "tourniquet-system" }, "refused: protected"},
		"by the trust file":  {func(p *process.Pod) { p.Namespace = "payments" }, "refused: protected"},
		"its account":        {func(p *process.Pod) { p.ServiceAccount = "deployer" }, "refused: protected"},
		"its label":          {func(p *process.Pod) { p.Labels = map[string]string{"tier": "core"} }, "refused: protected"},
		"on the host's net":  {func(p *process.Pod) { p.HostNetwork = true }, "refused: protected"},
		"a static pod":       {func(p *process.Pod) { p.ConfigHash = "x" }, "refused: protected"},
		"namespace not told": {func(p *process.Pod) { p.Namespace = "" }, "refused: pod-unknown"},
		"any other":          {func(p *process.Pod) {}, "cut"},
	} {
		n := newNode(t, nil, cutLine)
		p := n.pods[uid(1)]
		tc.change(&p)
		n.pods[uid(1)] = p
		if got := n.match(1); got != tc.want || (len(n.did) > 0) != (tc.want == "cut") {
			t.Errorf("%s: %q, did %q", name, got, n.did)
		}
	}
	n := newNode(t, func(c *trust.ReflexCeiling) { c.HostNetwork = true }, cutLine)
	p := n.pods[uid(1)]
	p.HostNetwork = true
	n.pods[uid(1)] = p
	if got := n.match(1); got != "cut" {
		t.Errorf("allowed on the host's network: %q", got)
	}
	delete(n.pods, uid(2))
	if got := n.match(2); got != "refused: pod-unknown" {
		t.Errorf("an unknown pod: %q", got)
	}
}

func TestBudgetHoldsOverCrashes(t *testing.T) {
	n := newNode(t, func(c *trust.ReflexCeiling) { c.Namespace = 3 }, cutLine)
	var got []string
	for i := 1; i <= 4; i++ {
		got = append(got, n.match(i))
		n.restart(t) // as after kill -9: nothing was said to the process
	}
	if diff := cmp.Diff([]string{"cut", "cut", "cut", "refused: budget-exhausted"}, got); diff != "" {
		t.Error(diff)
	}
	n.now = n.now.Add(61 * time.Minute)
	if got := n.match(3); got != "cut" {
		t.Errorf("in another window: %q", got)
	}
}

func TestBudgetOfANamespace(t *testing.T) {
	n := newNode(t, nil, cutLine)
	var got []string
	for i := 1; i <= 3; i++ {
		got = append(got, n.match(i))
	}
	p := n.pods[uid(4)]
	p.Namespace = "web"
	n.pods[uid(4)] = p
	got = append(got, n.match(4))
	if diff := cmp.Diff([]string{"cut", "cut", "refused: budget-exhausted", "cut"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestWithoutItsBudgetOnDiskNothingIsDone(t *testing.T) {
	n := newNode(t, func(c *trust.ReflexCeiling) { c.Budget.Effects, c.Namespace = 100, 100 }, cutLine)
	if err := os.RemoveAll(n.o.State); err != nil { // the disk fails from now on
		t.Fatal(err)
	}
	refused := 0
	for range 20 {
		n.now = n.now.Add(2 * time.Minute)
		if got := n.match(1); strings.HasPrefix(got, "refused: save budget") {
			refused++
		}
	}
	if refused != 16 || len(n.did) != 4 { // 4 were paid ahead
		t.Errorf("%d refused, %d done", refused, len(n.did))
	}
}

func TestSiblingsAreSparedForAWhile(t *testing.T) {
	n := newNode(t, nil, cutLine)
	for i := 1; i <= 2; i++ {
		p := n.pods[uid(i)]
		p.Owner.UID = "same"
		n.pods[uid(i)] = p
	}
	n.match(1)
	n.now = n.now.Add(79 * time.Second)
	if got := n.match(2); got != "refused: cool-down" {
		t.Error(got)
	}
	n.now = n.now.Add(time.Second)
	if got := n.match(2); got != "cut" {
		t.Error(got)
	}
}

func TestARolledBackPlaybookHasNoReflex(t *testing.T) {
	n := newNode(t, func(c *trust.ReflexCeiling) { c.Budget.Effects, c.Namespace = 100, 100 }, cutLine)
	world := authztest.New(n.now)
	n.o.Books = []authz.Book{world.SignBook(doc(2)), world.SignBook(doc(1, cutLine))}
	n.restart(t) // only the highest counts, which has none
	n.match(1)
	n.o.Books = n.o.Books[1:]
	n.restart(t)
	n.match(1)
	n.expect(t)
	n.o.Books = []authz.Book{world.SignBook(doc(3, cutLine))}
	n.restart(t)
	n.match(1)
	n.expect(t, "cut egress of 10 until 1h0m20s")
	if err := os.WriteFile(filepath.Join(n.o.State, "reflex.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := reflex.New(n.o); err == nil {
		t.Error("started on a damaged budget")
	}
}

func TestAFailedDeedIsTold(t *testing.T) {
	n := newNode(t, nil, cutLine)
	n.holdErr = errors.New("no room")
	if got := n.match(1); got != "refused: cut: no room" {
		t.Error(got)
	}
	n = newNode(t, nil, cutLine)
	n.o.Holds = nil
	n.restart(t)
	if got := n.match(1); got != "refused: not-possible-here" {
		t.Error(got)
	}
}

func BenchmarkStrikeOfWhatNoReflexTakes(b *testing.B) {
	n := newNode(b, nil, cutLine)
	d := &detection.Detection{Rule: "other", Severity: detection.Low, Attacks: []detection.Attack{{TechniqueID: "T1059"}}}
	b.ReportAllocs()
	for b.Loop() {
		n.r.Strike(reflex.Match{Detection: d})
	}
}
