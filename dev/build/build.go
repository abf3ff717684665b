// Package build compiles the binaries that the demo and the tests run, and keeps them: the product's own with Go, and
// etcd with the Kubernetes API server, once, with Kube. It downloads nothing but Go modules and never runs what it built.
// It is called by the demo, by package cluster and by tests.
package build

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// CacheEnv names the variable that moves the cache out of the repository.
const CacheEnv = "TOURNIQUET_CACHE"

// pulse is how often a build that takes its time says so.
const pulse = 10 * time.Second

// Root returns the repository's folder: the nearest one, from the working directory upwards, that holds go.work.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the repository: %w", err)
	}
	for at := dir; ; at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, "go.work")); err == nil {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("find the repository: no go.work in %s or above it", dir)
		}
	}
}

// Cache returns the folder for built binaries, and makes it: what TOURNIQUET_CACHE says, or .cache in the repository.
func Cache() (string, error) {
	dir := os.Getenv(CacheEnv)
	if dir == "" {
		root, err := Root()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(root, ".cache")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("find the build cache: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make the build cache: %w", err)
	}
	return dir, nil
}

// Go builds main packages of the module in moduleDir into outDir, each under its folder's name and without debug tables.
// What is up to date is not linked again. Callers in other processes wait for each other; what the folder holds is always whole.
func Go(ctx context.Context, moduleDir string, pkgs []string, outDir string, progress io.Writer) error {
	if err := os.MkdirAll(outDir, 0o755); err != nil {
		return fmt.Errorf("make folder for binaries: %w", err)
	}
	outDir, err := filepath.Abs(outDir)
	if err != nil {
		return fmt.Errorf("find folder for binaries: %w", err)
	}
	say := newTeller(progress, "build")
	unlock, err := lock(ctx, filepath.Join(outDir, ".lock"), say)
	if err != nil {
		return err
	}
	defer unlock()
	// The linker's output is renamed into place only from the same file system.
	tmp, err := os.MkdirTemp(outDir, ".tmp-")
	if err != nil {
		return fmt.Errorf("make folder for the linker: %w", err)
	}
	defer os.RemoveAll(tmp)
	say.say("building %s", strings.Join(pkgs, " "))
	return goBuild(ctx, say, command{
		dir: moduleDir, env: []string{"GOTMPDIR=" + tmp}, args: append([]string{"-ldflags", "-s -w", "-o", outDir + string(filepath.Separator)}, pkgs...),
	})
}

// A command is one call of `go build`.
type command struct {
	dir  string
	env  []string
	args []string
}

// goBuild runs one `go build` and tells, at each pulse, how long it has run and how far it is.
func goBuild(ctx context.Context, say *teller, c command) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-v", "-buildvcs=false"}, c.args...)...)
	cmd.Dir = c.dir
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0"), c.env...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // lets it remove its temporary files
	cmd.WaitDelay = 20 * time.Second
	out, in := io.Pipe()
	cmd.Stdout, cmd.Stderr = in, in
	var log buildLog
	var reading sync.WaitGroup
	reading.Go(func() { log.read(out) })
	stop := say.every(pulse, log.status)
	err := cmd.Run()
	_ = in.Close()
	reading.Wait()
	stop()
	if err != nil {
		return fmt.Errorf("go build in %s: %w", c.dir, errors.Join(err, context.Cause(ctx), log.failure()))
	}
	return nil
}

// A buildLog counts the packages that `go build -v` names and keeps what else it says.
type buildLog struct {
	mu       sync.Mutex
	compiled int
	last     string
	said     []string
}

func (b *buildLog) read(r io.Reader) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		b.add(lines.Text())
	}
	_, _ = io.Copy(io.Discard, r) // a line beyond the buffer must not block the build
}

func (b *buildLog) add(line string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last = line
	switch {
	case strings.HasPrefix(line, "go: downloading "): // progress, not an answer
	case !strings.ContainsAny(line, " :\t") && line != "":
		b.compiled++
	default:
		b.said = append(b.said, line)
		b.said = slices.Delete(b.said, 0, max(0, len(b.said)-40))
	}
}

func (b *buildLog) status() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.last == "" {
		return "reading modules, or linking what is compiled already"
	}
	return fmt.Sprintf("%d packages compiled, now after %s", b.compiled, b.last)
}

func (b *buildLog) failure() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.said) == 0 {
		return nil
	}
	return errors.New(strings.Join(b.said, "\n"))
}
