package stack

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// bare is a stack of no parts, to start processes in.
func bare(t *testing.T) *Stack {
	t.Helper()
	s := &Stack{dir: t.TempDir(), died: make(chan error, 1), clock: time.Now()}
	for _, name := range []string{"logs", "home", "tmp"} {
		if err := os.Mkdir(filepath.Join(s.dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if s.book, err = openBook(s.dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestAPartGetsNothingOfOurEnvironment(t *testing.T) {
	for _, name := range []string{"KUBECONFIG", "AWS_ACCESS_KEY_ID", "SLACK_BOT_TOKEN"} {
		t.Setenv(name, "of-the-person")
	}
	s := bare(t)
	if _, err := s.Run(t.Context(), "part", "/bin/sh", "-c", `env >&2; echo '{"ready":true}'; exec sleep 600`); err != nil {
		t.Fatal(err)
	}
	log, err := os.ReadFile(filepath.Join(s.dir, "logs", "part.log"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(log)) {
		name, _, _ := strings.Cut(line, "=")
		switch name {
		case "PATH", "HOME", "TMPDIR", "PWD", "OLDPWD", "SHLVL", "_": // the last four are the shell's own
		default:
			if strings.Contains(line, "=") {
				t.Errorf("it was given %s", line)
			}
		}
	}
	if strings.Contains(string(log), "of-the-person") || !strings.Contains(string(log), "HOME="+s.dir) {
		t.Errorf("environment:\n%s", log)
	}
}

func TestAPartThatNeverGetsReadySaysWhy(t *testing.T) {
	for name, script := range map[string]string{
		"it ends":                `echo "cannot open the door" >&2; exit 3`,
		"it says something else": `echo "cannot open the door"; exec sleep 600`,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := bare(t).Run(t.Context(), "part", "/bin/sh", "-c", script)
			if err == nil || !strings.Contains(err.Error(), "cannot open the door") || !strings.Contains(err.Error(), "start part") {
				t.Errorf("error = %v", err)
			}
		})
	}
}

func TestAPartThatDiesIsReportedWithItsLastWords(t *testing.T) {
	s := bare(t)
	if _, err := s.Run(t.Context(), "part", "/bin/sh", "-c", `echo '{"ready":true}'; read line; echo "the disk is gone" >&2; exit 1`); err != nil {
		t.Fatal(err)
	}
	select { // its standard input is /dev/null: it dies at once
	case err := <-s.Died():
		if !strings.Contains(err.Error(), "part ended: exit status 1") || !strings.Contains(err.Error(), "the disk is gone") {
			t.Errorf("told %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("nothing was told")
	}
}

func TestStopIsNoDeath(t *testing.T) {
	s := bare(t)
	if _, err := s.Run(t.Context(), "part", "/bin/sh", "-c", `echo '{"ready":true}'; exec sleep 600`); err != nil {
		t.Fatal(err)
	}
	if s.Memory()["part"] == 0 {
		t.Error("its memory is not known")
	}
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	select {
	case err := <-s.Died():
		t.Errorf("told %v", err)
	default:
	}
}

func TestTheStateFolderHasOneStackAtATime(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	lock, err := take(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := take(dir); err == nil || !strings.Contains(err.Error(), "make demo-down") {
		t.Errorf("taken twice: %v", err)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := take(dir)
	if err != nil {
		t.Fatalf("after its end: %v", err)
	}
	_ = again.Close()
}
