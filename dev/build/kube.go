package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// AssetsEnv names the variable by which a machine tells where it already has etcd and kube-apiserver; setup-envtest
// prints the folder for it.
const AssetsEnv = "KUBEBUILDER_ASSETS"

// kubeTools are the binaries of dev/kube with their packages, the slow one first.
var kubeTools = []struct{ name, pkg string }{
	{"kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"},
	{"etcd", "go.etcd.io/etcd/server/v3"},
}

// Kube returns a folder that holds etcd and kube-apiserver: the one that KUBEBUILDER_ASSETS names, or one in the cache,
// built from the module dev/kube when it is not there yet. A build is kept under the hash of everything that went into
// it, and appears only when it is whole. Safe for concurrent use, also by several processes.
func Kube(ctx context.Context, progress io.Writer) (binDir string, err error) {
	say := newTeller(progress, "kube")
	if dir := os.Getenv(AssetsEnv); dir != "" {
		if hasKube(dir) {
			return dir, nil
		}
		say.say("%s is set to %s, which does not hold etcd and kube-apiserver: not used", AssetsEnv, dir)
	}
	root, err := Root()
	if err != nil {
		return "", err
	}
	cache, err := Cache()
	if err != nil {
		return "", err
	}
	module := filepath.Join(root, "dev", "kube")
	version, flags, err := kubeFlags(module)
	if err != nil {
		return "", err
	}
	key, err := kubeKey(ctx, module, flags)
	if err != nil {
		return "", err
	}
	binDir = filepath.Join(cache, "kube-"+key)
	if hasKube(binDir) {
		return binDir, nil
	}
	unlock, err := lock(ctx, filepath.Join(cache, "kube.lock"), say)
	if err != nil {
		return "", err
	}
	defer unlock()
	if hasKube(binDir) { // the one we waited for built it
		return binDir, nil
	}
	say.say("building etcd and kube-apiserver %s from source, this once: about 9 minutes on 2 cores, fewer on more;", version)
	say.say("some 800 MB of modules and 3 GB of Go build cache. To skip it, set %s to a folder that has both.", AssetsEnv)
	if err := buildKube(ctx, say, module, flags, binDir); err != nil {
		return "", fmt.Errorf("build etcd and kube-apiserver: %w", err)
	}
	say.say("built; kept in %s", binDir)
	return binDir, nil
}

// buildKube builds into a folder beside binDir and renames it when both binaries are there.
func buildKube(ctx context.Context, say *teller, module string, flags []string, binDir string) error {
	half := binDir + ".half"
	if err := os.RemoveAll(half); err != nil { // of a build that was killed; we hold the lock
		return fmt.Errorf("remove half a build: %w", err)
	}
	for _, tool := range kubeTools {
		say.say("compiling %s", tool.name)
		args := append(append([]string{}, flags...), "-o", filepath.Join(half, tool.name), tool.pkg)
		if err := goBuild(ctx, say, command{dir: module, env: []string{"GOWORK=off"}, args: args}); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(binDir); err != nil { // a folder that someone took a binary out of
		return fmt.Errorf("remove incomplete build: %w", err)
	}
	return os.Rename(half, binDir)
}

// kubeFlags reads the release of Kubernetes from the module file and returns it with the build flags. Without the version
// stamped in, clients and feature gates take the server for v0.0.0.
func kubeFlags(module string) (version string, flags []string, err error) {
	file, err := os.ReadFile(filepath.Join(module, "go.mod"))
	if err != nil {
		return "", nil, fmt.Errorf("read version of Kubernetes: %w", err)
	}
	for line := range strings.Lines(string(file)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "k8s.io/kubernetes" {
			version = f[1]
		}
	}
	part := strings.Split(strings.TrimPrefix(version, "v"), ".")
	if len(part) != 3 {
		return "", nil, fmt.Errorf("read version of Kubernetes: %s has none for k8s.io/kubernetes", filepath.Join(module, "go.mod"))
	}
	link := "-s -w"
	for _, p := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		link += fmt.Sprintf(" -X %s.gitVersion=%s -X %s.gitMajor=%s -X %s.gitMinor=%s", p, version, p, part[0], p, part[1])
	}
	return version, []string{"-ldflags", link}, nil
}

// kubeKey hashes all that a build depends on: the module files, the flags, and the Go version with its target.
func kubeKey(ctx context.Context, module string, flags []string) (string, error) {
	h := sha256.New()
	for _, name := range []string{"go.mod", "go.sum"} {
		b, err := os.ReadFile(filepath.Join(module, name))
		if err != nil {
			return "", fmt.Errorf("hash dev/kube: %w", err)
		}
		fmt.Fprintf(h, "%s %d\n%s", name, len(b), b)
	}
	cmd := exec.CommandContext(ctx, "go", "env", "GOVERSION", "GOOS", "GOARCH", "GOAMD64", "GOARM64", "GOEXPERIMENT")
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "GOWORK=off")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	env, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("ask for the Go version: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	fmt.Fprintf(h, "%q %s", flags, env)
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

// hasKube reports whether the folder holds all of the tools as executable files.
func hasKube(dir string) bool {
	for _, tool := range kubeTools {
		info, err := os.Stat(filepath.Join(dir, tool.name))
		if err != nil || !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0 {
			return false
		}
	}
	return true
}
