package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// machine is one kernel as it is booted.
type machine struct {
	name  string
	suite string         // of Debian
	image *regexp.Regexp // the newest of these that can be had
	lsm   string         // security modules at boot
}

var (
	linux510 = regexp.MustCompile(`^linux-image-5\.10\.0-\d+-cloud-amd64-unsigned$`)
	linux61  = regexp.MustCompile(`^linux-image-6\.1\.0-\d+-cloud-amd64-unsigned$`)
	linux612 = regexp.MustCompile(`^linux-image-6\.12\.\d+\+deb12-cloud-amd64-unsigned$`)
)

// Without bpf in the list an lsm program loads, attaches and never fires.
var machines = []machine{
	{"6.1", "bookworm", linux61, "lockdown,yama,apparmor,bpf"},
	{"6.1-without-bpf-lsm", "bookworm", linux61, "lockdown,yama,apparmor"},
	{"6.12", "bookworm", linux612, "lockdown,yama,apparmor,bpf"},
	{"5.10", "bullseye", linux510, "lockdown,yama,apparmor,bpf"},
}

// packages are the tests that need a kernel.
var packages = []string{"bpf", "sensor/probe", "sensor/hold", "sensor/node"}

type harness struct {
	root, cache string
	limit       time.Duration
	built       string // folder of the test binaries, once they are
}

// test boots one machine. A suite that cannot be reached is a skip that says so.
func (h *harness) test(ctx context.Context, m machine) error {
	began := time.Now()
	k, err := h.kernel(ctx, m)
	if errors.Is(err, errUnreachable) {
		fmt.Printf("SKIP-REASON: kernel %s: %v\n", m.name, err)
		return nil
	}
	if err != nil {
		return err
	}
	if err := h.build(ctx); err != nil {
		return err
	}
	image := filepath.Join(h.cache, "initrd-"+m.name+".cpio")
	if err := h.pack(image, k); err != nil {
		return fmt.Errorf("pack %s: %w", image, err)
	}
	defer os.Remove(image)
	fmt.Printf("== %s: booting %s, lsm=%s\n", m.name, filepath.Base(k.image), m.lsm)
	out, err := h.boot(ctx, k.image, image, m.lsm)
	log := filepath.Join(h.cache, m.name+".log")
	if err := os.WriteFile(log, out, 0o600); err != nil {
		return fmt.Errorf("write log: %w", err)
	}
	if err != nil {
		return fmt.Errorf("boot: %w; the serial port's log is %s", err, log)
	}
	sum, err := judge(out)
	for _, line := range sum.lines {
		fmt.Printf("   %s\n", line)
	}
	fmt.Printf("== %s: %d passed, %d skipped, %d failed in %.0f s\n", m.name, sum.passed, sum.skipped, sum.failed, time.Since(began).Seconds())
	if err != nil {
		return fmt.Errorf("%w; the serial port's log is %s", err, log)
	}
	return nil
}

// boot returns what the machine wrote to its serial port until it powered off.
func (h *harness) boot(ctx context.Context, kernel, initrd, lsm string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, h.limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1536", "-nographic", "-no-reboot",
		"-nic", "none", "-kernel", kernel, "-initrd", initrd, "-append", "console=ttyS0 quiet panic=-1 rdinit=/init lsm="+lsm)
	cmd.WaitDelay = 5 * time.Second
	var out bytes.Buffer
	port := io.Writer(&out)
	if os.Getenv("VERBOSE") != "" {
		port = io.MultiWriter(&out, os.Stdout)
	}
	cmd.Stdout, cmd.Stderr = port, port // one and the same: written by one goroutine
	err := cmd.Run()
	if ctx.Err() != nil {
		err = fmt.Errorf("not done after %v: %w", h.limit, ctx.Err())
	}
	return out.Bytes(), err
}

// verdict is what the serial port's log says.
type verdict struct {
	passed, skipped, failed int
	lines                   []string // failures, reasons of skips, tiers, canary
}

const endMarker = "TOURNIQUET-GUEST-END ok"

// judge wants the end marker, no failure, and a proven reason for each skip.
func judge(out []byte) (verdict, error) {
	var v verdict
	reasons := 0
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "--- PASS: "):
			v.passed++
		case strings.HasPrefix(line, "--- SKIP: "):
			v.skipped++
		case strings.HasPrefix(line, "--- FAIL: "), strings.HasPrefix(line, "panic: "):
			v.failed++
			v.lines = append(v.lines, line)
		case strings.Contains(line, "SKIP-REASON: "):
			reasons++
			v.lines = append(v.lines, line[strings.Index(line, "SKIP-REASON: "):])
		case strings.HasPrefix(line, "GUEST: "), strings.Contains(line, "open hook: "):
			v.lines = append(v.lines, line)
		}
	}
	switch {
	case !bytes.Contains(out, []byte(endMarker)):
		return v, errors.New("the guest's tests did not all pass, or did not end")
	case v.failed > 0:
		return v, fmt.Errorf("%d tests failed", v.failed)
	case v.passed == 0:
		return v, errors.New("no test ran")
	case reasons < v.skipped:
		return v, fmt.Errorf("%d skips with %d proven reasons", v.skipped, reasons)
	}
	return v, nil
}
