package process_test

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tourniquet.dev/tourniquet/internal/sys/needs"
	"tourniquet.dev/tourniquet/sensor/process"
)

const deedEnv = "TOURNIQUET_TEST_DEED"

// TestMain lets the test binary be the process whose environment is read, the one that reads it, and the one that starts
// the first, so that no secret is in the second's own memory.
func TestMain(m *testing.M) {
	switch os.Getenv(deedEnv) {
	case "":
		os.Exit(m.Run())
	case "wait":
		fmt.Println("ready")
		io.Copy(io.Discard, os.Stdin)
	case "hints", "whole":
		readAnother(os.Getenv(deedEnv) == "whole")
	}
}

var whole []byte // kept, as careless code would

func readAnother(careless bool) {
	pid, err := strconv.ParseUint(os.Args[1], 10, 32)
	if err != nil {
		panic(err)
	}
	if careless {
		whole, err = os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	} else {
		var h process.Hints
		h, err = process.ReadHints("/proc", uint32(pid))
		fmt.Printf("%+v ", h)
	}
	fmt.Println("done", err)
	io.Copy(io.Discard, os.Stdin)
	_ = len(whole)
}

func environOf(t *testing.T, content string) string {
	t.Helper()
	proc := t.TempDir()
	if err := os.Mkdir(filepath.Join(proc, "7"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(proc, "7", "environ"), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return proc
}

func TestHints(t *testing.T) {
	for name, tc := range map[string]struct {
		environ string
		want    process.Hints
	}{
		"a static key": {
			"PATH=/bin\x00AWS_ACCESS_KEY_ID=AKIATEST000000000000\x00AWS_SECRET_ACCESS_KEY=not-to-be-kept\x00HOME=/\x00",
			process.Hints{AccessKeyID: "AKIATEST000000000000", Present: []string{"AWS_SECRET_ACCESS_KEY"}},
		},
		"a role for a service account": {
			"AWS_ROLE_ARN=arn:aws:iam::123456789012:role/team/app\x00AWS_WEB_IDENTITY_TOKEN_FILE=/var/run/secrets/eks.amazonaws.com/serviceaccount/token\x00AWS_ROLE_SESSION_NAME=app-1\x00",
			process.Hints{RoleARN: "arn:aws:iam::123456789012:role/team/app", TokenFile: "/var/run/secrets/eks.amazonaws.com/serviceaccount/token", SessionName: "app-1"},
		},
		"pod identity": {
			"AWS_CONTAINER_CREDENTIALS_FULL_URI=http://169.254.170.23/v1/credentials\x00AWS_CONTAINER_AUTHORIZATION_TOKEN=x\x00AWS_PROFILE=prod",
			process.Hints{FullURI: "http://169.254.170.23/v1/credentials", Profile: "prod", Present: []string{"AWS_CONTAINER_AUTHORIZATION_TOKEN"}},
		},
		"a secret under a kept name": {
			"AWS_ACCESS_KEY_ID=wJalr/secret+with+other+bytes\x00AWS_CONTAINER_CREDENTIALS_FULL_URI=http://user:pass@host/\x00",
			process.Hints{Present: []string{"AWS_ACCESS_KEY_ID", "AWS_CONTAINER_CREDENTIALS_FULL_URI"}},
		},
		"the first of two counts": {
			"AWS_PROFILE=one\x00AWS_PROFILE=two\x00",
			process.Hints{Profile: "one"},
		},
		"a value too long": {
			"AWS_PROFILE=" + strings.Repeat("x", 5000) + "\x00AWS_ROLE_SESSION_NAME=ok\x00",
			process.Hints{SessionName: "ok", Present: []string{"AWS_PROFILE"}},
		},
		"look-alikes": {
			"XAWS_PROFILE=a\x00AWS_PROFILES=b\x00aws_profile=c\x00AWS_PROFILE\x00=AWS_PROFILE=d\x00" + strings.Repeat("A", 100) + "AWS_PROFILE=e\x00",
			process.Hints{},
		},
		"empty values": {"AWS_PROFILE=\x00AWS_ACCESS_KEY_ID=\x00", process.Hints{}},
		"nothing":      {"", process.Hints{}},
		"too much":     {strings.Repeat("A=b\x00", 100_000) + "AWS_PROFILE=late\x00", process.Hints{Cut: true}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := process.ReadHints(environOf(t, tc.environ), 7)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func FuzzHints(f *testing.F) {
	f.Add([]byte("AWS_PROFILE=one\x00AWS_SECRET_ACCESS_KEY=two\x00"))
	f.Fuzz(func(t *testing.T, environ []byte) {
		h, err := process.ReadHints(environOf(t, string(environ)), 7)
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range map[string]string{"AWS_ACCESS_KEY_ID": h.AccessKeyID, "AWS_ROLE_ARN": h.RoleARN, "AWS_PROFILE": h.Profile} {
			if value != "" && !bytes.Contains(environ, []byte(name+"="+value)) {
				t.Errorf("%s=%q is not in %q", name, value, environ)
			}
		}
	})
}

// helper starts the test binary for a deed and waits for its first line.
func helper(t *testing.T, deed string, extra []string, args ...string) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append([]string{deedEnv + "=" + deed}, extra...)
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return cmd, line
}

func TestASecretIsNeverInTheReadersMemory(t *testing.T) {
	needs.Root(t)
	random := make([]byte, 20)
	rand.Read(random)
	secret := hex.EncodeToString(random) // 40 bytes, as AWS's are
	target, _ := helper(t, "wait", []string{"AWS_PROFILE=witness", "AWS_SECRET_ACCESS_KEY=" + secret, "UNLISTED=" + secret})
	pid := strconv.Itoa(target.Process.Pid)

	control, _ := helper(t, "whole", nil, pid)
	if n, _ := scan(t, control.Process.Pid, secret); n == 0 {
		t.Fatal("the scan does not even find a secret that is there")
	}
	reader, line := helper(t, "hints", nil, pid)
	if !strings.Contains(line, "Profile:witness") || !strings.Contains(line, "AWS_SECRET_ACCESS_KEY") {
		t.Errorf("the reader says %s", line)
	}
	if copies, fragments := scan(t, reader.Process.Pid, secret); copies+fragments != 0 {
		t.Errorf("%d copies and %d fragments of the secret in the reader's memory", copies, fragments)
	}
}

// scan counts copies of the secret, and of 8-byte fragments of it, in all of a process's memory.
func scan(t *testing.T, pid int, secret string) (copies, fragments int) {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	for line := range strings.Lines(string(maps)) {
		var from, to uint64
		var rights string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &rights); err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(rights, "rw") || strings.Contains(line, "[v") {
			continue
		}
		for ; from < to; from += 1 << 20 {
			chunk := make([]byte, min(1<<20+64, to-from)) // overlapping, so that nothing hides between two
			n, _ := memory.ReadAt(chunk, int64(from))     // parts may be unmapped meanwhile
			copies += bytes.Count(chunk[:n], []byte(secret))
			for at := 0; at+8 <= len(secret); at++ {
				fragments += bytes.Count(chunk[:n], []byte(secret[at:at+8]))
			}
		}
	}
	return copies, fragments
}
