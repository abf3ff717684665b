// Package needs is how a test says what it cannot do without. Each function proves the lack before it skips, and prints
// what it met as SKIP-REASON: …; where the thing is there, no function here can skip. Only tests import it.
package needs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/rlimit"
)

// Feature names something that a kernel may lack or refuse.
type Feature string

// The features that tests ask for.
const (
	Bpf         Feature = "bpf"          // may load any program at all
	RingBuffer  Feature = "ring-buffer"  // 5.8
	Tracepoints Feature = "tracepoints"  // typed raw tracepoints (tp_btf)
	CgroupSkb   Feature = "cgroup-skb"   // programs on a cgroup's packets
	CgroupAddr  Feature = "cgroup-addr"  // programs on a cgroup's connects
	Trampoline  Feature = "trampoline"   // fentry, fmod_ret, lsm
	BpfFS       Feature = "bpffs"        // a bpf file system may be mounted
	NetNS       Feature = "netns"        // a network namespace may be made
	Compat32    Feature = "compat32"     // 32-bit programs run
	Overlay     Feature = "overlay"      // an overlay file system may be mounted
	Realtime    Feature = "realtime"     // SCHED_FIFO is granted
	IOUring     Feature = "io-uring"     // io_uring_setup is allowed
	MountNS     Feature = "mount-ns"     // a mount namespace may be made
	IPTool      Feature = "ip"           // the ip command of iproute2
	CgroupWrite Feature = "cgroup-write" // a cgroup may be made in the v2 hierarchy
)

// absent is proof of a lack. Only probes make it, from an error that the machine gave.
type absent struct{ error }

func lacks(err error) *absent {
	if err == nil {
		return nil
	}
	return &absent{err}
}

// skip is the only way out of this package other than returning: without an absent there is no skip.
func skip(t testing.TB, what string, proof *absent) {
	t.Helper()
	if proof == nil {
		return
	}
	t.Skipf("SKIP-REASON: %s needs %s: %v", t.Name(), what, proof.error)
}

// Root needs the process to be root.
func Root(t testing.TB) {
	t.Helper()
	skip(t, "root", root())
}

func root() *absent {
	if id := os.Geteuid(); id != 0 {
		return lacks(fmt.Errorf("running as uid %d", id))
	}
	return nil
}

// Clang needs the compiler that makes the kernel objects.
func Clang(t testing.TB) {
	t.Helper()
	for _, tool := range []string{"clang", "llvm-strip"} {
		_, err := exec.LookPath(tool)
		skip(t, tool, lacks(err))
	}
}

// BTF needs the kernel to describe its own types.
func BTF(t testing.TB) {
	t.Helper()
	_, err := os.Stat("/sys/kernel/btf/vmlinux")
	skip(t, "BTF", lacks(err))
}

// CgroupV2 needs a mounted v2 hierarchy, and returns where.
func CgroupV2(t testing.TB) string {
	t.Helper()
	where, err := cgroupV2()
	skip(t, "cgroup v2", lacks(err))
	return where
}

// Kernel needs a feature, and tries it.
func Kernel(t testing.TB, feature Feature) {
	t.Helper()
	try, known := probes[feature]
	if !known {
		t.Fatalf("needs: no probe for feature %q", feature)
	}
	skip(t, string(feature), lacks(try()))
}

var probes = map[Feature]func() error{
	Bpf:         tryBpf,
	RingBuffer:  func() error { return features.HaveMapType(ebpf.RingBuf) },
	Tracepoints: tryTracepoint,
	CgroupSkb:   func() error { return features.HaveProgramType(ebpf.CGroupSKB) },
	CgroupAddr:  func() error { return features.HaveProgramType(ebpf.CGroupSockAddr) },
	Trampoline:  tryTrampoline,
	BpfFS:       func() error { return tryMount("bpf", "") },
	NetNS:       func() error { return tryUnshare(syscall.CLONE_NEWNET) },
	Compat32:    tryCompat32,
	Overlay:     tryOverlay,
	Realtime:    tryRealtime,
	IOUring:     tryURing,
	MountNS:     func() error { return tryUnshare(syscall.CLONE_NEWNS) },
	IPTool:      func() error { _, err := exec.LookPath("ip"); return err },
	CgroupWrite: tryCgroupWrite,
}

func tryBpf() error {
	limit := rlimit.RemoveMemlock()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type:         ebpf.SocketFilter,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		return errors.Join(err, limit)
	}
	return p.Close()
}

func tryTracing(attach ebpf.AttachType, to string) error {
	limit := rlimit.RemoveMemlock()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type:         ebpf.Tracing,
		AttachType:   attach,
		AttachTo:     to,
		License:      "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		return errors.Join(err, limit)
	}
	return p.Close()
}

func tryTracepoint() error { return tryTracing(ebpf.AttachTraceRawTp, "sched_process_exec") }

func tryTrampoline() error { return tryTracing(ebpf.AttachTraceFEntry, "security_file_open") }

// tryUnshare makes the namespace in a thread of its own, which ends with it.
func tryUnshare(flag int) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread is thrown away, and the namespace with it
		result <- syscall.Unshare(flag)
	}()
	return <-result
}

// inMountNS runs do in a mount namespace of its own, so that nothing it mounts can stay.
func inMountNS(do func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked, as above
		if err := syscall.Unshare(syscall.CLONE_NEWNS); err != nil {
			result <- fmt.Errorf("unshare mounts: %w", err)
			return
		}
		if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
			result <- fmt.Errorf("make mounts private: %w", err)
			return
		}
		result <- do()
	}()
	return <-result
}

func tryMount(kind, data string) error {
	dir, err := os.MkdirTemp("", "needs")
	if err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	defer os.RemoveAll(dir)
	return inMountNS(func() error {
		if err := syscall.Mount("none", dir, kind, 0, data); err != nil {
			return fmt.Errorf("mount %s: %w", kind, err)
		}
		return syscall.Unmount(dir, syscall.MNT_DETACH)
	})
}

func tryOverlay() error {
	dir, err := os.MkdirTemp("", "needs")
	if err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	defer os.RemoveAll(dir)
	return inMountNS(func() error {
		if err := syscall.Mount("none", dir, "tmpfs", 0, ""); err != nil {
			return fmt.Errorf("mount tmpfs: %w", err)
		}
		defer syscall.Unmount(dir, syscall.MNT_DETACH)
		for _, name := range []string{"lower", "upper", "work", "merged"} {
			if err := os.Mkdir(dir+"/"+name, 0o700); err != nil {
				return fmt.Errorf("make folder: %w", err)
			}
		}
		data := "lowerdir=" + dir + "/lower,upperdir=" + dir + "/upper,workdir=" + dir + "/work"
		if err := syscall.Mount("overlay", dir+"/merged", "overlay", 0, data); err != nil {
			return fmt.Errorf("mount overlay: %w", err)
		}
		return syscall.Unmount(dir+"/merged", syscall.MNT_DETACH)
	})
}

func tryCgroupWrite() error {
	where, err := cgroupV2()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(where, "needs-*")
	if err != nil {
		return fmt.Errorf("make cgroup: %w", err)
	}
	return syscall.Rmdir(dir)
}
