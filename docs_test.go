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

// TestGuaranteesNameTheirTests: each promise of docs/guarantees.md names test functions that exist, one of them with the
// promise's number in its name.
func TestGuaranteesNameTheirTests(t *testing.T) {
	text, err := os.ReadFile("docs/guarantees.md")
	if err != nil {
		t.Fatal(err)
	}
	exist := testFunctions(t)
	rows := regexp.MustCompile(`(?m)^\| (I[0-9]+) \|.*\| (.*) \|$`).FindAllStringSubmatch(string(text), -1)
	if len(rows) < 15 {
		t.Fatalf("only %d promises found: the test looks past the table", len(rows))
	}
	for _, row := range rows {
		numbered := false
		for _, name := range regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9]+)`").FindAllStringSubmatch(row[2], -1) {
			if !exist[name[1]] {
				t.Errorf("%s names %s, which does not exist", row[1], name[1])
			}
			numbered = numbered || regexp.MustCompile(row[1]+`([^0-9]|$)`).MatchString(name[1])
		}
		if !numbered {
			t.Errorf("%s names no test with its number", row[1])
		}
	}
}

// testFunctions are the test and fuzz functions of all modules.
func testFunctions(t *testing.T) map[string]bool {
	t.Helper()
	form := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)[A-Za-z0-9]+)\(`)
	out := map[string]bool{}
	err := filepath.WalkDir(".", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() && strings.HasPrefix(d.Name(), ".") && path != "." {
			if err != nil {
				return err
			}
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(path)
		for _, m := range form.FindAllStringSubmatch(string(text), -1) {
			out[m[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
