package stack

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tourniquet.dev/tourniquet/dev/build"
	"tourniquet.dev/tourniquet/internal/playbook"
	"tourniquet.dev/tourniquet/internal/sys/keys"
)

func TestKeysAndPlaybooksAreWhatEveryPartLoads(t *testing.T) {
	root, err := build.Root()
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		noNodeCut bool
		want      int // steps of the node in both playbooks
	}{"with the node's cut": {false, 2}, "without it": {true, 0}} {
		t.Run(name, func(t *testing.T) {
			s := &Stack{dir: t.TempDir(), opts: Options{Playbooks: filepath.Join(root, "deploy", "playbooks"), NoNodeCut: tc.noNodeCut}}
			for _, dir := range []string{"keys", "playbooks"} {
				if err := os.Mkdir(s.path(dir), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.makeTrust(); err != nil {
				t.Fatal(err)
			}
			if err := s.makeSecrets(); err != nil {
				t.Fatal(err)
			}
			trusted, err := keys.LoadTrust(s.path("trust.json"), s.path("root.pub"))
			if err != nil {
				t.Fatal(err)
			}
			books, err := keys.LoadPlaybooks(trusted, s.path("playbooks"))
			if err != nil || len(books) != 2 {
				t.Fatalf("%d playbooks, %v", len(books), err)
			}
			steps := 0
			for _, b := range books {
				for _, step := range append(append([]playbook.Step{}, b.Playbook.Stop...), b.Playbook.Fallback...) {
					if strings.HasPrefix(string(step.Action), "node/") {
						steps++
					}
				}
			}
			if steps != tc.want {
				t.Errorf("%d steps of the node, want %d", steps, tc.want)
			}
			if _, err := keys.LoadNodeSigner(s.key("node.key"), s.path("node.json")); err != nil {
				t.Error(err)
			}
		})
	}
}
