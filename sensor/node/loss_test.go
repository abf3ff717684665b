package node_test

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"tourniquet.dev/tourniquet/internal/authz/authztest"
	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/internal/playbook"
	"tourniquet.dev/tourniquet/internal/sys/spool"
	"tourniquet.dev/tourniquet/sensor/node"
	"tourniquet.dev/tourniquet/sensor/probe"
)

func blind(cause probe.Cause, kind, class string, count uint64, at time.Duration) *probe.Blind {
	return &probe.Blind{Meta: probe.Meta{At: start + at}, Lost: kind, Class: class, Cause: cause, Count: count, From: start + at - time.Second/10}
}

// during runs a node while do goes on, and returns what it told of.
func during(t *testing.T, r *rig, change func(*node.Options), do func(*node.Node)) (node.Stats, []*detection.Detection) {
	t.Helper()
	r.source.stay, r.source.more = true, make(chan probe.Event)
	o := r.options(t)
	o.Now = time.Now
	if change != nil {
		change(&o)
	}
	n, err := node.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { ended <- n.Run(ctx) }()
	do(n)
	synctest.Wait()
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	return n.Stats(), r.told(t)
}

func TestFloodOfLossesIsFewDetectionsAndAllOfThemCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(time.Now())
		s, got := during(t, r, nil, func(*node.Node) {
			for i := range 600 { // a minute of it
				r.source.more <- blind(probe.CauseRingFull, "open", "telemetry", 7, time.Duration(i)*time.Second/10)
				r.source.more <- blind(probe.CauseMissedRun, "exec", "", 1, time.Duration(i)*time.Second/10)
				time.Sleep(time.Second / 10)
			}
		})
		sums, told := map[string]int{}, map[string]int{}
		for _, d := range got {
			count, err := strconv.Atoi(d.Evidence["count"])
			if err != nil || d.Rule != node.RuleLost || d.Workload.OwnerKind != "Node" || d.Workload.OwnerName != authztest.NodeName ||
				d.Workload.PodUID != "" || len(d.Identities) > 0 || d.Evidence["from"] == "" || d.Evidence["to"] == "" {
				t.Fatalf("%+v %+v", d, d.Workload)
			}
			key := d.Evidence["cause"] + " " + d.Evidence["kind"] + " " + string(d.Severity)
			sums[key], told[key] = sums[key]+count, told[key]+1
		}
		if diff := cmp.Diff(map[string]int{"ring-full open medium": 4200, "missed-run exec high": 600}, sums); diff != "" {
			t.Error(diff)
		}
		for _, d := range got {
			for _, book := range bundledPlaybooks(t) {
				if book.Takes(d) {
					t.Errorf("playbook %s takes %s", book.Playbook, d.Rule)
				}
			}
		}
		for key, n := range told {
			if n < 2 || n > 8 {
				t.Errorf("%s: %d detections", key, n)
			}
		}
		want := []node.Loss{{Cause: "missed-run", Kind: "exec", Count: 600}, {Cause: "ring-full", Kind: "open", Class: "telemetry", Count: 4200}}
		if diff := cmp.Diff(want, s.Losses); diff != "" {
			t.Error(diff)
		}
	})
}

// In = out + counted losses, with a queue of one and a spool that is full after three entries.
func TestNothingIsMissingUncounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(time.Now())
		r.source.events = container()
		for pid := range uint32(200) {
			r.source.events = append(r.source.events, execs(100+pid, 10, time.Second, "/bin/sh"), opens(100+pid, time.Second, "/root/.aws/credentials"),
				opens(100+pid, 2*time.Second, "/root/.aws/credentials"))
		}
		r.spool.small = 3
		var before node.Stats
		s, got := during(t, r, func(o *node.Options) { o.Queue = 1 }, func(n *node.Node) {
			time.Sleep(time.Minute)
			before = n.Stats()
			r.spool.mu.Lock()
			r.spool.small = 0
			r.spool.mu.Unlock()
			time.Sleep(time.Minute)
		})
		if before.Lost == 0 || before.Told != 0 || before.Matched != before.Coalesced+before.Spooled+before.Lost {
			t.Errorf("while it is full: %+v", before)
		}
		if s.Events != uint64(len(r.source.events)) || s.Matched != s.Coalesced+s.Spooled+s.Lost || s.Spooled+s.Told != uint64(len(got)) || s.Spooled != 3 {
			t.Errorf("%+v, %d in the spool", s, len(got))
		}
		lost, told := uint64(0), uint64(0)
		for _, l := range s.Losses {
			if l.Cause != "spool-full" || l.Class == "" {
				t.Errorf("%+v", l)
			}
			lost += l.Count
		}
		for _, d := range got[3:] {
			count, err := strconv.ParseUint(d.Evidence["count"], 10, 64)
			if err != nil || d.Rule != node.RulePressure || d.Severity != detection.High {
				t.Errorf("%+v", d)
			}
			told += count
		}
		if lost != s.Lost || told != s.Lost {
			t.Errorf("lost %d, counted %d, told of %d", s.Lost, lost, told)
		}
	})
}

// worn is a spool whose disk has lost records.
type worn struct {
	*memory
	lost uint64
}

func (w *worn) Stats() spool.Stats { return spool.Stats{Lost: w.lost} }

func TestWhatTheSpoolLostToDamageIsTold(t *testing.T) {
	r := newRig(time.Now())
	n, got := r.play(t, func(o *node.Options) { o.Spool = &worn{r.spool, 2} })
	if len(got) != 1 || got[0].Rule != node.RuleLost || got[0].Evidence["cause"] != "spool-damage" || got[0].Evidence["count"] != "2" {
		t.Errorf("%+v", got)
	}
	if s := n.Stats(); s.Told != 1 || s.Lost != 0 {
		t.Errorf("%+v", s)
	}
}

func TestLostSightNamesThePod(t *testing.T) {
	ring := func() probe.Event { return &probe.Uring{Meta: meta(20, 10, time.Second, "cart"), Entries: 8} }
	r := newRig(time.Now())
	n, got := r.play(t, nil, ring(), ring(), ring())
	if len(got) != 1 || got[0].Rule != node.RuleSight || got[0].Workload.Pod != "cart-7" || len(got[0].Processes) == 0 {
		t.Fatalf("%+v", got)
	}
	if s := n.Stats(); s.Uring != 3 || s.Coalesced != 2 {
		t.Errorf("%+v", s)
	}
	r = newRig(time.Now())
	if n, got := r.play(t, func(o *node.Options) { o.SeesRings = true }, ring()); len(got) != 0 || n.Stats().Uring != 1 {
		t.Errorf("told of what is seen: %+v", got)
	}
}

func bundledPlaybooks(t *testing.T) []*playbook.Playbook {
	t.Helper()
	files, err := filepath.Glob("../../deploy/playbooks/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	var all []*playbook.Playbook
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		p, err := playbook.Decode(data)
		if err != nil {
			t.Fatal(name, err)
		}
		all = append(all, p)
	}
	return all
}
