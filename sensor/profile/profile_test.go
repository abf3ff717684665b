package profile_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"

	"tourniquet.dev/tourniquet/sensor/profile"
)

const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

var (
	begin = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	key   = profile.Key{Namespace: "shop", Container: "app", Image: digest}
	app   = map[string]string{"app": "cart", "pod-template-hash": "7d9f"}
)

func alerting() profile.Options {
	return profile.Options{Mode: profile.Alert, Window: profile.Window{For: time.Hour, Observations: 3},
		Ranges: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("10.96.0.0/12")}}
}

func exec(path string) profile.Event { return profile.Event{Kind: profile.Executable, Path: path} }
func dial(to string) profile.Event {
	return profile.Event{Kind: profile.Destination, Addr: netip.MustParseAddrPort(to), Protocol: "TCP"}
}
func open(path, by string, main bool) profile.Event {
	return profile.Event{Kind: profile.Credential, Path: path, By: by, Main: main}
}

func usual() []profile.Event {
	return []profile.Event{exec("/app/cart"), open("/var/run/secrets/kubernetes.io/serviceaccount/..2026_11_01_00_00_00.123/token", "/app/cart", true),
		dial("10.97.1.2:443"), dial("10.1.2.3:8080"), dial("203.0.113.7:443"), dial("127.0.0.1:80")}
}

func learned(t *testing.T, o profile.Options, more ...profile.Event) *profile.Book {
	t.Helper()
	b := profile.NewBook(o)
	for _, e := range append(usual(), more...) {
		if d, drifts, err := b.Observe(key, app, e, begin); drifts || err != nil {
			t.Fatalf("drifts while it is learned: %+v, %v", d, err)
		}
	}
	return b
}

func TestOnlyWhatWasNotLearnedDrifts(t *testing.T) {
	written := exec("/app/cart")
	written.Written = true
	for name, tc := range map[string]struct {
		event profile.Event
		want  string
	}{
		"known program":                 {exec("/app/cart"), ""},
		"new program":                   {exec("/bin/nc"), "/bin/nc"},
		"known path, not of the image":  {written, "/app/cart (not from the image)"},
		"token after its rotation":      {open("/var/run/secrets/kubernetes.io/serviceaccount/..2026_11_02_00_00_00.9/token", "/app/cart", true), ""},
		"the same token, another reads": {open("/var/run/secrets/kubernetes.io/serviceaccount/..2026_11_02_00_00_00.9/token", "/bin/cat", false), "/var/run/secrets/kubernetes.io/serviceaccount/..data/token by /bin/cat"},
		"another service, same port":    {dial("10.99.9.9:443"), ""},
		"a pod, another port":           {dial("10.1.2.9:443"), "TCP 10.0.0.0/8 port 443"},
		"another address outside":       {dial("198.51.100.1:443"), "TCP 198.51.100.1 port 443"},
		"to itself":                     {dial("127.0.0.1:9"), ""},
		"a mapped address":              {dial("[::ffff:203.0.113.7]:443"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := learned(t, alerting())
			d, drifts, err := b.Observe(key, app, tc.event, begin.Add(time.Hour))
			if err != nil || drifts != (tc.want != "") || (drifts && d.Item.String() != tc.want) {
				t.Fatalf("drifts %v: %s, want %q (%v)", drifts, d.Item, tc.want, err)
			}
			if drifts && (d.Reason != profile.Unknown || !d.Since.Equal(begin) || d.Observations != 5 || d.Known == 0 || len(d.Like) == 0 || d.Profile != key.ID()) {
				t.Errorf("evidence %+v", d)
			}
		})
	}
}

func TestWindowNeedsTimeAndObservations(t *testing.T) {
	o := alerting()
	o.Window.Observations = 6 // usual has five that count
	b := learned(t, o)
	if _, drifts, _ := b.Observe(key, app, exec("/bin/a"), begin.Add(2*time.Hour)); drifts {
		t.Error("alarms before it has seen enough")
	}
	if _, drifts, _ := b.Observe(key, app, exec("/bin/b"), begin.Add(2*time.Hour)); !drifts {
		t.Error("does not alarm after time and observations")
	}
	if _, drifts, _ := learned(t, alerting()).Observe(key, app, exec("/bin/b"), begin.Add(time.Hour-time.Second)); drifts {
		t.Error("alarms before its time")
	}
}

