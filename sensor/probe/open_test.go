package probe_test

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"tourniquet.dev/tourniquet/bpf"
	"tourniquet.dev/tourniquet/internal/sys/needs"
	"tourniquet.dev/tourniquet/sensor/probe"
)

const (
	bitFile = 1
	bitDir  = 2
	bitNode = 4
)

// credentials makes <dir>/.aws/credentials and returns the folder and the file.
func credentials(t *testing.T) (dir, file string) {
	t.Helper()
	dir = t.TempDir()
	file = filepath.Join(dir, ".aws", "credentials")
	if err := os.Mkdir(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("[default]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, file
}

func byName() probe.Filter {
	return probe.Filter{Names: map[probe.Name]uint32{
		{What: bpf.NameFile, Name: "credentials"}: bitFile,
		{What: bpf.NameDir, Name: ".aws"}:         bitDir,
	}}
}

func TestAnOpenIsSeenByWhateverWayTheFileIsReached(t *testing.T) {
	for name, tc := range map[string]struct {
		prepare func(t *testing.T, dir, file string)
		deed    string
		args    func(dir, file string) []string
	}{
		"plainly": {nil, "open", func(dir, file string) []string { return []string{file} }},
		"with dots and slashes": {nil, "open", func(dir, file string) []string {
			return []string{dir + "/.aws/..//./.aws/../.aws/credentials"}
		}},
		"through a symbolic link": {func(t *testing.T, dir, file string) {
			if err := os.Symlink(file, filepath.Join(dir, "harmless")); err != nil {
				t.Fatal(err)
			}
		}, "open", func(dir, file string) []string { return []string{filepath.Join(dir, "harmless")} }},
		"through a linked folder": {func(t *testing.T, dir, file string) {
			if err := os.Symlink(filepath.Dir(file), filepath.Join(dir, "d")); err != nil {
				t.Fatal(err)
			}
		}, "open", func(dir, file string) []string { return []string{filepath.Join(dir, "d", "credentials")} }},
		"from an open folder":    {nil, "open-at", func(dir, file string) []string { return []string{filepath.Dir(file), "credentials"} }},
		"from the own folder":    {nil, "open-relative", func(dir, file string) []string { return []string{filepath.Dir(file), "credentials"} }},
		"by its handle":          {nil, "open-handle", func(dir, file string) []string { return []string{file} }},
		"through its own folder": {nil, "open", func(dir, file string) []string { return []string{"/proc/self/root" + file} }},
	} {
		t.Run(name, func(t *testing.T) {
			dir, file := credentials(t)
			if tc.prepare != nil {
				tc.prepare(t, dir, file)
			}
			w := newWatch(t, probe.Options{Filter: byName()})
			w.do(tc.deed, tc.args(dir, file)...)
			e := await(w, func(e *probe.Open) bool { return e.Path == file })
			if !e.Resolved || e.Errno != 0 || e.Match != bitFile|bitDir || e.Inode != inode(t, file) || e.Cgroup != w.id {
				t.Errorf("%+v", e)
			}
		})
	}
}

func TestAnOpenIsSeenThroughABindMount(t *testing.T) {
	needs.Root(t)
	_, file := credentials(t)
	other := filepath.Join(t.TempDir(), "innocent")
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w := newWatch(t, probe.Options{Filter: byName()})
	if err := unix.Mount(file, other, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(other, unix.MNT_DETACH) })
	w.do("open", other)
	e := await(w, func(e *probe.Open) bool { return e.Match == bitFile|bitDir })
	if e.Path != other || e.Inode != inode(t, file) {
		t.Errorf("%+v", e)
	}
}

func TestAHardLinkIsSeenByItsInode(t *testing.T) {
	dir, file := credentials(t)
	link := filepath.Join(dir, "harmless")
	if err := os.Link(file, link); err != nil {
		t.Fatal(err)
	}
	var stat syscall.Stat_t
	if err := syscall.Stat(file, &stat); err != nil {
		t.Fatal(err)
	}
	w := newWatch(t, probe.Options{Filter: probe.Filter{
		Files: map[probe.File]uint32{{Device: bpf.KernelDev(stat.Dev), Inode: stat.Ino}: bitNode},
	}})
	w.do("open", link)
	e := await(w, func(e *probe.Open) bool { return true })
	if e.Match != bitNode || e.Path != link || e.Links != 2 || e.Device != bpf.KernelDev(stat.Dev) {
		t.Errorf("%+v", e)
	}
}

func TestAFailedOpenIsAHint(t *testing.T) {
	for name, path := range map[string]string{
		"file name":   "/no/such/place/credentials",
		"folder name": "/no/such/.aws/thing",
		"short":       ".aws/x",
	} {
		t.Run(name, func(t *testing.T) {
			w := newWatch(t, probe.Options{Filter: byName(), Config: bpf.Config{FailedOpens: true}})
			w.do("try", path)
			e := await(w, func(e *probe.Open) bool { return true })
			if e.Resolved || e.Path != path || e.Errno != int32(unix.ENOENT) || e.Match == 0 {
				t.Errorf("%+v", e)
			}
		})
	}
}

func TestAnOpenOfA32BitProgramIsSeen(t *testing.T) {
	needs.Kernel(t, needs.Compat32)
	_, file := credentials(t)
	w := newWatch(t, probe.Options{Filter: byName()})
	program := filepath.Join(t.TempDir(), "open386")
	if err := os.WriteFile(program, open386(file), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := w.command("nothing")
	cmd.Path = program
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	e := await(w, func(e *probe.Open) bool { return true })
	if e.Path != file || !e.Compat || !e.Resolved {
		t.Errorf("%+v", e)
	}
}

// open386 is a whole 32-bit program: exit(open(path, O_RDONLY) < 0).
func open386(path string) []byte {
	const base, head = 0x08048000, 52 + 32
	code := []byte{
		0xb8, 5, 0, 0, 0, // mov eax, open
		0xbb, 0, 0, 0, 0, // mov ebx, path
		0x31, 0xc9, // xor ecx, ecx
		0xcd, 0x80, // int 0x80
		0x89, 0xc3, // mov ebx, eax
		0xc1, 0xeb, 31, // shr ebx, 31
		0xb8, 1, 0, 0, 0, // mov eax, exit
		0xcd, 0x80, // int 0x80
	}
	binary.LittleEndian.PutUint32(code[6:], uint32(base+head+len(code)))
	body := append(append(code, path...), 0)
	u16, u32 := binary.LittleEndian.AppendUint16, binary.LittleEndian.AppendUint32
	b := append([]byte("\x7fELF\x01\x01\x01"), make([]byte, 9)...)
	b = u32(u16(u16(b, 2), 3), 1)
	b = u32(u32(u32(u32(b, base+head), 52), 0), 0)
	b = u16(u16(u16(u16(u16(u16(b, 52), 32), 1), 0), 0), 0)
	size := uint32(head + len(body))
	for _, v := range []uint32{1, 0, base, base, size, size, 5, 0x1000} {
		b = u32(b, v)
	}
	return append(b, body...)
}

// Where opens are seen at the system calls only, an io_uring is a loss of sight; the other tiers see its opens.
func TestAnIOUringIsToldOfAsALossOfSight(t *testing.T) {
	needs.Kernel(t, needs.IOUring)
	w := newWatch(t, probe.Options{Filter: byName()})
	if strongest(t) != bpf.TierTracepoint {
		_, file := credentials(t)
		w.do("uring-open", file)
		if e := await(w, func(e *probe.Open) bool { return e.Path == file }); e.Match != bitFile|bitDir || e.Cgroup != w.id {
			t.Errorf("%+v", e)
		}
		return
	}
	w.do("uring")
	if e := await(w, func(e *probe.Uring) bool { return true }); e.Entries != 8 || e.Cgroup != w.id {
		t.Errorf("%+v", e)
	}
}
