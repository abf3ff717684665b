package probe_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"tourniquet.dev/tourniquet/internal/sys/needs"
	"tourniquet.dev/tourniquet/sensor/probe"
)

func TestAProgramFromTheUpperLayerIsSeenAsSuch(t *testing.T) {
	needs.Root(t)
	needs.Kernel(t, needs.Overlay)
	w := newWatch(t, probe.Options{})
	dir := t.TempDir()
	merged := mountOverlay(t, dir, func(lower string) { copySelf(t, filepath.Join(lower, "shipped")) })
	copySelf(t, filepath.Join(merged, "dropped"))
	for name, upper := range map[string]bool{"shipped": false, "dropped": true} {
		cmd := w.command("nothing")
		cmd.Path = filepath.Join(merged, name)
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
		ran := await(w, func(e *probe.Exec) bool { return filepath.Base(e.Path) == name })
		if ran.Upper != upper || ran.Path != cmd.Path {
			t.Errorf("%s: upper %v, path %q, want %q", name, ran.Upper, ran.Path, cmd.Path)
		}
	}
}

func mountOverlay(t *testing.T, dir string, fill func(lower string)) string {
	t.Helper()
	if err := unix.Mount("none", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	for _, name := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	fill(filepath.Join(dir, "lower"))
	merged := filepath.Join(dir, "merged")
	if err := unix.Mount("overlay", merged, "overlay", 0, fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", dir)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(merged, unix.MNT_DETACH) })
	return merged
}

func copySelf(t *testing.T, to string) {
	t.Helper()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, self, 0o755); err != nil {
		t.Fatal(err)
	}
}
