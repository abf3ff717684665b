package stack

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A Book records what a stack puts on the machine outside of its folder, before it does, so that a later Clean can take
// it off after a demo that was killed. Clean touches nothing that does not stand in it. It is safe for concurrent use.
type Book struct {
	mu   sync.Mutex
	file *os.File
}

// entry is one line of the book.
type entry struct {
	Kind  string `json:"kind"`            // process, netns, cgroup, cgroup folder
	Name  string `json:"name"`            // of the part, of the namespace, or the folder's path
	PID   int    `json:"pid,omitempty"`   // of a process
	Start string `json:"start,omitempty"` // of a process: its start time, so that nobody else with the number is meant
}

const (
	kindProcess = "process"
	kindNetns   = "netns"
	kindCgroup  = "cgroup" // with all that lives in it
	kindFolder  = "cgroup folder"

	killWithin = 5 * time.Second
)

func openBook(dir string) (*Book, error) {
	f, err := os.OpenFile(bookPath(dir), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open book of what is on the machine: %w", err)
	}
	return &Book{file: f}, nil
}

func bookPath(dir string) string { return filepath.Join(dir, "machine.jsonl") }

func (b *Book) write(e entry) error {
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, err := b.file.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("record %s %s: %w", e.Kind, e.Name, err)
	}
	return nil
}

func (b *Book) process(name string, pid int) error {
	start, err := startTime(pid)
	if err != nil {
		return nil //nolint:nilerr // it has ended already: nothing to clean
	}
	return b.write(entry{Kind: kindProcess, Name: name, PID: pid, Start: start})
}

// Process records a process that is running.
func (b *Book) Process(name string, pid int) error { return b.process(name, pid) }

// Netns records a named network namespace, before it is made.
func (b *Book) Netns(name string) error { return b.write(entry{Kind: kindNetns, Name: name}) }

// Cgroup records a cgroup whose processes are ours, before it is made.
func (b *Book) Cgroup(path string) error { return b.write(entry{Kind: kindCgroup, Name: path}) }

// Folder records a folder of the cgroup tree that was not there, before it is made. It is removed only while it is empty.
func (b *Book) Folder(path string) error { return b.write(entry{Kind: kindFolder, Name: path}) }

// startTime identifies a process beyond its number: field 22 of its stat, in clock ticks since boot.
func startTime(pid int) (string, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	_, after, ok := strings.Cut(string(stat[max(0, strings.LastIndexByte(string(stat), ')')):]), " ")
	fields := strings.Fields(after)
	if !ok || len(fields) < 20 {
		return "", fmt.Errorf("stat of process %d is malformed", pid)
	}
	return fields[19], nil
}

// clean takes off the machine what the book in dir lists, the newest first, and says what it was.
func clean(dir string) (removed []string, err error) {
	f, err := os.Open(bookPath(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read book of what is on the machine: %w", err)
	}
	defer f.Close() // read only
	var all []entry
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var e entry
		if json.Unmarshal(lines.Bytes(), &e) == nil { // a line that was cut by a kill recorded nothing that was made
			all = append(all, e)
		}
	}
	var errs []error
	for _, e := range slices.Backward(all) {
		gone, err := e.remove()
		if err != nil {
			errs = append(errs, err)
		}
		if gone {
			removed = append(removed, strings.TrimSpace(e.Kind+" "+e.Name))
		}
	}
	return removed, errors.Join(errs...)
}

func (e entry) remove() (gone bool, err error) {
	switch e.Kind {
	case kindProcess:
		return e.kill()
	case kindNetns:
		if _, err := os.Stat("/run/netns/" + e.Name); err != nil {
			return false, nil //nolint:nilerr // it is not there
		}
		if out, err := exec.Command("ip", "netns", "delete", e.Name).CombinedOutput(); err != nil {
			return false, fmt.Errorf("delete network namespace %s: %w: %s", e.Name, err, strings.TrimSpace(string(out)))
		}
		return true, nil
	case kindCgroup:
		return RemoveCgroup(e.Name)
	case kindFolder:
		return syscall.Rmdir(e.Name) == nil, nil // others may use it by now
	}
	return false, nil
}

func (e entry) kill() (gone bool, err error) {
	if start, err := startTime(e.PID); err != nil || start != e.Start {
		return false, nil //nolint:nilerr // it has ended
	}
	p, err := os.FindProcess(e.PID)
	if err != nil {
		return false, nil //nolint:nilerr // it has ended
	}
	_ = p.Signal(syscall.SIGTERM)
	for deadline := time.Now().Add(killWithin); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if start, err := startTime(e.PID); err != nil || start != e.Start {
			return true, nil //nolint:nilerr // it has ended
		}
	}
	if err := p.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return false, fmt.Errorf("kill %s (process %d): %w", e.Name, e.PID, err)
	}
	return true, nil
}

// RemoveCgroup kills what lives in a cgroup and removes its folder, if it is there.
func RemoveCgroup(path string) (gone bool, err error) {
	if _, err := os.Stat(path); err != nil {
		return false, nil //nolint:nilerr // it is not there
	}
	for deadline := time.Now().Add(killWithin); ; time.Sleep(10 * time.Millisecond) {
		killAll(path)
		if err = syscall.Rmdir(path); err == nil {
			return true, nil
		}
		if time.Now().After(deadline) {
			return false, fmt.Errorf("remove cgroup %s: %w", path, err)
		}
	}
}

// killAll kills by the kernel's one write where it knows it, else one by one.
func killAll(path string) {
	if kill, err := os.OpenFile(filepath.Join(path, "cgroup.kill"), os.O_WRONLY, 0); err == nil {
		_, err = kill.WriteString("1")
		_ = kill.Close()
		if err == nil {
			return
		}
	}
	pids, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
	if err != nil {
		return
	}
	for _, field := range strings.Fields(string(pids)) {
		var pid int
		if _, err := fmt.Sscan(field, &pid); err == nil {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}
