package main

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.temporal.io/sdk/client"
)

// beCommand makes this test binary the command itself.
const beCommand = "TOURNIQUET_TEST_BE_TEMPORAL_DEV"

func TestMain(m *testing.M) {
	if os.Getenv(beCommand) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func command(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), beCommand+"=1")
	return cmd
}

func TestCommandTellsWhereItListensAndEndsOnSIGTERM(t *testing.T) {
	cmd := command("-db", filepath.Join(t.TempDir(), "temporal.db"), "-namespace", "incidents", "-search-attribute", "TqState=Keyword")
	cmd.Stderr = t.Output()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill() // does nothing when all went well
	out := bufio.NewReader(stdout)
	line, err := out.ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	var told ready
	if err := json.Unmarshal(line, &told); err != nil {
		t.Fatal(err)
	}
	if told.Namespace != "incidents" || !strings.HasPrefix(told.UI, "http://127.0.0.1:") {
		t.Errorf("told %+v", told)
	}
	c, err := client.DialContext(t.Context(), client.Options{HostPort: told.Addr, Namespace: told.Namespace})
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(out)
	if err != nil || len(rest) != 0 {
		t.Errorf("said more on standard output: %q, %v", rest, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("ended by SIGTERM: %v", err)
	}
}

func TestCommandRefusesBadFlags(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"no database":                         {nil, "no Database"},
		"a search attribute of no known type": {[]string{"-search-attribute", "A=Thing"}, "want Name=Type"},
		"a stray argument":                    {[]string{"start"}, `unexpected argument "start"`},
	} {
		t.Run(name, func(t *testing.T) {
			said, err := command(tc.args...).CombinedOutput()
			if err == nil || !strings.Contains(string(said), tc.want) {
				t.Errorf("said %q, %v; want %q", said, err, tc.want)
			}
		})
	}
}
