package fault_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"tourniquet.dev/tourniquet/internal/sys/fault"
)

// Every name at a call site is declared, so that "crash points exercised / declared" can be counted.
func TestEveryPointIsDeclared(t *testing.T) {
	placed := map[string]bool{}
	for _, name := range placedPoints(t, "../../..") {
		base, moment, found := strings.Cut(name, "/")
		if !slices.Contains(fault.Names(), base) || found && !slices.Contains([]string{"before", "during", "after"}, moment) {
			t.Errorf("%q is not declared in fault.Names", name)
		}
		placed[base] = true
	}
	t.Logf("crash points placed / declared: %d / %d", len(placed), len(fault.Names()))
	if len(placed) == 0 {
		t.Error("no point is placed: is the scan broken?")
	}
}

func placedPoints(t *testing.T, root string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && strings.HasPrefix(d.Name(), ".") && path != root {
			return filepath.SkipDir
		}
		if d.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(src), "fault.Point(") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, src, 0)
		if err != nil {
			return nil // its own package's tests will tell
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) != 1 {
				return true
			}
			if sel, ok := call.Fun.(*ast.SelectorExpr); ok && sel.Sel.Name == "Point" {
				if pkg, ok := sel.X.(*ast.Ident); ok && pkg.Name == "fault" {
					lit, ok := call.Args[0].(*ast.BasicLit)
					if !ok {
						t.Errorf("%s: a point's name is a literal", path)
						return true
					}
					name, _ := strconv.Unquote(lit.Value)
					names = append(names, name)
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestNamesAreDistinct(t *testing.T) {
	names := fault.Names()
	slices.Sort(names)
	if len(slices.Compact(slices.Clone(names))) != len(names) {
		t.Error("a name is declared twice")
	}
}

// A process built with the tag dies at the armed point, the time that it is armed for, and not before.
func TestArmedPointKills(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	build := exec.Command("go", "build", "-tags", "faultpoints", "-o", program, "./testdata/program")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for name, tc := range map[string]struct {
		arm, want string
		killed    bool
	}{
		"not armed":            {"", "0 1 2 done", false},
		"armed":                {"spool.append/after", "0", true},
		"armed for later":      {"spool.append/after#3", "0 1 2", true},
		"armed past the end":   {"spool.append/after#4", "0 1 2 done", false},
		"armed somewhere else": {"spool.append/before", "0 1 2 done", false},
	} {
		t.Run(name, func(t *testing.T) {
			log := filepath.Join(t.TempDir(), "log")
			cmd := exec.Command(program)
			cmd.Env = append(os.Environ(), "TOURNIQUET_FAULT="+tc.arm, "TOURNIQUET_FAULT_LOG="+log)
			out, _ := cmd.Output()
			status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
			if !ok || status.Signaled() != tc.killed {
				t.Errorf("status %v, want killed %v", cmd.ProcessState, tc.killed)
			}
			if got := strings.Join(strings.Fields(string(out)), " "); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			if data, err := os.ReadFile(log); err != nil || !strings.HasPrefix(string(data), "spool.append/after\n") {
				t.Errorf("log %q, %v", data, err)
			}
		})
	}
}
