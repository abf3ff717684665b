package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
)

// machine is what this machine lets the demo do.
type machine struct {
	cgroupFS string // where cgroup v2 is mounted; empty in a recorded demo
	lacks    []string
}

// whole reports whether the attack can be real.
func (m machine) whole() bool { return len(m.lacks) == 0 }

// look finds out what is there.
func look() machine {
	var m machine
	if runtime.GOOS != "linux" {
		m.lacks = append(m.lacks, "Linux")
		return m
	}
	if os.Getenv("RECORDED") == "1" {
		m.lacks = append(m.lacks, "leave to use the kernel (RECORDED=1)")
	}
	if os.Geteuid() != 0 {
		m.lacks = append(m.lacks, "root")
	}
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		m.lacks = append(m.lacks, "BTF (/sys/kernel/btf/vmlinux)")
	}
	for _, tool := range []string{"ip", "bash"} {
		if _, err := exec.LookPath(tool); err != nil {
			m.lacks = append(m.lacks, "the command "+tool)
		}
	}
	if m.cgroupFS = cgroupFS(); m.cgroupFS == "" {
		m.lacks = append(m.lacks, "a cgroup v2 tree")
	}
	return m
}

// cgroupFS is where the whole cgroup v2 tree is mounted; beside the trees of v1 on hybrid machines.
func cgroupFS() string {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(table)) {
		before, after, _ := strings.Cut(line, " - ")
		if fields := strings.Fields(before); len(fields) > 4 && fields[3] == "/" && strings.HasPrefix(after, "cgroup2 ") {
			return fields[4]
		}
	}
	return ""
}

// say tells what the demo will be, in its first lines.
func (m machine) say(out func(string, ...any)) {
	if m.whole() {
		out("this machine can do all of it: real kernel events, a real cut in the kernel")
		return
	}
	out("this machine lacks %s: kernel events come from a recording and the cut in the kernel is left out; all the rest is real", strings.Join(m.lacks, ", "))
	out("the whole demo: %s", hint(m))
}

func hint(m machine) string {
	switch {
	case os.Getenv("RECORDED") == "1":
		return "make demo without RECORDED=1"
	case len(m.lacks) == 1 && os.Geteuid() != 0:
		return "sudo make demo"
	}
	return fmt.Sprintf("run `sudo make demo` on a Linux machine with %s", strings.Join(m.lacks, ", "))
}
