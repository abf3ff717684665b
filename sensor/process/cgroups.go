package process

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"tourniquet.dev/tourniquet/sensor/probe"
)

const (
	defaultMaxCgroups = 16384
	keptRemoved       = 1024            // a removed cgroup's last events may come after its removal
	walkEvery         = 5 * time.Second // walks forced by ids that no cheaper way resolves
	fileidKernfs      = 0xfe
)

// Cgroup is one cgroup of the v2 hierarchy.
type Cgroup struct {
	ID        uint64
	Path      string // from the root of the hierarchy
	Container Container
	Contained bool // the path names a pod or a container
	Removed   bool
}

// Cgroups knows the path, and so the pod and container, of each cgroup id. It is filled by a walk, by the kernel's
// events, and when asked for an id that neither brought. Safe for concurrent use.
type Cgroups struct {
	root string
	max  int

	mu      sync.Mutex
	byID    map[uint64]Cgroup
	removed []uint64 // oldest first
	walked  time.Time
	refused uint64
}

// NewCgroups walks the v2 hierarchy mounted at root. With root "" it knows only what events tell, as a recording needs.
func NewCgroups(root string) (*Cgroups, error) {
	c := &Cgroups{root: root, max: defaultMaxCgroups, byID: map[uint64]Cgroup{}}
	if root == "" {
		return c, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.walk(); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Cgroups) walk() error {
	c.walked = time.Now()
	err := filepath.WalkDir(c.root, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed meanwhile
		}
		if errors.Is(err, fs.ErrPermission) {
			return fs.SkipDir // known itself; those below it are asked for by id, or told of when they are made
		}
		if err != nil {
			return err
		}
		if !entry.IsDir() {
			return nil
		}
		var stat syscall.Stat_t
		if syscall.Stat(path, &stat) == nil {
			c.add(stat.Ino, strings.TrimPrefix(path, c.root)) // the id of a cgroup is the inode of its folder
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("walk cgroups at %s: %w", c.root, err)
	}
	return nil
}

func (c *Cgroups) add(id uint64, path string) Cgroup {
	if path == "" {
		path = "/"
	}
	g := Cgroup{ID: id, Path: path}
	g.Container, g.Contained = ParseCgroup(path)
	if _, known := c.byID[id]; !known && len(c.byID) >= c.max && !c.forgetOne() {
		c.refused++
		return g
	}
	c.byID[id] = g
	return g
}

// forgetOne makes room by the cgroup that was removed first.
func (c *Cgroups) forgetOne() bool {
	for len(c.removed) > 0 {
		id := c.removed[0]
		c.removed = c.removed[1:]
		if c.byID[id].Removed {
			delete(c.byID, id)
			return true
		}
	}
	return false
}

// Apply takes an event of a cgroup that came or went.
func (c *Cgroups) Apply(e *probe.Cgroup) Cgroup {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !e.Removed {
		if e.PathCut {
			return Cgroup{ID: e.ID, Path: e.Path} // asked for by id when needed
		}
		return c.add(e.ID, e.Path)
	}
	g, known := c.byID[e.ID]
	if !known {
		g = Cgroup{ID: e.ID, Path: e.Path}
		g.Container, g.Contained = ParseCgroup(e.Path)
	}
	g.Removed = true
	c.byID[e.ID] = g
	c.removed = append(c.removed, e.ID)
	for len(c.removed) > keptRemoved {
		c.forgetOne()
	}
	return g
}

// Lookup returns the cgroup with that id; false when it cannot be found out any more.
func (c *Cgroups) Lookup(id uint64) (Cgroup, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if g, known := c.byID[id]; known {
		return g, true
	}
	if c.root == "" || id == 0 {
		return Cgroup{}, false
	}
	if path, err := pathOfID(c.root, id); err == nil {
		return c.add(id, strings.TrimPrefix(path, c.root)), true
	}
	if time.Since(c.walked) < walkEvery || c.walk() != nil {
		return Cgroup{}, false
	}
	g, known := c.byID[id]
	return g, known
}

// Find returns the cgroups, not removed, that fit: a pod's containers, say.
func (c *Cgroups) Find(fits func(Cgroup) bool) []Cgroup {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []Cgroup
	for _, g := range c.byID {
		if !g.Removed && fits(g) {
			all = append(all, g)
		}
	}
	return all
}

// Refused returns how many cgroups found no room.
func (c *Cgroups) Refused() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refused
}

// pathOfID opens a cgroup by its id, which is its file handle. That needs CAP_DAC_READ_SEARCH.
func pathOfID(root string, id uint64) (string, error) {
	mount, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("open %s: %w", root, err)
	}
	defer unix.Close(mount)
	handle := unix.NewFileHandle(fileidKernfs, binary.NativeEndian.AppendUint64(nil, id))
	fd, err := unix.OpenByHandleAt(mount, handle, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC)
	if err != nil {
		return "", fmt.Errorf("open cgroup %d: %w", id, err)
	}
	defer unix.Close(fd)
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return "", fmt.Errorf("name cgroup %d: %w", id, err)
	}
	if path != root && !strings.HasPrefix(path, root+"/") {
		return "", fmt.Errorf("cgroup %d lies outside of %s", id, root)
	}
	return path, nil
}

// CgroupRoot finds where the v2 hierarchy is mounted: on hybrid machines that is beside the trees of v1.
func CgroupRoot() (string, error) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("read mounts: %w", err)
	}
	for line := range strings.Lines(string(table)) {
		before, after, _ := strings.Cut(line, " - ")
		fields := strings.Fields(before)
		if len(fields) > 4 && fields[3] == "/" && strings.HasPrefix(after, "cgroup2 ") {
			return fields[4], nil
		}
	}
	return "", errors.New("no whole cgroup v2 hierarchy is mounted")
}
