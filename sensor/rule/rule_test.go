package rule_test

import (
	"net/netip"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/sensor/rule"
)

var (
	server  = rule.Process{PID: 10, StartNS: 1, Comm: "checkout", Exe: "/app/checkout"}
	shell   = rule.Process{PID: 20, PPID: 10, StartNS: 2, Comm: "sh", Exe: "/usr/bin/dash"}
	cat     = rule.Process{PID: 30, PPID: 20, StartNS: 3, Comm: "cat", Exe: "/usr/bin/cat"}
	curl    = rule.Process{PID: 31, PPID: 20, StartNS: 4, Comm: "curl", Exe: "/usr/bin/curl"}
	worker  = rule.Process{PID: 11, PPID: 10, StartNS: 5, Comm: "checkout", Exe: "/app/checkout"}
	entered = rule.Process{PID: 40, PPID: 7, StartNS: 6, Comm: "bash", Exe: "/bin/bash"}
	nginx   = rule.Process{PID: 50, PPID: 10, StartNS: 7, Comm: "nginx", Exe: "/usr/sbin/nginx"}

	shop = detection.Workload{Cluster: "east", Namespace: "shop", Pod: "checkout-1", PodUID: "u1"}
)

func by(p rule.Process, ancestors ...rule.Process) rule.Subject {
	return rule.Subject{Process: p, Ancestors: ancestors, Init: server, Workload: shop}
}

func open(path string) rule.Event { return rule.Event{Kind: rule.Open, Path: path, Read: true} }

func connect(addr string, port uint16) rule.Event {
	return rule.Event{Kind: rule.Connect, Addr: netip.MustParseAddr(addr), Port: port}
}

func names(found []*detection.Detection) []string {
	var out []string
	for _, d := range found {
		out = append(out, d.Rule)
	}
	return out
}