func TestModesByNamespace(t *testing.T) {
	o := alerting()
	o.Namespaces = map[string]profile.Mode{"shop": profile.Learn, "none": profile.Off}
	b := learned(t, o)
	if _, drifts, _ := b.Observe(key, app, exec("/bin/nc"), begin.Add(99*time.Hour)); drifts {
		t.Error("a namespace that learns only alarms")
	}
	off := key
	off.Namespace = "none"
	if _, _, err := b.Observe(off, app, exec("/bin/nc"), begin); err != nil || b.Stats().Profiles != 1 {
		t.Errorf("%+v, %v", b.Stats(), err)
	}
}

func TestWhatARuleToldOfIsNotLearned(t *testing.T) {
	theft := open("/root/.aws/credentials", "/bin/cat", false)
	theft.Suspect = true
	b := learned(t, alerting(), theft)
	if d, drifts, _ := b.Observe(key, app, theft, begin.Add(time.Hour)); !drifts || d.Observations != 5 {
		t.Errorf("an attacker in the learning time has taught the profile: %v %+v", drifts, d)
	}
}

func TestFullSetSaysSo(t *testing.T) {
	var flood []profile.Event
	for i := range profile.MaxPerPort + 10 {
		flood = append(flood, dial(fmt.Sprintf("203.0.113.%d:443", i)))
	}
	b := learned(t, alerting(), flood...)
	d, drifts, _ := b.Observe(key, app, dial("198.51.100.1:443"), begin.Add(time.Hour))
	if !drifts || d.Reason != profile.Full {
		t.Errorf("drifts %v, %+v", drifts, d)
	}
	if d, drifts, _ := b.Observe(key, app, exec("/bin/nc"), begin.Add(time.Hour)); !drifts || d.Reason != profile.Unknown {
		t.Errorf("a full set of destinations made programs full: %v %+v", drifts, d)
	}
}

func TestFloodOfDriftsIsFewAndNeverNone(t *testing.T) {
	b := learned(t, alerting())
	told := 0
	for i := range 10_000 {
		if _, drifts, _ := b.Observe(key, app, exec(fmt.Sprint("/tmp/x", i)), begin.Add(time.Hour)); drifts {
			told++
		}
	}
	if told == 0 || told > 20 {
		t.Errorf("%d told", told)
	}
	if d, drifts, _ := b.Observe(key, app, exec("/tmp/last"), begin.Add(time.Hour+time.Minute)); !drifts || d.Repeated != 10_000-told {
		t.Errorf("drifts %v, repeated %d of %d", drifts, d.Repeated, 10_000-told)
	}
}

