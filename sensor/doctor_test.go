package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"tourniquet.dev/tourniquet/internal/sys/needs"
)

const asSensor = "TOURNIQUET_TEST_SENSOR"

// TestMain lets the test binary be the sensor itself, so that it can be started with other rights.
func TestMain(m *testing.M) {
	switch os.Getenv(asSensor) {
	case "":
	case "confined":
		os.Exit(confine())
	default:
		main()
	}
	os.Exit(m.Run())
}

func TestDoctorSaysWhatEachLackMeans(t *testing.T) {
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), []string{"doctor"}, &stdout, &stderr)
	if code != doctorWell && code != doctorDegraded && code != doctorBlind {
		t.Errorf("code %d: %s", code, stderr.String())
	}
	if lines := strings.Count(stdout.String(), "\n"); lines != len(checks) {
		t.Errorf("%d lines for %d checks:\n%s", lines, len(checks), stdout.String())
	}
	if code := run(t.Context(), []string{"doctor", "more"}, &stdout, &stderr); code != doctorUsage {
		t.Errorf("with an argument: %d", code)
	}
	for name, tc := range map[string]struct {
		findings []finding
		want     int
	}{
		"all there":    {[]finding{{Present: true}}, doctorWell},
		"a lack":       {[]finding{{Present: true}, {Mode: "m"}}, doctorDegraded},
		"a fatal lack": {[]finding{{Mode: "m"}, {Mode: "m", Fatal: true}}, doctorBlind},
	} {
		if got := exitCode(tc.findings); got != tc.want {
			t.Errorf("%s: %d, want %d", name, got, tc.want)
		}
	}
}

var granted = []uintptr{unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_NET_ADMIN, unix.CAP_SYS_PTRACE, unix.CAP_SYS_NICE}

var capabilityNames = map[uintptr]string{unix.CAP_BPF: "CAP_BPF", unix.CAP_PERFMON: "CAP_PERFMON", unix.CAP_NET_ADMIN: "CAP_NET_ADMIN",
	unix.CAP_SYS_PTRACE: "CAP_SYS_PTRACE", unix.CAP_SYS_NICE: "CAP_SYS_NICE"}

// sensorAs starts the sensor's own main as a user that is not root, with these capabilities and no others.
func sensorAs(t *testing.T, caps []uintptr, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = []string{asSensor + "=1"}
	cmd.SysProcAttr = &syscall.SysProcAttr{AmbientCaps: caps, Credential: &syscall.Credential{Uid: 65532, Gid: 65532}}
	return cmd
}

func TestEachCapabilityThatIsMissingIsNamed(t *testing.T) {
	needs.Root(t)
	for _, missing := range granted {
		t.Run(capabilityNames[missing], func(t *testing.T) {
			caps := slices.DeleteFunc(slices.Clone(granted), func(c uintptr) bool { return c == missing })
			out, err := sensorAs(t, caps, "doctor", "--json").Output()
			if err == nil {
				t.Error("it says that all is well")
			}
			var said struct{ Findings []finding }
			if err := json.Unmarshal(out, &said); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			for _, f := range said.Findings {
				want := f.Thing != capabilityNames[missing]
				if slices.Contains([]string{"CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN", "CAP_SYS_PTRACE", "CAP_SYS_NICE"}, f.Thing) && (f.Present != want || (!want && f.Mode == "")) {
					t.Errorf("%+v", f)
				}
			}
		})
	}
}
