package rule_test

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"tourniquet.dev/tourniquet/sensor/rule"
)

func packs(t *testing.T, dir string, text map[string]string) ([]*rule.Pack, error) {
	t.Helper()
	files := fstest.MapFS{dir: {Mode: 0o755 | 1<<31}}
	for name, data := range text {
		files[dir+"/"+name] = &fstest.MapFile{Data: []byte(data)}
	}
	return rule.ReadPacks(files, dir)
}

// TestBundledCases also wants, for each bundled rule, a case in which it holds and one in which nothing does.
func TestBundledCases(t *testing.T) {
	all, err := rule.BundledPacks()
	if err != nil {
		t.Fatal(err)
	}
	rules, err := rule.Compile(all)
	if err != nil {
		t.Fatal(err)
	}
	holds, silent := map[string]bool{}, map[rule.Kind]int{}
	for _, p := range all {
		for _, c := range p.Tests {
			if o := c.Run(rules); !o.OK {
				t.Errorf("%s: want %v, got %v %s", o.Case, o.Want, o.Got, o.Err)
			}
			for _, name := range c.Want {
				holds[name] = true
			}
			if len(c.Want) == 0 {
				silent[c.Event.Kind]++
			}
		}
	}
	for _, r := range rules {
		if !holds[r.Rule] || !slices.ContainsFunc(r.On, func(k rule.Kind) bool { return silent[k] > 0 }) {
			t.Errorf("rule %s has no case in which it holds, or its kind none in which it does not", r.Rule)
		}
	}
}

func TestPackErrorsNameThePlace(t *testing.T) {
	head := "rules:\n  - rule: a-rule\n    title: A\n    severity: low\n    confidence: 5\n    on: [open]\n    attacks: [{technique: T1041, tactic: TA0010}]\n"
	for name, tc := range map[string]struct{ text, want string }{
		"misspelt variable in a block":  {head + "    when: |\n      event.read\n      && event.pth == ''\n", "x.yaml: line 10:15: undeclared reference to 'event.pth'"},
		"misspelt variable in quotes":   {head + "    when: \"event.pth == ''\"\n", "x.yaml: line 8:17: undeclared"},
		"misspelt macro":                {head + "    when: strangr()\n", "line 8:18: undeclared reference to 'strangr'"},
		"misspelt key":                  {head + "    wehn: \"true\"\n", "line 8"},
		"a macro that calls itself":     {"macros: {one_a: two_b(), two_b: one_a()}\n", "a cycle: one_a → two_b → one_a"},
		"a wrong type in a macro":       {"macros:\n  one_a: event.port == 'x'\n", "line 2:21: found no matching overload"},
		"lists that include each other": {"lists: {aaa: [\"@bbb\"], bbb: [\"@aaa\"]}\n", "include each other"},
		"no such list":                  {"lists: {aaa: [\"@nosuch\"]}\n", `no list is named "nosuch"`},
		"a bad mode":                    {head + "    when: \"true\"\n    mode: loud\n", "mode:"},
		"a bad address":                 {head + "    when: \"true\"\n    watch: {addresses: [x]}\n", "not an address"},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := packs(t, "r", map[string]string{"x.yaml": tc.text})
			if err == nil {
				_, err = rule.Compile(p)
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one with %q", err, tc.want)
			}
		})
	}
}

const user = `
lists:
  metadata: ["@metadata", 192.0.2.1]
  miners: [ourminer]
macros: {stranger: "true"}
`

func TestLaterPackAddsAndReplaces(t *testing.T) {
	base, err := rule.BundledPacks()
	if err != nil {
		t.Fatal(err)
	}
	own, err := packs(t, "u", map[string]string{"own.yaml": user})
	if err != nil {
		t.Fatal(err)
	}
	rules, err := rule.Compile(base, own)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]rule.Case{
		"the list is replaced":  {Event: rule.Act{Kind: rule.Exec, By: "/opt/ourminer"}, Want: []string{"miner-run"}},
		"its old items are out": {Event: rule.Act{Kind: rule.Exec, By: "/opt/xmrig"}},
		"the macro is replaced": {Event: rule.Act{Kind: rule.Connect, Addr: "10.0.0.1", Port: 10250, By: "main"}, Want: []string{"kubelet-access"}},
	} {
		if o := c.Run(rules); !o.OK {
			t.Errorf("%s: want %v, got %v %s", name, o.Want, o.Got, o.Err)
		}
	}
	s, err := rule.New(rules)
	if err != nil {
		t.Fatal(err)
	}
	var addresses []string
	for _, a := range s.Watch().Addresses {
		addresses = append(addresses, a.String())
	}
	if !slices.Contains(addresses, "192.0.2.1") || !slices.Contains(addresses, "169.254.169.254") {
		t.Errorf("watched: %v", addresses)
	}
}

func TestModesDecideWhatBecomesOfIt(t *testing.T) {
	s := bundled(t)
	rules := s.Rules()
	for mode, want := range map[rule.Mode]int{rule.Off: 0, rule.Observe: 0, rule.Detect: 1} {
		if err := s.Replace(rules, map[string]rule.Mode{"aws-credentials-read": mode}); err != nil {
			t.Fatal(err)
		}
		before := s.Observed()
		found, err := s.Match(open("/root/.aws/credentials"), by(cat, shell, server))
		if err != nil || len(found) != want || (s.Observed() > before) != (mode == rule.Observe) {
			t.Errorf("%s: %v, %v, observed %d", mode, names(found), err, s.Observed()-before)
		}
		if slices.Contains(s.Watch().Files, "credentials") != (mode != rule.Off) {
			t.Errorf("%s: the kernel is asked for %v", mode, s.Watch().Files)
		}
	}
	if err := s.Replace(rules, map[string]rule.Mode{"nosuch": rule.Off}); err == nil {
		t.Error("a mode of no rule was taken")
	}
}

// TestReplaceLosesNoEvent: while rules are exchanged in a loop, each event is judged, by the old ones or the new, and what
// is remembered of a process tree stays.
func TestReplaceLosesNoEvent(t *testing.T) {
	s := bundled(t)
	rules := s.Rules()
	if _, err := s.Match(open("/root/.aws/credentials"), by(cat, shell, server)); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var reload sync.WaitGroup
	reload.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := s.Replace(rules, nil); err != nil {
				t.Error(err)
			}
			if err := s.Replace(nil, nil); err == nil {
				t.Error("a set without rules was taken")
			}
		}
	})
	const events = 20_000
	judged := 0
	for i := range events {
		e := connect("203.0.113.9", 443)
		e.KernelNS = uint64(time.Duration(i))
		found, err := s.Match(e, by(curl, shell, server))
		if err != nil {
			t.Fatal(err)
		}
		judged += len(found)
	}
	close(stop)
	reload.Wait()
	if judged != events {
		t.Errorf("%d of %d events judged", judged, events)
	}
}