func bundled(t *testing.T) *rule.Set {
	t.Helper()
	s, err := rule.Bundled()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRuleHoldsOrNot(t *testing.T) {
	failed, written := open("/root/.aws/credentials"), open("/root/.aws/credentials")
	failed.Failed, written.Read, written.Write = true, false, true
	applet := rule.Process{PID: 60, PPID: 10, StartNS: 8, Comm: "cat", Exe: "/bin/busybox"}
	box := rule.Process{PID: 10, StartNS: 1, Comm: "httpd", Exe: "/bin/busybox"}

	for name, tc := range map[string]struct {
		event rule.Event
		who   rule.Subject
		want  []string
	}{
		"cat reads the AWS credentials":                             {open("/root/.aws/credentials"), by(cat, shell, server), []string{"aws-credentials-read"}},
		"relative home":                                             {open(".aws/credentials"), by(cat, shell, server), []string{"aws-credentials-read"}},
		"SSO cache":                                                 {open("/home/a/.aws/sso/cache/0a.json"), by(cat, shell, server), []string{"aws-credentials-read"}},
		"the main program reads its credentials":                    {open("/root/.aws/credentials"), by(server), nil},
		"a worker of the main program reads them":                   {open("/root/.aws/credentials"), by(worker, server), nil},
		"credentials that could not be opened":                      {failed, by(cat, shell, server), nil},
		"credentials that are written":                              {written, by(cat, shell, server), nil},
		"a file with a similar name":                                {open("/srv/x.aws/credentials"), by(cat, shell, server), nil},
		"one toolbox, another program":                              {open("/root/.aws/credentials"), rule.Subject{Process: applet, Ancestors: []rule.Process{box}, Init: box}, []string{"aws-credentials-read"}},
		"service account token":                                     {open("/run/secrets/kubernetes.io/serviceaccount/..2026_11_23_04_05_06.123/token"), by(cat, shell, server), []string{"service-account-token-read"}},
		"service account token, volume path only":                   {open("/..2026_11_23_04_05_06.123/token"), by(cat, shell, server), []string{"service-account-token-read"}},
		"IRSA token":                                                {open("/var/run/secrets/eks.amazonaws.com/serviceaccount/token"), by(cat, shell, server), []string{"service-account-token-read"}},
		"the token read by the main program":                        {open("/run/secrets/kubernetes.io/serviceaccount/token"), by(server), nil},
		"the namespace file beside the token":                       {open("/run/secrets/kubernetes.io/serviceaccount/namespace"), by(cat, shell, server), nil},
		"kubeconfig":                                                {open("/root/.kube/config"), by(cat, shell, server), []string{"kubeconfig-read"}},
		"the main program's kubeconfig":                             {open("/root/.kube/config"), by(server), nil},
		"private key":                                               {open("/root/.ssh/id_ed25519"), by(cat, shell, server), []string{"private-key-read"}},
		"/home/a/.aws/config":                                       {open("/home/a/.aws/config"), by(cat, shell, server), []string{"aws-credentials-read"}},
		"/root/.aws/cli/cache/1.json":                               {open("/root/.aws/cli/cache/1.json"), by(cat, shell, server), []string{"aws-credentials-read"}},
		"/root/.ssh/id_rsa":                                         {open("/root/.ssh/id_rsa"), by(cat, shell, server), []string{"private-key-read"}},
		"/root/.config/gcloud/credentials.db":                       {open("/root/.config/gcloud/credentials.db"), by(cat, shell, server), []string{"private-key-read"}},
		"/root/.config/gcloud/application_default_credentials.json": {open("/root/.config/gcloud/application_default_credentials.json"), by(cat, shell, server), []string{"private-key-read"}},
		"/root/.azure/accessTokens.json":                            {open("/root/.azure/accessTokens.json"), by(cat, shell, server), []string{"private-key-read"}},
		"/root/.azure/msal_token_cache.json":                        {open("/root/.azure/msal_token_cache.json"), by(cat, shell, server), []string{"private-key-read"}},
		"/root/.docker/config.json":                                 {open("/root/.docker/config.json"), by(cat, shell, server), []string{"private-key-read"}},
		"/root/.git-credentials":                                    {open("/root/.git-credentials"), by(cat, shell, server), []string{"private-key-read"}},
		"/root/.netrc":                                              {open("/root/.netrc"), by(cat, shell, server), []string{"private-key-read"}},
		"/root/.pgpass":                                             {open("/root/.pgpass"), by(cat, shell, server), []string{"private-key-read"}},
		"/root/.vault-token":                                        {open("/root/.vault-token"), by(cat, shell, server), []string{"private-key-read"}},
		"/etc/kubernetes/admin.conf":                                {open("/etc/kubernetes/admin.conf"), by(cat, shell, server), []string{"kubeconfig-read"}},
		"/etc/kubernetes/kubelet.conf":                              {open("/etc/kubernetes/kubelet.conf"), by(cat, shell, server), []string{"kubeconfig-read"}},
		"/etc/kubernetes/super-admin.conf":                          {open("/etc/kubernetes/super-admin.conf"), by(cat, shell, server), []string{"kubeconfig-read"}},
		"/etc/kubeconfig":                                           {open("/etc/kubeconfig"), by(cat, shell, server), []string{"kubeconfig-read"}},
		"public key":                                                {open("/root/.ssh/id_ed25519.pub"), by(cat, shell, server), nil},
		"metadata service":                                          {connect("169.254.169.254", 80), by(curl, shell, server), []string{"metadata-access"}},
		"metadata service in its mapped form":                       {connect("::ffff:169.254.170.2", 80), by(curl, shell, server), []string{"metadata-access"}},
		"metadata service of a pod":                                 {connect("169.254.170.23", 80), by(curl, shell, server), []string{"metadata-access"}},
		"metadata service by IPv6":                                  {connect("fd00:ec2::254", 80), by(curl, shell, server), []string{"metadata-access"}},
		"metadata service asked by the main":                        {connect("169.254.169.254", 80), by(server), nil},
		"another link-local address":                                {connect("169.254.1.1", 80), by(curl, shell, server), nil},
		"the main program spawns a shell":                           {rule.Event{Kind: rule.Exec, Path: shell.Exe}, by(shell, server), []string{"server-shell"}},
		"a known server spawns a shell":                             {rule.Event{Kind: rule.Exec, Path: shell.Exe}, by(shell, nginx, server), []string{"server-shell"}},
		"a shell spawns a shell":                                    {rule.Event{Kind: rule.Exec, Path: entered.Exe}, by(entered, shell, server), nil},
		"a shell enters from outside":                               {rule.Event{Kind: rule.Exec, Path: entered.Exe}, by(entered), nil},
		"a tool is spawned by the main program":                     {rule.Event{Kind: rule.Exec, Path: curl.Exe}, by(curl, server), nil},
		"the container starts with a shell":                         {rule.Event{Kind: rule.Exec, Path: shell.Exe}, rule.Subject{Process: shell, Init: shell}, nil},
		"egress of a tree without a credential":                     {connect("203.0.113.9", 443), by(curl, shell, server), nil},
		"the first process's shell spawns the tool":                 {open("/root/.aws/credentials"), rule.Subject{Process: cat, Ancestors: []rule.Process{shell}, Init: shell}, []string{"aws-credentials-read"}},
	} {
		t.Run(name, func(t *testing.T) {
			found, err := bundled(t).Match(tc.event, tc.who)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, names(found)); diff != "" {
				t.Error(diff)
			}
			if len(found) > 0 && !bundled(t).Watch().Tells(tc.event) {
				t.Error("the kernel would not tell of it")
			}
		})
	}
}

