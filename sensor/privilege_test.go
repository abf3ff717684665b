package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/authz/authztest"
	"tourniquet.dev/tourniquet/internal/sys/needs"
)

const (
	unprivileged = 65532
	writableEnv  = "TOURNIQUET_TEST_WRITABLE" // the only folder that can be written
	capsEnv      = "TOURNIQUET_TEST_CAPS"
)

// confine is the stage between the test and the sensor: in a mount namespace of its own it makes the root read-only but
// for one folder, and starts the sensor as a user that is not root.
// ownPodUID is no other test's: sensors that are tested beside this one look at all cgroups of the machine.
const ownPodUID = "5f0c1d2e-0000-4000-8000-00000000cafe"

func confine() int {
	err := func() error {
		dir := os.Getenv(writableEnv)
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return fmt.Errorf("make mounts private: %w", err)
		}
		if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind %s: %w", dir, err)
		}
		if err := unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
			return fmt.Errorf("make the root read-only: %w", err)
		}
		if err := os.WriteFile("/tourniquet-test", nil, 0o600); !errors.Is(err, unix.EROFS) {
			return fmt.Errorf("the root can be written: %w", err)
		}
		var caps []uintptr
		for text := range strings.FieldsSeq(os.Getenv(capsEnv)) {
			n, err := strconv.Atoi(text)
			if err != nil {
				return err
			}
			caps = append(caps, uintptr(n))
		}
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Env = []string{asSensor + "=1"}
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{AmbientCaps: caps, Credential: &syscall.Credential{Uid: unprivileged, Gid: unprivileged}, Pdeathsig: syscall.SIGKILL}
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGTERM)
		if err := cmd.Start(); err != nil {
			return err
		}
		go func() {
			<-stop
			_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		}()
		return cmd.Wait()
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "confined:", err)
		return 1
	}
	return 0
}

// confined starts the sensor with these capabilities and waits for its ready line.
func confined(t *testing.T, config string, caps []uintptr) (ready map[string]any, log *bytes.Buffer, end func() error) {
	t.Helper()
	dir := filepath.Dir(config)
	if err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Chown(path, unprivileged, unprivileged))
	}); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", "--config", config)
	cmd.Env = []string{asSensor + "=confined", writableEnv + "=" + dir, capsEnv + "=" + strings.Trim(fmt.Sprint(caps), "[]")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	log = &bytes.Buffer{}
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		t.Fatalf("not ready: %v, %v: %s", err, cmd.Wait(), log)
	}
	if err := json.Unmarshal(line, &ready); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	return ready, log, func() error {
		return errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait())
	}
}

// liveConfig is that of a sensor of the kernel. t.TempDir lies in a folder that only root may enter.
func liveConfig(t *testing.T, world *authztest.World, url string) string {
	t.Helper()
	config := configure(t, world, url, func(c map[string]any) { c["source"] = map[string]any{"pins": "", "environments": true} })
	for dir := filepath.Dir(filepath.Dir(config)); dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return config
}

// container makes a container's cgroup with its main program in it, and returns the cgroup's folder.
func container(t *testing.T, root string) *os.File {
	t.Helper()
	base, err := os.MkdirTemp(root, "privilege-test-*")
	if err == nil {
		err = os.Chmod(base, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	dirs := []string{base}
	for _, name := range []string{"kubepods", "burstable", "pod" + ownPodUID, strings.Repeat("0123456789abcdef", 4)} {
		dirs = append(dirs, filepath.Join(dirs[len(dirs)-1], name))
		if err := os.Mkdir(dirs[len(dirs)-1], 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cgroup, err := os.Open(dirs[len(dirs)-1])
	if err != nil {
		t.Fatal(err)
	}
	main := exec.Command("sleep", "600") // what the container's own main program reads is no finding
	main.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(cgroup.Fd())}
	if err := main.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = errors.Join(main.Process.Kill(), main.Wait(), cgroup.Close()) // killed, as it should be
		slices.Reverse(dirs)
		for _, d := range dirs {
			for deadline := time.Now().Add(10 * time.Second); syscall.Rmdir(d) == syscall.EBUSY && time.Now().Before(deadline); {
			}
		}
	})
	return cgroup
}

// theft opens a credential file inside of the container, again and again until that was seen.
func theft(t *testing.T, cgroup *os.File, seen <-chan struct{}) {
	t.Helper()
	file := filepath.Join(t.TempDir(), ".aws", "credentials")
	if err := errors.Join(os.Mkdir(filepath.Dir(file), 0o700), os.WriteFile(file, []byte("[default]\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		cmd := exec.Command("cat", file)
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(cgroup.Fd())}
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-seen:
			return
		case <-time.After(200 * time.Millisecond):
		}
	}
	t.Error("no detection came")
}

func TestTheSensorDetectsWithTheLeastRights(t *testing.T) {
	needs.Root(t)
	needs.BTF(t)
	root := needs.CgroupV2(t)
	for _, f := range []needs.Feature{needs.Bpf, needs.RingBuffer, needs.Tracepoints, needs.CgroupAddr, needs.CgroupSkb, needs.CgroupWrite, needs.MountNS} {
		needs.Kernel(t, f)
	}
	reading := append(slices.Clone(granted), unix.CAP_DAC_READ_SEARCH) // a file of /proc/PID is its owner's, whatever ptrace may
	lacks := map[string][]uintptr{"with all": granted, "with environments": reading}
	for _, missing := range []uintptr{unix.CAP_NET_ADMIN, unix.CAP_SYS_PTRACE, unix.CAP_SYS_NICE} {
		lacks["without "+capabilityNames[missing]] = slices.DeleteFunc(slices.Clone(granted), func(c uintptr) bool { return c == missing })
	}
	for name, caps := range lacks {
		t.Run(name, func(t *testing.T) {
			world := authztest.New(time.Now())
			f := &intake{want: 1, done: make(chan struct{})}
			server := httptest.NewServer(f)
			defer server.Close()
			cgroup := container(t, root)
			ready, log, end := confined(t, liveConfig(t, world, server.URL), caps)
			theft(t, cgroup, f.done)
			if err := end(); err != nil {
				t.Errorf("%v: %s", err, log)
			}
			t.Logf("ready: %v", ready)
			f.mu.Lock()
			defer f.mu.Unlock()
			if len(f.lines) > 0 {
				e, err := authz.DecodeEnvelope([]byte(strings.TrimSpace(f.lines[0])))
				if err != nil {
					t.Fatal(err)
				}
				if d, err := authz.OpenDetection(world.TrustFile, e); err != nil || d.Rule != "aws-credentials-read" {
					t.Errorf("%+v, %v", d, err)
				}
			}
			if environments := !strings.Contains(log.String(), `"lacks":"environments"`); environments != (name == "with environments") {
				t.Errorf("environments can be read: %v", environments)
			}
			if missing, ok := strings.CutPrefix(name, "without "); ok && !strings.Contains(log.String(), missing) {
				t.Errorf("the log does not name %s: %s", missing, log)
			}
		})
	}
}
