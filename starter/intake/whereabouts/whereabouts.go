// Package whereabouts remembers which workload a container, cgroup or pod belongs to, from what sensors have signed, so
// that another detector's event without Kubernetes metadata comes to the same incident. It is bounded and kept on disk, asks
// nobody, and decides nothing: what it does not know stays unresolved. Intake's server teaches and asks it.
package whereabouts

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/internal/sys/disk"
)

const (
	// generation is how many entries a file holds before the next one begins; the one before the last is forgotten.
	generation = 16_384
	// maxFile bounds what is read back.
	maxFile = 64 << 20
	// shortID is how much of a container's id every detector gives.
	shortID = 12
)

// Index is safe for concurrent use. Its file is written without fsync: what a power cut costs is told again by the next
// detection of that workload.
type Index struct {
	dir string

	mu       sync.Mutex
	old, new *maps
	file     disk.File
	size     int64
	told     chan struct{} // closed, and made anew, when something was learnt
}

// maps is one generation.
type maps struct {
	containers map[string][]detection.Workload // by cluster and short id; more than one: ambiguous unless the id is longer
	others     map[string]detection.Workload   // by cgroup, by pod UID, by pod name
	entries    int
}

func newMaps() *maps {
	return &maps{containers: map[string][]detection.Workload{}, others: map[string]detection.Workload{}}
}

// Open opens the index that is kept in dir, made if missing. A line that is not whole is passed over.
func Open(dir string) (*Index, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder of whereabouts: %w", err)
	}
	i := &Index{dir: dir, old: newMaps(), new: newMaps(), told: make(chan struct{})}
	if _, err := i.load("old", i.old); err != nil {
		return nil, err
	}
	size, err := i.load("new", i.new)
	if err != nil {
		return nil, err
	}
	i.size = size
	return i, i.open()
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (i *Index) load(name string, into *maps) (int64, error) {
	data, err := disk.ReadFile(disk.OS, filepath.Join(i.dir, name), maxFile)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read whereabouts: %w", err)
	}
	whole := bytes.LastIndexByte(data, '\n') + 1
	for line := range bytes.Lines(data[:whole]) {
		sum, doc, _ := strings.Cut(strings.TrimSuffix(string(line), "\n"), " ")
		var w detection.Workload
		if sum == checksum([]byte(doc)) && json.Unmarshal([]byte(doc), &w) == nil {
			into.add(w)
		}
	}
	return int64(whole), nil
}

func checksum(doc []byte) string {
	return strconv.FormatUint(uint64(crc32.Checksum(doc, castagnoli)), 16)
}

func (i *Index) open() error {
	f, err := disk.OS.OpenFile(filepath.Join(i.dir, "new"), os.O_RDWR|os.O_CREATE, 0o600)
	if err == nil {
		err = f.Truncate(i.size)
	}
	if err != nil {
		return fmt.Errorf("open whereabouts: %w", err)
	}
	i.file = f
	return nil
}

// Close makes what was learnt durable and closes the file.
func (i *Index) Close() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	return errors.Join(i.file.Sync(), i.file.Close())
}

