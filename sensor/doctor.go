package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"

	"tourniquet.dev/tourniquet/sensor/process"
)

// finding is one thing that this kernel or process has, or the degraded mode that its lack makes.
type finding struct {
	Thing   string `json:"thing"`
	Present bool   `json:"present"`
	Mode    string `json:"mode,omitempty"`   // named degraded mode
	Reason  string `json:"reason,omitempty"` // what was met
	Fatal   bool   `json:"fatal,omitempty"`  // without it the sensor sees nothing
}

// check looks for one thing, and changes nothing that stays.
type check struct {
	thing, mode string
	fatal       bool
	look        func(proc string) error
}

// checks are in the order in which they are worth reading: what is fatal first.
var checks = []check{
	{"BTF", "blind: no program can be fitted to this kernel", true, func(string) error { _, err := os.Stat("/sys/kernel/btf/vmlinux"); return err }},
	{"CAP_BPF", "blind: no program can be loaded", true, capability(unix.CAP_BPF)},
	{"CAP_PERFMON", "blind: no tracing program can be loaded", true, capability(unix.CAP_PERFMON)},
	{"ring buffers", "blind: events have no way to the sensor", true, func(string) error { return features.HaveMapType(ebpf.RingBuf) }},
	{"cgroup v2", "blind: processes cannot be told apart by container", true, func(string) error { _, err := process.CgroupRoot(); return err }},
	{"CAP_NET_ADMIN", "no-holds: connects are not seen and orders to cut are refused", false, capability(unix.CAP_NET_ADMIN)},
	{"CAP_SYS_PTRACE", "claimed-identities: environments and programs of other users' processes are not read", false, capability(unix.CAP_SYS_PTRACE)},
	{"CAP_SYS_NICE", "late-under-load: the critical reader waits its turn", false, capability(unix.CAP_SYS_NICE)},
	{"CAP_DAC_READ_SEARCH", "claimed-identities: environments of other users' processes are not read, and cgroups are found by a slow walk", false, capability(unix.CAP_DAC_READ_SEARCH)},
	{"SCHED_FIFO", "late-under-load: the critical reader waits its turn", false, func(string) error { return realtime() }},
	{"trampolines", "tracepoint-opens: opens are seen at system calls, an io_uring is a loss of sight", false, func(string) error { return trampolines() }},
	{"BPF LSM", "no-lsm-tier: the fentry tier is used where there are trampolines", false, func(string) error { return activeLSM("/sys/kernel/security/lsm") }},
	{"kprobes", "none: no hook of the sensor needs them", false, func(string) error { _, err := os.Stat("/sys/bus/event_source/devices/kprobe"); return err }},
	{"bpffs", "unpinned: holds end with the process", false, func(string) error { return mounted("bpf") }},
	{"environments", "claimed-identities: environments of processes are not read", false, environments},
}

// examine looks for everything once.
func examine(proc string) []finding {
	var all []finding
	for _, c := range checks {
		f := finding{Thing: c.thing, Present: true}
		if err := c.look(proc); err != nil {
			f = finding{Thing: c.thing, Mode: c.mode, Reason: err.Error(), Fatal: c.fatal}
		}
		all = append(all, f)
	}
	return all
}

const (
	doctorWell     = 0
	doctorFailed   = 1
	doctorUsage    = 2
	doctorDegraded = 3 // it runs, with named degraded modes
	doctorBlind    = 4 // it cannot run
)

// doctor prints what is here and what its lack means. Its exit codes are documented in docs/kernels.md.
func doctor(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("sensor doctor", flag.ContinueOnError)
	flags.SetOutput(stderr)
	asJSON := flags.Bool("json", false, "print one JSON document")
	proc := flags.String("proc", "/proc", "where proc is mounted")
	if err := flags.Parse(args); err != nil || flags.NArg() > 0 {
		fmt.Fprintln(stderr, "usage: sensor doctor [--json] [--proc DIR]")
		return doctorUsage
	}
	findings := examine(*proc)
	if err := printFindings(stdout, findings, *asJSON); err != nil {
		fmt.Fprintf(stderr, "sensor: %v\n", err)
		return doctorFailed
	}
	return exitCode(findings)
}

