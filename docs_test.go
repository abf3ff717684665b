package tourniquet_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDocumentsNameWhatExists: every path and make target that a document names is there.
func TestDocumentsNameWhatExists(t *testing.T) {
	makefile, err := os.ReadFile("Makefile")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	path := regexp.MustCompile("`([a-z.]+/[A-Za-z0-9_./-]+)`|\\]\\(([A-Za-z0-9_./-]+)\\)")
	target := regexp.MustCompile("make ([a-z-]+)`?")
	named := 0
	for _, f := range append(files, "README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md") {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range path.FindAllStringSubmatch(string(text), -1) {
			name := m[1] + m[2]
			if strings.HasPrefix(name, "kubernetes/") || strings.HasPrefix(name, "aws/") || strings.HasPrefix(name, "node/") {
				continue // an action
			}
			named++
			_, here := os.Stat(name)
			_, beside := os.Stat(filepath.Join(filepath.Dir(f), name))
			if here != nil && beside != nil {
				t.Errorf("%s names %s, which does not exist", f, name)
			}
		}
		for _, m := range target.FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(string(text), "`"+m[0]) && !regexp.MustCompile(`(?m)^`+m[1]+`:`).Match(makefile) {
				t.Errorf("%s names make %s, which does not exist", f, m[1])
			}
		}
	}
	if named < 10 {
		t.Errorf("only %d paths found: the test looks past the documents", named)
	}
}