func folder(t *testing.T, dir string) *profile.Folder {
	t.Helper()
	f, err := profile.OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestRestartAndEvictionForgetNothing(t *testing.T) {
	o, dir := alerting(), t.TempDir()
	o.Max, o.Store = 1, folder(t, dir)
	b := learned(t, o)
	other := key
	other.Container = "other"
	if _, _, err := b.Observe(other, nil, exec("/x"), begin); err != nil || b.Stats().Profiles != 1 {
		t.Fatalf("%+v, %v", b.Stats(), err)
	}
	if d, drifts, err := b.Observe(key, app, exec("/bin/nc"), begin.Add(time.Hour)); !drifts || err != nil || d.Observations != 5 {
		t.Errorf("after eviction: %v %+v %v", drifts, d, err)
	}
	if err := b.Save(); err != nil {
		t.Fatal(err)
	}
	o.Store = folder(t, dir)
	if d, drifts, err := profile.NewBook(o).Observe(key, app, exec("/bin/nc"), begin.Add(2*time.Hour)); !drifts || err != nil || d.Observations != 5 {
		t.Errorf("after a restart: %v %+v %v", drifts, d, err)
	}
}

func TestDamagedFileIsPutAsideAndSaid(t *testing.T) {
	o, dir := alerting(), t.TempDir()
	o.Store = folder(t, dir)
	b := learned(t, o)
	if err := b.Save(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, key.ID()+".json")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range data { // any one bit
		bad := append([]byte(nil), data...)
		bad[i] ^= 1
		if _, err := profile.Decode(bad); !errors.Is(err, profile.ErrDamaged) {
			t.Fatalf("byte %d flipped: %v", i, err)
		}
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	again := profile.NewBook(o)
	if _, _, err := again.Observe(key, app, exec("/app/cart"), begin); !errors.Is(err, profile.ErrDamaged) || again.Stats().Failed != 1 {
		t.Errorf("said %v", err)
	}
	if _, _, err := again.Observe(key, app, exec("/app/cart"), begin); err != nil {
		t.Errorf("said again: %v", err)
	}
	if _, err := os.Stat(path + ".damaged"); err != nil {
		t.Error(err)
	}
}

func TestProfileIsDeterministic(t *testing.T) {
	var files [][]byte
	for range 2 {
		o, dir := alerting(), t.TempDir()
		o.Store = folder(t, dir)
		if err := learned(t, o, exec("/b"), exec("/a\xff"), exec(strings.Repeat("/long", 400))).Save(); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(filepath.Join(dir, key.ID()+".json"))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, data)
	}
	if diff := cmp.Diff(string(files[0]), string(files[1])); diff != "" {
		t.Error(diff)
	}
}

func TestPolicyIsTheRealType(t *testing.T) {
	o, dir := alerting(), t.TempDir()
	o.Store = folder(t, dir)
	b := learned(t, o)
	if _, _, err := b.Observe(key, app, exec("/app/cart"), begin.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := b.Save(); err != nil {
		t.Fatal(err)
	}
	p, err := o.Store.Load(key)
	if err != nil {
		t.Fatal(err)
	}
	policy, err := p.Policy(nil, false)
	if err != nil {
		t.Fatal(err)
	}
	got, err := policy.YAML()
	if err != nil {
		t.Fatal(err)
	}
	var real networkingv1.NetworkPolicy
	if err := yaml.UnmarshalStrict(got, &real); err != nil {
		t.Fatalf("%v in\n%s", err, got)
	}
	if diff := cmp.Diff(map[string]string{"app": "cart"}, real.Spec.PodSelector.MatchLabels); diff != "" {
		t.Error(diff)
	}
	var rules []string
	for _, r := range real.Spec.Egress {
		line := fmt.Sprintf("%s %s", *r.Ports[0].Protocol, r.Ports[0].Port.String())
		for _, to := range r.To {
			line += " " + to.IPBlock.CIDR
		}
		rules = append(rules, line)
	}
	if diff := cmp.Diff([]string{"TCP 443 10.96.0.0/12 203.0.113.7/32", "TCP 8080 10.0.0.0/8"}, rules); diff != "" {
		t.Error(diff)
	}
	if real.Namespace != "shop" || real.Kind != "NetworkPolicy" || len(real.Spec.PolicyTypes) != 1 || real.Spec.PolicyTypes[0] != networkingv1.PolicyTypeEgress {
		t.Errorf("%+v", real)
	}
	if _, err := profile.New(key, app).Policy(nil, false); !errors.Is(err, profile.ErrUnfinished) {
		t.Error(err)
	}
	if _, err := profile.New(key, nil).Policy(nil, true); !errors.Is(err, profile.ErrNoSelector) {
		t.Error(err)
	}
}

func TestKeyOfAContainer(t *testing.T) {
	if k, ok := profile.NewKey("shop", "app", "registry.example/cart@"+digest, "ReplicaSet", "cart"); !ok || k != key {
		t.Errorf("%+v", k)
	}
	if k, ok := profile.NewKey("shop", "app", "", "ReplicaSet", "cart"); !ok || k.OwnerName != "cart" || k.Image != "" {
		t.Errorf("%+v", k)
	}
	if _, ok := profile.NewKey("shop", "app", "", "", ""); ok {
		t.Error("a container of which nothing is known has a profile")
	}
}

func BenchmarkObserveKnown(b *testing.B) {
	book := profile.NewBook(alerting())
	e := dial("203.0.113.7:443")
	for b.Loop() {
		if _, _, err := book.Observe(key, app, e, begin); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	good, err := profile.Encode(profile.New(key, app))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := profile.Decode(data)
		if err != nil {
			return
		}
		again, err := profile.Encode(p)
		if err != nil || string(again) != string(data) {
			t.Errorf("%q became %q: %v", data, again, err)
		}
	})
}
