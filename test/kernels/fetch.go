package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// errUnreachable marks a suite whose packages cannot be had here.
var errUnreachable = errors.New("the suite cannot be reached")

// kernel is an unpacked package.
type kernel struct {
	image   string // vmlinuz
	overlay string // its module for overlay file systems
	busybox string
}

const busyboxPackage = "busybox-static"

// kernel returns what is in the cache, or downloads it. Packages are unpacked there and never installed.
func (h *harness) kernel(ctx context.Context, m machine) (kernel, error) {
	image, err := h.unpacked(ctx, m.suite, m.image)
	if err != nil {
		return kernel{}, err
	}
	tools, err := h.unpacked(ctx, m.suite, regexp.MustCompile("^"+busyboxPackage+"$"))
	if err != nil {
		return kernel{}, err
	}
	k := kernel{busybox: filepath.Join(tools, "bin", "busybox")}
	for at, pattern := range map[*string]string{&k.image: "boot/vmlinuz-*", &k.overlay: "lib/modules/*/kernel/fs/overlayfs/overlay.ko*"} {
		found, err := filepath.Glob(filepath.Join(image, pattern))
		if err != nil || len(found) != 1 {
			return k, fmt.Errorf("%d files %s in %s: %w", len(found), pattern, image, errors.Join(err, os.ErrNotExist))
		}
		*at = found[0]
	}
	return k, nil
}

// unpacked returns the folder of the newest package that fits. Folders are named by version, so a newer one is another.
func (h *harness) unpacked(ctx context.Context, suite string, name *regexp.Regexp) (string, error) {
	dir := filepath.Join(h.cache, suite)
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil {
		return "", fmt.Errorf("look into %s: %w", dir, err)
	}
	at := slices.IndexFunc(debs, func(path string) bool {
		before, _, _ := strings.Cut(filepath.Base(path), "_")
		return name.MatchString(before)
	})
	var deb string
	if at >= 0 {
		deb = debs[at]
	} else if deb, err = download(ctx, dir, suite, name); err != nil {
		return "", err
	}
	to := strings.TrimSuffix(deb, ".deb")
	if _, err := os.Stat(to); err == nil {
		return to, nil
	}
	if out, err := exec.CommandContext(ctx, "dpkg-deb", "-x", deb, to+".part").CombinedOutput(); err != nil {
		return "", fmt.Errorf("unpack %s: %w: %s", deb, err, out)
	}
	return to, os.Rename(to+".part", to)
}

// download tries the newest first: an archive's index may name packages that are there no more.
func download(ctx context.Context, dir, suite string, name *regexp.Regexp) (string, error) {
	options, err := privateApt(ctx, dir, suite)
	if err != nil {
		return "", err
	}
	out, err := exec.CommandContext(ctx, "apt-cache", append(options, "pkgnames")...).Output()
	if err != nil {
		return "", fmt.Errorf("list packages of %s: %w", suite, err)
	}
	var names []string
	for n := range strings.FieldsSeq(string(out)) {
		if name.MatchString(n) {
			names = append(names, n)
		}
	}
	slices.SortFunc(names, func(a, b string) int { return slices.Compare(numbers(b), numbers(a)) })
	last := fmt.Errorf("no package %s in %s", name, suite)
	for _, n := range names {
		cmd := exec.CommandContext(ctx, "apt-get", append(options, "download", "-q", n)...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			last = fmt.Errorf("download %s: %w: %s", n, err, lastLine(out))
			continue
		}
		found, err := filepath.Glob(filepath.Join(dir, n+"_*.deb"))
		if err != nil || len(found) == 0 {
			return "", fmt.Errorf("download %s: no file came of it", n)
		}
		return found[0], nil
	}
	return "", fmt.Errorf("%w: suite %s: %w", errUnreachable, suite, last)
}

func numbers(name string) []int {
	var all []int
	for _, digits := range regexp.MustCompile(`\d+`).FindAllString(name, -1) {
		n, _ := strconv.Atoi(digits) // only digits, and few
		all = append(all, n)
	}
	return all
}

// privateApt makes an apt configuration for a suite that this machine need not have, at the mirrors that it has.
func privateApt(ctx context.Context, dir, suite string) ([]string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("name %s: %w", dir, err)
	}
	sites, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", "$(SITE)").Output()
	if err != nil {
		return nil, fmt.Errorf("%w: this machine has no apt: %w", errUnreachable, err)
	}
	var list strings.Builder
	for _, site := range slices.Compact(slices.Sorted(strings.FieldsSeq(string(sites)))) {
		for ending, release := range map[string]string{"/debian": suite, "/debian-security": suite + "-security"} {
			if strings.HasSuffix(strings.TrimSuffix(site, "/"), ending) {
				fmt.Fprintf(&list, "deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n", site, release)
			}
		}
	}
	if list.Len() == 0 {
		return nil, fmt.Errorf("%w: this machine's apt knows no mirror of Debian", errUnreachable)
	}
	for _, d := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, "apt", d), 0o755); err != nil {
			return nil, fmt.Errorf("make apt's folders: %w", err)
		}
	}
	sources := filepath.Join(dir, "apt", "sources.list")
	if err := os.WriteFile(sources, []byte(list.String()), 0o644); err != nil {
		return nil, fmt.Errorf("write apt's sources: %w", err)
	}
	options := []string{"-o", "Dir::State::lists=" + dir + "/apt/lists", "-o", "Dir::Cache=" + dir + "/apt/cache", "-o", "Dir::Etc::sourcelist=" + sources,
		"-o", "Dir::Etc::sourceparts=/dev/null", "-o", "APT::Sandbox::User=root"}
	if out, err := exec.CommandContext(ctx, "apt-get", append(options, "update", "-q", "--error-on=any")...).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: suite %s: %w: %s", errUnreachable, suite, err, lastLine(out))
	}
	return options, nil
}

func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}
