// Command guest is the init of a machine that test/kernels boots: it mounts what the tests need, runs them once for each
// tier of the open hook, says how it went on the serial port and powers the machine off. It is never run elsewhere.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// runs are the test binaries, in order, with the tiers that each is to leave out.
var runs = []struct{ test, skip, match string }{
	{"bpf", "", "."},
	{"sensor-probe", "", "."},
	{"sensor-probe", "lsm", "Whatever|HardLink|Tier|IOUring"},
	{"sensor-probe", "lsm,fentry", "Whatever|HardLink|Tier|IOUring"},
	{"sensor-hold", "", "."},
	{"sensor-node", "", "."},
}

// timed are tests of how much the sensor can take: an emulator's answer says nothing, and takes minutes.
const timed = "Flood|Bench"

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "guest: is an init, and powers the machine off")
		os.Exit(2)
	}
	err := work()
	if err != nil {
		fmt.Printf("GUEST: %v\n", err)
	} else {
		fmt.Println("TOURNIQUET-GUEST-END ok")
	}
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Printf("GUEST: power off: %v\n", err)
	}
	select {} // the machine's timeout ends it
}

func work() error {
	if err := prepare(); err != nil {
		return err
	}
	modules, err := os.ReadFile("/sys/kernel/security/lsm")
	fmt.Printf("GUEST: security modules %s %v\n", modules, err)
	var errs []error
	for _, r := range runs {
		fmt.Printf("GUEST: %s, tiers left out: %q\n", r.test, r.skip)
		cmd := exec.Command("./"+r.test+".test", "-test.v", "-test.timeout=10m", "-test.run="+r.match, "-test.skip="+timed) //nolint:noctx // the machine has its own timeout
		cmd.Dir = filepath.Join("/tests", r.test)
		cmd.Env = []string{"PATH=/bin", "HOME=/root", "TMPDIR=/tmp", "TOURNIQUET_TEST_SKIP_TIERS=" + r.skip}
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
		if err := cmd.Run(); err != nil {
			errs = append(errs, fmt.Errorf("%s without %q: %w", r.test, r.skip, err))
		}
	}
	return errors.Join(errs...)
}

func prepare() error {
	for _, m := range [][3]string{
		{"proc", "/proc", ""}, {"sysfs", "/sys", ""}, {"devtmpfs", "/dev", ""}, {"bpf", "/sys/fs/bpf", ""}, {"tracefs", "/sys/kernel/tracing", ""},
		{"securityfs", "/sys/kernel/security", ""}, {"cgroup2", "/sys/fs/cgroup", ""}, {"tmpfs", "/tmp", ""}, {"tmpfs", "/run", ""},
	} {
		if err := unix.Mount(m[0], m[1], m[0], 0, m[2]); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s: %w", m[1], err)
		}
	}
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	found, err := filepath.Glob("/modules/*")
	if err != nil {
		return err
	}
	for _, path := range found {
		if err := insert(path); err != nil {
			fmt.Printf("GUEST: module %s: %v\n", path, err) // its tests say what they miss
		}
	}
	return nil
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request)
}

func insert(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	flags := 0
	if !strings.HasSuffix(path, ".ko") {
		flags = unix.MODULE_INIT_COMPRESSED_FILE
	}
	return unix.FinitModule(int(file.Fd()), "", flags)
}