// Learn takes the workload of a detection that a sensor signed. One that is known already costs no writing.
func (i *Index) Learn(w detection.Workload) error {
	if w.PodUID == "" && w.OwnerUID == "" {
		return nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.new.add(w) {
		return nil
	}
	close(i.told)
	i.told = make(chan struct{})
	doc, err := json.Marshal(w)
	if err != nil {
		return fmt.Errorf("encode whereabouts: %w", err)
	}
	line := []byte(checksum(doc) + " " + string(doc) + "\n")
	if _, err := i.file.WriteAt(line, i.size); err != nil {
		return fmt.Errorf("write whereabouts: %w", err)
	}
	i.size += int64(len(line))
	if i.new.entries < generation {
		return nil
	}
	return i.turn()
}

func (i *Index) turn() error {
	if err := errors.Join(i.file.Sync(), i.file.Close()); err != nil {
		return fmt.Errorf("turn whereabouts: %w", err)
	}
	if err := disk.OS.Rename(filepath.Join(i.dir, "new"), filepath.Join(i.dir, "old")); err != nil {
		return fmt.Errorf("turn whereabouts: %w", err)
	}
	i.old, i.new, i.size = i.new, newMaps(), 0
	return i.open()
}

func key(parts ...string) string { return strings.Join(parts, "\x00") }

// add reports whether it learnt something. What a sensor said before its informer knew the owner never replaces the owner.
func (m *maps) add(w detection.Workload) bool {
	fresh := false
	if len(w.ContainerID) >= shortID {
		at := key(w.Cluster, w.ContainerID[:shortID])
		fresh = m.addContainer(at, w)
	}
	put := func(at string) {
		if before, ok := m.others[at]; !ok || (before != w && !(w.OwnerUID == "" && before.PodUID == w.PodUID)) {
			fresh = fresh || !ok || before.OwnerUID != w.OwnerUID || before.PodUID != w.PodUID
			m.others[at] = w
		}
	}
	if w.CgroupID != 0 && w.Node != "" {
		put(key("cgroup", w.Cluster, w.Node, strconv.FormatUint(w.CgroupID, 10)))
	}
	if w.PodUID != "" {
		put(key("uid", w.Cluster, w.PodUID))
	}
	if w.Pod != "" {
		put(key("pod", w.Cluster, w.Namespace, w.Pod))
	}
	if fresh {
		m.entries++
	}
	return fresh
}

func (m *maps) addContainer(at string, w detection.Workload) bool {
	for n, before := range m.containers[at] {
		if before.ContainerID != w.ContainerID || before.PodUID != w.PodUID || before.Node != w.Node {
			continue
		}
		if before.OwnerUID == w.OwnerUID || w.OwnerUID == "" {
			return false
		}
		m.containers[at][n] = w
		return true
	}
	if len(m.containers[at]) >= 4 { // ambiguous already
		return false
	}
	m.containers[at] = append(m.containers[at], w)
	return true
}

// Resolve completes a place by the container's id, else by the cgroup of its node, else by the pod's UID, else by its
// name. how says by which, and is empty when nothing is known. Where two sensors tell different things of one container,
// neither is believed.
func (i *Index) Resolve(w detection.Workload) (found detection.Workload, how string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, m := range []*maps{i.new, i.old} {
		if found, how = m.resolve(w); how != "" {
			return found, how
		}
	}
	return w, ""
}

func (m *maps) resolve(w detection.Workload) (detection.Workload, string) {
	if len(w.ContainerID) >= shortID {
		var hits []detection.Workload
		for _, c := range m.containers[key(w.Cluster, w.ContainerID[:shortID])] {
			if strings.HasPrefix(c.ContainerID, w.ContainerID) || strings.HasPrefix(w.ContainerID, c.ContainerID) {
				hits = append(hits, c)
			}
		}
		if len(hits) == 1 {
			return hits[0], "container id"
		}
		if len(hits) > 1 {
			return w, ""
		}
	}
	for _, try := range []struct{ at, how string }{
		{key("cgroup", w.Cluster, w.Node, strconv.FormatUint(w.CgroupID, 10)), "cgroup id"},
		{key("uid", w.Cluster, w.PodUID), "pod UID"},
		{key("pod", w.Cluster, w.Namespace, w.Pod), "pod name"},
	} {
		found, ok := m.others[try.at]
		if !ok || (try.how == "pod name" && w.PodUID != "") {
			continue
		}
		if try.how != "cgroup id" { // the pod may hold other containers
			found.Container, found.ContainerID, found.CgroupID = w.Container, w.ContainerID, 0
		}
		return found, try.how
	}
	return w, ""
}

// Told returns a channel that is closed when the index next learns something.
func (i *Index) Told() <-chan struct{} {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.told
}
