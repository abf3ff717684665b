package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/internal/canonical"
	"tourniquet.dev/tourniquet/internal/risk"
	"tourniquet.dev/tourniquet/workflows"
)

// TestPlanIsShownAsNativeFiles: from the store alone, on the terminal and as files that are never replaced.
func TestPlanIsShownAsNativeFiles(t *testing.T) {
	l := newLab(t)
	digest, err := l.full.Digest()
	l.must(err)
	folder := t.TempDir()
	code, out, errs := l.run("plan", "show", digest, "--output", folder)
	if code != codeOK || !strings.Contains(out, digest) || !strings.Contains(out, "step 0: ") {
		t.Fatalf("code %d\n%s%s", code, out, errs)
	}
	files, err := filepath.Glob(filepath.Join(folder, "step-*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files were written: %v", err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil || len(data) == 0 || !strings.Contains(out, filepath.Base(f)) {
			t.Errorf("%s: %v", f, err)
		}
	}
	if code, _, _ := l.run("plan", "show", digest, "--output", folder); code != codeUsage {
		t.Errorf("files were replaced: code %d", code)
	}
	for args, want := range map[string]int{"sha256:x": codeUsage, canonical.DigestOf([]byte("no such")): codeNotFound} {
		if code, _, _ := l.run("plan", "show", args); code != want {
			t.Errorf("plan show %s: code %d, want %d", args, code, want)
		}
	}
}

// TestViewsOfAnIncidentNameEachPlanOnce: a plan that was offered and put on is shown once.
func TestViewsOfAnIncidentNameEachPlanOnce(t *testing.T) {
	l := newLab(t)
	stop, err := l.stop.Digest()
	l.must(err)
	full, err := l.full.Digest()
	l.must(err)
	a := &app{configPath: l.path("config.yaml")}
	got, err := a.viewsOf(context.Background(), workflows.StateView{Options: []workflows.OptionView{{Plan: full}},
		Containments: []workflows.ContainmentChanged{{Plan: stop}, {Plan: full}}})
	if err != nil || len(got) != 2 || got[0].Digest != stop || got[1].Digest != full || len(got[1].Views) == 0 {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestReportIsReadable: figures, actions in the standards' words and the evidence; nothing in it drives a terminal.
func TestReportIsReadable(t *testing.T) {
	l := newLab(t)
	exposure := risk.Exposure{Currency: "EUR", P50: 4210, P90: 9950, Mean: 5005, Defaults: true}
	raw, err := canonical.Marshal(activities.Report{V: 1, IncidentID: "iabcdefghijkl", Outcome: "contained", At: start, Evidence: "sha256:e", Techniques: []string{"T1552.001"},
		Figures: &activities.Figures{Before: activities.Reached{Score: 71, Admin: true, Path: []string{"pod", "bucket\x1b[2J"}}, Waiting: exposure,
			Options: map[string]activities.OptionFigures{"everything": {After: activities.Reached{Score: 3}, Exposure: exposure, Taken: true}}},
		Actions: []activities.ActionTaken{{Action: "kubernetes/cut-rbac", Target: "service-account a/b", State: "verified", D3FEND: []string{"D3-APA"}, CSF: []string{"RS.MI-01"}, NHI: []string{"NHI5:2025"}, OCSFClass: 7001, OCSFActivity: 1}},
		State:   []byte(`{}`)})
	l.must(err)
	code, out, errs := l.run("incidents", "report", l.put(raw))
	if code != codeOK || strings.Contains(out, "\x1b") {
		t.Fatalf("code %d\n%q%s", code, out, errs)
	}
	for _, want := range []string{"evidence sha256:e", "before: 71 of 100, an administrator's rights", "leaves 3 of 100, costs 50.05 EUR (by default values, nobody's own), taken",
		"D3FEND D3-APA; NIST CSF 2.0 RS.MI-01; OWASP NHI NHI5:2025; OCSF class 7001, activity 1", "T1552.001"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	stop, err := l.stop.Digest()
	l.must(err)
	if code, _, _ := l.run("incidents", "report", stop); code != codeUsage {
		t.Errorf("a plan was read as a report: code %d", code)
	}
}
