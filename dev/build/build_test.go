package build_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tourniquet.dev/tourniquet/dev/build"
)

// module writes a module with a main package `hello` that runs body.
func module(t *testing.T, body string) string {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "go.mod"), "module example.test/m\n\ngo 1.26\n", 0o644)
	write(t, filepath.Join(dir, "hello", "main.go"), "package main\n\nfunc main() { "+body+" }\n", 0o644)
	t.Setenv("GOWORK", "off")
	return dir
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func TestGoBuildsARunnableBinaryAndNothingElse(t *testing.T) {
	dir, out := module(t, `print("hello")`), t.TempDir()
	if err := build.Go(t.Context(), dir, []string{"./..."}, out, nil); err != nil {
		t.Fatal(err)
	}
	said, err := exec.Command(filepath.Join(out, "hello")).CombinedOutput()
	if err != nil || string(said) != "hello" {
		t.Errorf("built binary said %q, %v", said, err)
	}
	entries, err := os.ReadDir(out)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if diff := cmp.Diff([]string{".lock", "hello"}, names); diff != "" {
		t.Errorf("folder of binaries (-want +got):\n%s", diff)
	}
}

func TestGoReportsWhatTheCompilerSaid(t *testing.T) {
	dir, out := module(t, `undefinedName()`), t.TempDir()
	err := build.Go(t.Context(), dir, []string{"./..."}, out, nil)
	if err == nil || !strings.Contains(err.Error(), "undefined: undefinedName") {
		t.Errorf("error of a broken build = %v, want the compiler's words", err)
	}
	if _, err := os.Stat(filepath.Join(out, "hello")); err == nil {
		t.Error("a broken build left a binary")
	}
}

func TestGoStopsWhenCancelled(t *testing.T) {
	dir := module(t, "")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := build.Go(ctx, dir, []string{"./..."}, t.TempDir(), nil); err == nil {
		t.Error("a cancelled build succeeded")
	}
}

func TestKubeTakesTheBinariesOfTheMachineOnlyWhenBothAreThere(t *testing.T) {
	assets, cache := t.TempDir(), t.TempDir()
	t.Setenv(build.AssetsEnv, assets)
	t.Setenv(build.CacheEnv, cache)
	write(t, filepath.Join(assets, "etcd"), "", 0o755)
	stopped, cancel := context.WithCancel(t.Context())
	cancel() // before it can build
	var said bytes.Buffer
	if dir, err := build.Kube(stopped, &said); err == nil {
		t.Errorf("Kube took %s, which lacks kube-apiserver", dir)
	}
	if !strings.Contains(said.String(), "does not hold etcd and kube-apiserver") {
		t.Errorf("Kube did not say why it passes over the folder: %q", said.String())
	}
	write(t, filepath.Join(assets, "kube-apiserver"), "", 0o755)
	if dir, err := build.Kube(t.Context(), nil); err != nil || dir != assets {
		t.Errorf("Kube = %q, %v; want %q", dir, err, assets)
	}
	if entries, _ := os.ReadDir(cache); len(entries) != 0 {
		t.Errorf("Kube used its cache: %v", entries)
	}
}