func exitCode(findings []finding) int {
	switch {
	case slices.ContainsFunc(findings, func(f finding) bool { return f.Fatal }):
		return doctorBlind
	case slices.ContainsFunc(findings, func(f finding) bool { return !f.Present }):
		return doctorDegraded
	}
	return doctorWell
}

func printFindings(out io.Writer, findings []finding, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(out).Encode(map[string]any{"findings": findings})
	}
	for _, f := range findings {
		line := fmt.Sprintf("%-20s present\n", f.Thing)
		if !f.Present {
			line = fmt.Sprintf("%-20s missing  %s (%s)\n", f.Thing, f.Mode, strings.ReplaceAll(f.Reason, "\n", " "))
		}
		if _, err := io.WriteString(out, line); err != nil {
			return fmt.Errorf("print: %w", err)
		}
	}
	return nil
}

// capability looks at the effective set; CAP_SYS_ADMIN holds what CAP_BPF and CAP_PERFMON were split from.
func capability(number uint) func(proc string) error {
	return func(proc string) error {
		status, err := os.ReadFile(filepath.Join(proc, "self", "status"))
		if err != nil {
			return fmt.Errorf("read capabilities: %w", err)
		}
		set, err := effective(string(status))
		if err != nil {
			return err
		}
		split := number == unix.CAP_BPF || number == unix.CAP_PERFMON
		if set&(1<<number) == 0 && (!split || set&(1<<unix.CAP_SYS_ADMIN) == 0) {
			return fmt.Errorf("not in the effective set %#x of uid %d", set, os.Geteuid())
		}
		return nil
	}
}

func effective(status string) (uint64, error) {
	for line := range strings.Lines(status) {
		if value, ok := strings.CutPrefix(line, "CapEff:"); ok {
			return strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		}
	}
	return 0, errors.New("no CapEff in the process's status")
}

// realtime asks in a thread that is thrown away.
func realtime() error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		result <- unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Flags: unix.SCHED_FLAG_RESET_ON_FORK, Priority: 1}, 0)
	}()
	return <-result
}

func trampolines() error {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.Tracing, AttachType: ebpf.AttachTraceFExit, AttachTo: "security_file_open",
		License: "Dual BSD/GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}})
	if err != nil {
		return err
	}
	return p.Close()
}

func activeLSM(path string) error {
	active, err := os.ReadFile(filepath.Clean(path))
	if err != nil {
		return err
	}
	if !slices.Contains(strings.Split(strings.TrimSpace(string(active)), ","), "bpf") {
		return fmt.Errorf("active are %s", strings.TrimSpace(string(active)))
	}
	return nil
}

func mounted(kind string) error {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	if !strings.Contains(string(table), " - "+kind+" ") {
		return fmt.Errorf("no %s is mounted", kind)
	}
	return nil
}

// environments looks whether the environment of some other user's process may be opened, or of any other where all are
// this user's. One process may be closed to everybody, so one refusal says nothing.
func environments(proc string) error {
	found, err := filepath.Glob(filepath.Join(proc, "[0-9]*"))
	if err != nil {
		return err
	}
	var refused error
	for _, dir := range found {
		var stat unix.Stat_t
		if unix.Stat(dir, &stat) != nil || filepath.Base(dir) == strconv.Itoa(os.Getpid()) {
			continue // ended meanwhile, or this one
		}
		file, err := os.Open(filepath.Join(dir, "environ"))
		if err == nil {
			file.Close()
			if os.Geteuid() == 0 || int(stat.Uid) != os.Geteuid() {
				return nil
			}
			continue
		}
		if !errors.Is(err, os.ErrNotExist) {
			refused = err
		}
	}
	return refused
}
