package detection_test

import (
	"strings"
	"testing"
	"time"

	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/internal/identity"
)

func valid() *detection.Detection {
	return &detection.Detection{V: 1, UID: "boot:1", Time: time.Unix(1, 0), Source: detection.Source{Kind: detection.Sensor, Name: "n1", UID: "1"}, Rule: "r", Title: "t",
		Severity: detection.High, Attacks: []detection.Attack{{TechniqueID: "T1552.001", Version: "19"}},
		Workload: &detection.Workload{Cluster: "c", Namespace: "ns", Pod: "p", PodUID: "u", OwnerUID: "o"}}
}

func TestValidateNamesTheField(t *testing.T) {
	if err := valid().Validate(); err != nil {
		t.Fatalf("a valid detection: %v", err)
	}
	for field, change := range map[string]func(*detection.Detection){
		"uid:":                func(d *detection.Detection) { d.UID = "a b" },
		"time:":               func(d *detection.Detection) { d.Time = time.Time{} },
		"source.kind:":        func(d *detection.Detection) { d.Source.Kind = "me" },
		"severity:":           func(d *detection.Detection) { d.Severity = "bad" },
		"confidence:":         func(d *detection.Detection) { d.Confidence = 101 },
		"attacks[0]:":         func(d *detection.Detection) { d.Attacks[0].TechniqueID = "T1" },
		"title:":              func(d *detection.Detection) { d.Title = strings.Repeat("x", 201) },
		"workload.pod:":       func(d *detection.Detection) { d.Workload.Pod = "<!channel>" },
		"workload.owner_uid:": func(d *detection.Detection) { d.Workload.OwnerUID, d.Workload.PodUID = "", "" },
		"identities[0]: name:": func(d *detection.Detection) {
			d.Identities = []identity.Identity{{Kind: identity.AccessKey, Name: "x", Link: identity.Claimed}}
		},
	} {
		d := valid()
		change(d)
		if err := d.Validate(); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s got %v", field, err)
		}
	}
}

func TestKeyFollowsTheOwner(t *testing.T) {
	a, b := valid(), valid()
	b.Workload.PodUID, b.UID = "another pod of the same owner", "boot:2"
	if a.Key() != b.Key() {
		t.Error("two pods of one owner have two keys")
	}
	b.Workload.Cluster = "other"
	if a.Key() == b.Key() {
		t.Error("two clusters have one key")
	}
}

func TestRedactTakesSecretsAndKeepsWords(t *testing.T) {
	secrets := map[string]string{
		"AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY0": "wJalr",
		"Authorization: Bearer abcdefghijk":                             "abcdefghijk",
		"eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJzeXN0ZW0ifQ.c2ln":              "eyJzdWIi",
		"-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----":  "MIIE",
	}
	if path := "/tmp/TestKernelToSpool123/003/home/cart/aws/credentials"; detection.Clean(path, 200) != path {
		t.Errorf("a path became %q", detection.Clean(path, 200))
	}
	if got := detection.Clean("found wJalrXUtnFEMI/K7MDENG/bPxRfiCYzEXAMPLEKEY here", 200); got != "found <redacted> here" {
		t.Errorf("a bare secret key became %q", got)
	}
	d := valid()
	d.Title = "Shell read the projected token <!channel>\x1b[2J\u202e"
	d.Evidence = map[string]string{}
	for s := range secrets {
		d.Evidence[s[:10]] = s
		d.Processes = append(d.Processes, detection.Process{Args: []string{"curl", s, "--password", "hunter2"}})
	}
	d.Redact()
	if d.Title != "Shell read the projected token <!channel>\uFFFD[2J\uFFFD" {
		t.Errorf("title %q", d.Title)
	}
	for s, leak := range secrets {
		if got := d.Evidence[s[:10]]; strings.Contains(got, leak) {
			t.Errorf("evidence keeps %q", got)
		}
	}
	for _, p := range d.Processes {
		if joined := strings.Join(p.Args, " "); strings.Contains(joined, "hunter2") || strings.Contains(joined, "MIIE") || strings.Contains(joined, "wJalr") {
			t.Errorf("arguments keep %q", joined)
		}
	}
}

func FuzzClean(f *testing.F) {
	f.Add("plain", 10)
	f.Add("\xff\xfe eyJ", 3)
	f.Fuzz(func(t *testing.T, s string, n int) {
		n = 4 + n&1023
		if got := detection.Clean(s, n); len(got) > n || strings.ContainsAny(got, "\x00\x1b\n\r\u202e") {
			t.Errorf("Clean(%q, %d) = %q", s, n, got)
		}
	})
}
