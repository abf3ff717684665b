package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"tourniquet.dev/tourniquet/sensor/rule"
)

const ownRule = `
rule: own-rule
title: Own
severity: low
confidence: 50
on: [open]
when: event.path == '/own'
watch: {files: [own]}
attacks: [{technique: T1552.001, tactic: TA0006}]
`

func TestChangedRulesAreTakenAndBadOnesRefused(t *testing.T) {
	dir := t.TempDir()
	write := func(text string) {
		if err := os.WriteFile(filepath.Join(dir, "own.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b, err := openRules(rulesConfig{Folder: dir, Modes: map[string]rule.Mode{"server-shell": rule.Off}})
	if err != nil {
		t.Fatal(err)
	}
	var asked rule.Watch
	look := func(want bool) error {
		t.Helper()
		changed, err := b.look(func(w rule.Watch) error { asked = w; return nil })
		if changed != want {
			t.Errorf("changed %v, want %v: %v", changed, want, err)
		}
		return err
	}
	holds := func() bool {
		found, err := b.set.Match(rule.Event{Kind: rule.Open, Path: "/own", Read: true}, rule.Subject{})
		return err == nil && len(found) == 1
	}
	if err := look(false); err != nil || holds() {
		t.Error("nothing has changed", err)
	}
	write(ownRule)
	if err := look(true); err != nil || !holds() || !slices.Contains(asked.Files, "own") {
		t.Error("the new rule is not there", err, asked.Files)
	}
	write(ownRule + "oops: 1\n")
	if err := look(false); err == nil || !holds() {
		t.Error("a bad file was taken, or the old rule is gone", err)
	}
	if err := look(false); err != nil {
		t.Error("the same bad file was said twice", err)
	}
	if b.reloaded.Load() != 1 || b.refused.Load() != 1 {
		t.Error(b.reloaded.Load(), b.refused.Load())
	}
	for _, r := range b.set.Rules() {
		if r.Rule == "server-shell" && r.Mode != rule.Off {
			t.Error("the configured mode was lost")
		}
	}
}
