package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// build makes the guest's init and the test binaries, once for all kernels.
func (h *harness) build(ctx context.Context) error {
	if h.built != "" {
		return nil
	}
	dir, err := filepath.Abs(filepath.Join(h.cache, "tests"))
	if err != nil {
		return fmt.Errorf("name folder: %w", err)
	}
	steps := [][]string{{"build", "-o", filepath.Join(dir, "init"), "./test/kernels/guest"}}
	for _, p := range packages {
		steps = append(steps, []string{"test", "-c", "-o", filepath.Join(dir, strings.ReplaceAll(p, "/", "-")+".test"), "./" + p})
	}
	for _, args := range steps {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir, cmd.Env = h.root, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go %s: %w: %s", strings.Join(args, " "), err, out)
		}
	}
	h.built = dir
	return nil
}

var applets = []string{"sh", "cat", "true", "sleep", "id"}

// pack writes the initial file system: init, the tests with their files, a shell.
func (h *harness) pack(path string, k kernel) (err error) {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = firstOf(err, file.Close()) }()
	a := &archive{out: bufio.NewWriter(file)}
	for _, d := range []string{"bin", "proc", "sys", "dev", "tmp", "root", "etc", "tests", "modules", "run"} {
		a.dir(d)
	}
	a.copy("init", filepath.Join(h.built, "init"))
	a.copy("bin/busybox", k.busybox)
	a.copy("modules/"+filepath.Base(k.overlay), k.overlay)
	for _, name := range applets {
		a.link("bin/"+name, "busybox")
	}
	for _, p := range packages {
		flat := strings.ReplaceAll(p, "/", "-")
		a.dir("tests/" + flat)
		a.copy("tests/"+flat+"/"+flat+".test", filepath.Join(h.built, flat+".test"))
		a.tree("tests/"+flat+"/testdata", filepath.Join(h.root, p, "testdata"))
	}
	a.entry("TRAILER!!!", 0, nil)
	return firstOf(a.err, a.out.Flush())
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// archive writes the cpio format that the kernel unpacks ("newc"). The first error stays.
type archive struct {
	out  *bufio.Writer
	next int
	err  error
}

const modeDir, modeFile, modeLink = 0o040755, 0o100755, 0o120777

func (a *archive) entry(name string, mode uint32, data []byte) {
	if a.err != nil {
		return
	}
	a.next++
	_, a.err = fmt.Fprintf(a.out, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00", a.next, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0, name)
	a.pad(110 + len(name) + 1)
	if a.err == nil {
		_, a.err = a.out.Write(data)
	}
	a.pad(len(data))
}

func (a *archive) pad(written int) {
	if a.err == nil {
		_, a.err = io.WriteString(a.out, "\x00\x00\x00"[:(4-written%4)%4])
	}
}

func (a *archive) dir(name string) { a.entry(name, modeDir, nil) }

func (a *archive) link(name, to string) { a.entry(name, modeLink, []byte(to)) }

func (a *archive) copy(name, from string) {
	data, err := os.ReadFile(from)
	if a.err = firstOf(a.err, err); a.err == nil {
		a.entry(name, modeFile, data)
	}
}

// tree copies a folder, if there is one.
func (a *archive) tree(name, from string) {
	entries, err := os.ReadDir(from)
	if os.IsNotExist(err) {
		return
	}
	a.err = firstOf(a.err, err)
	a.dir(name)
	for _, e := range slices.Clip(entries) {
		if e.IsDir() {
			a.tree(name+"/"+e.Name(), filepath.Join(from, e.Name()))
		} else {
			a.copy(name+"/"+e.Name(), filepath.Join(from, e.Name()))
		}
	}
}
