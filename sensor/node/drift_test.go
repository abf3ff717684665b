package node_test

import (
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tourniquet.dev/tourniquet/sensor/node"
	"tourniquet.dev/tourniquet/sensor/probe"
	"tourniquet.dev/tourniquet/sensor/process"
	"tourniquet.dev/tourniquet/sensor/profile"
)

const imageID = "registry.example/cart@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func (r *rig) profiles() *profile.Book {
	r.pods.pod.Containers = []process.PodContainer{{Name: "app", ID: containerID, ImageID: imageID}}
	return profile.NewBook(profile.Options{Mode: profile.Alert, Window: profile.Window{For: time.Minute, Observations: 2}})
}

func dials(pid uint32, at time.Duration, to string) probe.Event {
	return &probe.Connect{Meta: meta(pid, 10, at, "cart"), Addr: netip.MustParseAddrPort(to), Protocol: 6}
}

func TestDriftIsADetectionWithWhatWasLearned(t *testing.T) {
	r := newRig(time.Now())
	book := r.profiles()
	dropped := execs(40, 10, 3*time.Minute, "/tmp/x").(*probe.Exec)
	dropped.Upper = true
	_, got := r.play(t, func(o *node.Options) { o.Profiles = book },
		dials(10, time.Second, "203.0.113.9:443"),
		dials(10, 2*time.Minute, "203.0.113.9:443"),
		dials(10, 2*time.Minute, "198.51.100.1:4444"),
		execs(30, 10, 2*time.Minute, "/usr/bin/id"),
		dropped)
	var said []string
	for _, d := range got {
		said = append(said, d.Rule+" "+string(d.Severity)+" "+d.Attacks[0].TechniqueID+": "+d.Evidence["drift"])
	}
	want := []string{
		"profile-drift-destination medium T1041: TCP 198.51.100.1 port 4444",
		"profile-drift-executable medium T1059: /usr/bin/id",
		"profile-drift-executable high T1105: /tmp/x (not from the image)",
	}
	if diff := cmp.Diff(want, said); diff != "" {
		t.Fatal(diff)
	}
	for _, d := range got {
		for _, book := range bundledPlaybooks(t) {
			if book.Takes(d) {
				t.Errorf("playbook %s takes %s unasked", book.Playbook, d.Rule)
			}
		}
	}
	if d := got[0]; d.Workload.Pod != "cart-7" || d.Evidence["learned"] == "" || d.Evidence["learned_some"] != "TCP 203.0.113.9 port 443" || d.Evidence["profile"] == "" {
		t.Errorf("%+v", d.Evidence)
	}
}

func TestTheftWhileLearningIsToldAndNotLearned(t *testing.T) {
	r := newRig(time.Now())
	book := r.profiles()
	events := append([]probe.Event{dials(10, time.Second, "203.0.113.7:443"), dials(10, time.Second, "203.0.113.7:443")}, attack()...)
	events = append(events, dials(10, 2*time.Minute, "203.0.113.9:443"))
	_, got := r.play(t, func(o *node.Options) { o.Profiles = book }, events...)
	var rules []string
	for _, d := range got {
		rules = append(rules, d.Rule)
	}
	// The address of the theft is none that the main program may use unsaid afterwards.
	if diff := cmp.Diff([]string{"server-shell", "aws-credentials-read", "egress-after-credential-access", "profile-drift-destination"}, rules); diff != "" {
		t.Error(diff)
	}
}

// slowPods knows a pod from the n-th question on.
type slowPods struct {
	*pods
	mu    sync.Mutex
	after int
}

func (p *slowPods) Lookup(c process.Container) (process.Pod, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.after--; p.after >= 0 {
		return process.Pod{}, false
	}
	return p.pods.Lookup(c)
}

func TestEventsBeforeTheirPodIsKnownAreLearned(t *testing.T) {
	for name, tc := range map[string]struct {
		after      int
		unprofiled uint64
		profiles   int
	}{"known a little later": {2, 0, 1}, "never known": {1000, 5, 0}} {
		t.Run(name, func(t *testing.T) {
			r := newRig(time.Now())
			book := r.profiles()
			// What came early is learned before what came after it, which is in the time of alarms.
			n, got := r.play(t, func(o *node.Options) { o.Profiles, o.Pods = book, &slowPods{pods: r.pods, after: tc.after} },
				dials(10, time.Second, "203.0.113.7:443"), dials(10, 2*time.Minute, "203.0.113.7:443"),
				dials(10, 2*time.Minute, "203.0.113.7:443"), execs(10, 1, 4*time.Minute, "/app/cart"))
			if s := n.Stats(); len(got) != 0 || s.Unprofiled != tc.unprofiled || book.Stats().Profiles != tc.profiles {
				t.Errorf("%d told, %+v, %+v", len(got), s, book.Stats())
			}
		})
	}
}

func TestEvidenceOfIdentities(t *testing.T) {
	r := newRig(time.Now())
	r.pods.pod.Declared = map[string]process.Hints{"app": {RoleARN: "arn:aws:iam::123456789012:role/team/cart", TokenFile: "/var/run/secrets/eks.amazonaws.com/serviceaccount/token"}}
	r.hints[10] = process.Hints{FullURI: "http://169.254.170.23/v1/credentials", RoleARN: "arn:aws:iam::123456789012:role/planted",
		Present: []string{"ANTHROPIC_API_KEY", "AWS_SECRET_ACCESS_KEY"}}
	_, got := r.play(t, nil, attack()...)
	if len(got) != 3 {
		t.Fatalf("%d detections", len(got))
	}
	for name, want := range map[string]string{
		"role_arn":         "arn:aws:iam::123456789012:role/team/cart (pod specification)",
		"token_file":       "/var/run/secrets/eks.amazonaws.com/serviceaccount/token (pod specification)",
		"pod_identity":     "credentials by association (container start)",
		"secrets_present":  "ANTHROPIC_API_KEY, AWS_SECRET_ACCESS_KEY (container start)",
		"credential_files": "/root/.aws/credentials",
	} {
		if v := got[2].Evidence[name]; v != want {
			t.Errorf("%s: %q, want %q", name, v, want)
		}
	}
}