func TestEgressAfterCredentialAccess(t *testing.T) {
	at := func(e rule.Event, d time.Duration) rule.Event { e.KernelNS = uint64(time.Hour + d); return e }
	out := connect("203.0.113.9", 443)
	for name, tc := range map[string]struct {
		first rule.Event
		by    rule.Subject
		then  rule.Event
		who   rule.Subject
		want  []string
	}{
		"another child of the same shell":   {open("/root/.aws/credentials"), by(cat, shell, server), at(out, time.Second), by(curl, shell, server), []string{"egress-after-credential-access"}},
		"the shell itself":                  {connect("169.254.169.254", 80), by(curl, shell, server), at(out, time.Second), by(shell, server), []string{"egress-after-credential-access"}},
		"the main program's own traffic":    {open("/root/.aws/credentials"), by(cat, shell, server), at(out, time.Second), by(server), nil},
		"another tree of the container":     {open("/root/.aws/credentials"), by(cat, shell, server), at(out, time.Second), by(entered), nil},
		"the main program had a credential": {open("/root/.aws/credentials"), by(server), at(out, time.Second), by(curl, shell, server), nil},
		"a local address":                   {open("/root/.aws/credentials"), by(cat, shell, server), at(connect("127.0.0.1", 443), time.Second), by(curl, shell, server), nil},
		"a name look-up":                    {open("/root/.aws/credentials"), by(cat, shell, server), at(connect("10.0.0.10", 53), time.Second), by(curl, shell, server), nil},
		"the metadata service":              {open("/root/.aws/credentials"), by(cat, shell, server), at(connect("169.254.169.254", 80), time.Second), by(curl, shell, server), []string{"metadata-access"}},
		"long afterwards":                   {open("/root/.aws/credentials"), by(cat, shell, server), at(out, 11*time.Minute), by(curl, shell, server), nil},
		"a PID used again":                  {open("/root/.aws/credentials"), by(cat, shell, server), at(out, time.Second), by(rule.Process{PID: shell.PID, StartNS: 99, Exe: "/x"}, server), nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := bundled(t)
			if _, err := s.Match(at(tc.first, 0), tc.by); err != nil {
				t.Fatal(err)
			}
			found, err := s.Match(tc.then, tc.who)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, names(found)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestDetectionTellsWhatHappened(t *testing.T) {
	e := open("/root/.aws/credentials")
	e.Time, e.KernelNS, e.SeenNS = time.Date(2026, 11, 23, 4, 5, 6, 789_000_000, time.UTC), 7, 9
	found, err := bundled(t).Match(e, by(cat, shell, server))
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	want := &detection.Detection{
		V: 1, Time: e.Time, KernelNS: 7, SeenNS: 9, Rule: "aws-credentials-read",
		Title: "AWS credentials file read by an unexpected process", Severity: detection.High, Confidence: 85,
		Attacks: []detection.Attack{{TechniqueID: "T1552.001", TacticID: "TA0006", Version: "19"}}, Workload: &shop,
		Processes: []detection.Process{
			{PID: 30, PPID: 20, Comm: "cat", Exe: "/usr/bin/cat"}, {PID: 20, PPID: 10, Comm: "sh", Exe: "/usr/bin/dash"},
			{PID: 10, Comm: "checkout", Exe: "/app/checkout"},
		},
		Evidence: map[string]string{"path": "/root/.aws/credentials", "main_program": "/app/checkout"},
	}
	if diff := cmp.Diff(want, found[0]); diff != "" {
		t.Error(diff)
	}
	who := by(cat, shell)
	who.Init = rule.Process{}
	if found, err = bundled(t).Match(e, who); err != nil || found[0].Confidence != 55 {
		t.Errorf("without a first process: confidence %d, error %v, want 55", found[0].Confidence, err)
	}
}

const valid = `
rule: a-rule
title: A rule
severity: low
confidence: 50
on: [open]
when: "true"
attacks: [{technique: T1552.001, tactic: TA0006}]
`

func TestBadRuleIsRefused(t *testing.T) {
	for name, tc := range map[string]struct{ replace, with, want string }{
		"unknown key":           {"title:", "titel:", "titel"},
		"unknown variable":      {`"true"`, "event.pth == ''", "undeclared reference"},
		"wrong type":            {`"true"`, "event.port == 'x'", "no matching overload"},
		"not a bool":            {`"true"`, "event.path", "want a bool"},
		"unknown kind":          {"[open]", "[opened]", "on[0]"},
		"unknown severity":      {"severity: low", "severity: awful", "severity"},
		"unknown technique":     {"T1552.001", "T9999", "attacks[0]"},
		"tactic of another one": {"TA0006", "TA0002", "attacks[0]"},
		"long expression":       {`"true"`, `"'` + strings.Repeat("x", 5000) + `' == ''"`, "longer than"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := rule.Decode([]byte(strings.Replace(valid, tc.replace, tc.with, 1)))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one with %q", err, tc.want)
			}
		})
	}
	if _, err := rule.Decode([]byte(valid)); err != nil {
		t.Error(err)
	}
	twice := fstest.MapFS{"r/a.yaml": {Data: []byte(valid)}, "r/b.yaml": {Data: []byte(valid)}}
	if _, err := rule.Load(twice, "r"); err == nil || !strings.Contains(err.Error(), "stands twice") {
		t.Errorf("two rules of one name: %v", err)
	}
}

func TestCostlyRuleEndsAndOthersGoOn(t *testing.T) {
	each := func(v, inner string) string { return "[1,2,3,4,5,6,7,8,9].all(" + v + ", " + inner + ")" }
	nested := each("a", each("b", each("c", each("d", each("e", "event.port + a + b + c + d + e > -1")))))
	costly := strings.Replace(valid, `"true"`, `"`+nested+`"`, 1)
	files := fstest.MapFS{"r/a.yaml": {Data: []byte(costly)}, "r/b.yaml": {Data: []byte(strings.Replace(valid, "a-rule", "b-rule", 1))}}
	s, err := rule.Load(files, "r")
	if err != nil {
		t.Fatal(err)
	}
	found, err := s.Match(open("/x"), by(cat, shell, server))
	if err == nil || !strings.Contains(err.Error(), "cost") {
		t.Errorf("error %v, want the cost limit's", err)
	}
	if diff := cmp.Diff([]string{"b-rule"}, names(found)); diff != "" {
		t.Error(diff)
	}
}

func TestLongPathsStayBelowTheCostLimit(t *testing.T) {
	for _, e := range []rule.Event{open(strings.Repeat("/serviceaccount", 280) + "/token"), open(strings.Repeat("/.ssh", 800) + "/id_rsa"), open("/x" + strings.Repeat("/etc/cron.d", 300) + "/x"), connect("203.0.113.9", 1), {Kind: rule.Exec, Path: shell.Exe}} {
		if _, err := bundled(t).Match(e, by(shell, nginx, server)); err != nil {
			t.Error(err)
		}
	}
}

func BenchmarkMatch(b *testing.B) {
	s, err := rule.Bundled()
	if err != nil {
		b.Fatal(err)
	}
	e, who := open("/usr/lib/x86_64-linux-gnu/libc.so.6"), by(cat, shell, server)
	for b.Loop() {
		if _, err := s.Match(e, who); err != nil {
			b.Fatal(err)
		}
	}
}
