// Package journal keeps a ledger on disk: the memory of a process that decides or acts.
//
// There is one writer, held by a file lock. Append returns when the entry is on disk and covered by a signed checkpoint, and
// many at once share the cost. At start every byte is checked against the last checkpoint; what stands unfinished behind it
// was being written when the process died and is cut off, any other damage keeps the process from starting. The journal never repairs, never
// rewrites and never retries a failed fsync. decide and each enforcer open one; the operator's command line reads one.
//
// What it cannot see: a whole directory put back to an earlier state. Who must notice that keeps checkpoints elsewhere.
package journal

import (
	"crypto"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"tourniquet.dev/tourniquet/internal/ledger"
	"tourniquet.dev/tourniquet/internal/sys/disk"
	"tourniquet.dev/tourniquet/internal/sys/fault"
)

// The files of a journal, in its directory.
const (
	LogFile        = "journal.log"
	CheckpointFile = "checkpoint"
	lockFile       = "lock"
)

// MaxEntry is the largest encoded entry. What is larger belongs into the store, named by its digest.
const MaxEntry = 1 << 20

// maxBatch bounds how many appends share one fsync.
const maxBatch = 256

var (
	// ErrClosed says that the journal was closed before the append.
	ErrClosed = errors.New("journal closed")
	// ErrPoisoned says that the disk failed in a way after which nothing more can be promised. The process has to restart:
	// Open then tells what is really there.
	ErrPoisoned = errors.New("journal poisoned by a disk error")
)

// A DamageError says that a journal is not what its process wrote. A person has to look at it.
type DamageError struct {
	Path   string
	Offset int64 // in the log, or -1
	Index  int64 // of the entry, or -1
	Reason string
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("journal damaged: %s at byte %d, entry %d: %s", e.Path, e.Offset, e.Index, e.Reason)
}

// Options say where a journal is and who writes it.
type Options struct {
	Dir   string           // made if it is missing
	Name  string           // the ledger's origin, unique to this process: "tourniquet/contain-aws/prod"
	Key   crypto.Signer    // Ed25519; signs checkpoints
	Clock func() time.Time // time.Now if nil
	FS    disk.FS          // disk.OS if nil
}

// A Journal is open for writing. It is safe for concurrent use.
type Journal struct {
	opts     Options
	lock     *disk.Lock
	requests chan request
	stop     chan struct{} // closed by Close: no request is taken any more
	done     chan struct{} // closed when the writer has ended
	closing  sync.Once

	mu     sync.RWMutex // guards the rest; only the writer changes it
	view   View
	broken error // why it is poisoned
}

type request struct {
	kind  string
	body  json.RawMessage
	reply chan reply
}

type reply struct {
	index int64
	err   error
}

// Open takes the journal's lock, checks all of it and starts its writer. It fails with disk.ErrLocked when another process
// holds the lock, and with a *DamageError when the journal is not what its checkpoint says.
func Open(opts Options) (*Journal, error) {
	if opts.Clock == nil {
		opts.Clock = time.Now
	}
	if opts.FS == nil {
		opts.FS = disk.OS
	}
	if !ledger.ValidOrigin(opts.Name) {
		return nil, fmt.Errorf("open journal: %.60q cannot name one", opts.Name)
	}
	if opts.Key == nil {
		return nil, fmt.Errorf("open journal %s: no key", opts.Name)
	}
	if err := os.MkdirAll(opts.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open journal %s: %w", opts.Name, err)
	}
	lock, err := disk.TakeLock(filepath.Join(opts.Dir, lockFile))
	if err != nil {
		return nil, fmt.Errorf("open journal %s: %w", opts.Name, err)
	}
	j := &Journal{opts: opts, lock: lock, requests: make(chan request), stop: make(chan struct{}), done: make(chan struct{})}
	if err := j.restore(); err != nil {
		if j.view.file != nil {
			err = errors.Join(err, j.view.file.Close())
		}
		return nil, errors.Join(fmt.Errorf("open journal %s: %w", opts.Name, err), lock.Release())
	}
	go j.write()
	return j, nil
}

// restore brings the files of a new, closed or crashed journal to a state from which it can be appended to.
func (j *Journal) restore() error {
	public, ok := j.opts.Key.Public().(ed25519.PublicKey)
	if !ok {
		return fmt.Errorf("want an Ed25519 key, got %T", j.opts.Key.Public())
	}
	if err := j.create(); err != nil {
		return err
	}
	file, err := j.opts.FS.OpenFile(filepath.Join(j.opts.Dir, LogFile), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	j.view.file = file
	torn, err := j.view.load(j.opts.FS, j.opts.Dir, j.opts.Name, public, true)
	if err != nil {
		return err
	}
	if torn { // never acknowledged: its append did not return
		if err := file.Truncate(j.view.end); err != nil {
			return fmt.Errorf("cut torn record: %w", err)
		}
	}
	if !torn && j.view.signed.Size == j.view.tree.Size() {
		return nil
	}
	if err := file.Sync(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return j.sign(&j.view, nil)
}

// create makes the files of a new journal. The log comes first, so a checkpoint without a log is damage, and so is a log
// with content and no checkpoint; an empty log alone is a creation that was cut short.
func (j *Journal) create() error {
	logPath, checkpoint := filepath.Join(j.opts.Dir, LogFile), filepath.Join(j.opts.Dir, CheckpointFile)
	names, err := j.opts.FS.List(j.opts.Dir)
	if err != nil {
		return err
	}
	have := map[string]bool{}
	for _, name := range names {
		have[name] = true
		if strings.HasPrefix(name, disk.TempPrefix) { // a checkpoint that a crash left without its name
			if err := j.opts.FS.Remove(filepath.Join(j.opts.Dir, name)); err != nil {
				return err
			}
		}
	}
	switch {
	case have[CheckpointFile] && have[LogFile]:
		return nil
	case have[CheckpointFile]:
		return &DamageError{Path: logPath, Offset: -1, Index: -1, Reason: "missing beside its checkpoint"}
	}
	f, err := j.opts.FS.OpenFile(logPath, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	size, err := f.Size()
	if err = errors.Join(err, f.Sync(), f.Close(), j.opts.FS.SyncDir(j.opts.Dir)); err != nil {
		return err
	}
	if size > 0 {
		return &DamageError{Path: checkpoint, Offset: -1, Index: -1, Reason: "missing beside a log with entries"}
	}
	return j.sign(&View{}, nil)
}

// sign makes the checkpoint of v durable. Between the staging of its bytes and their fsync it calls before, if not nil: what
// fills the disk fails there, while everything can still be taken back.
func (j *Journal) sign(v *View, before func() error) error {
	root, err := v.tree.Root(v.tree.Size())
	if err != nil {
		return err
	}
	fault.Point("checkpoint.sign/before")
	signed, err := ledger.Checkpoint{Origin: j.opts.Name, Size: v.tree.Size(), Root: root}.Sign(j.opts.Key)
	if err != nil {
		return err
	}
	staged, err := disk.Stage(j.opts.FS, filepath.Join(j.opts.Dir, CheckpointFile), signed, 0o600)
	if err != nil {
		return err
	}
	if before != nil {
		err = before()
	}
	fault.Point("checkpoint.sign/after")
	if err == nil {
		err = staged.Sync()
	}
	if err != nil {
		staged.Discard()
		return errors.Join(ErrPoisoned, err)
	}
	fault.Point("checkpoint.rename/before")
	if err := staged.Rename(); err != nil {
		return errors.Join(ErrPoisoned, err)
	}
	fault.Point("checkpoint.rename/after")
	v.signed = ledger.SignedSize{Note: signed, Size: v.tree.Size()}
	return nil
}

// Append writes one entry and returns its index when it is on disk under a signed checkpoint. body is any JSON value. After
// an error the entry may be there or not, as after a lost reply; only what Append returned without one is promised.
// A full disk fails the append and leaves the journal usable; a failed fsync poisons it.
func (j *Journal) Append(kind string, body any) (int64, error) {
	raw, err := json.Marshal(body)
	if err != nil {
		return 0, fmt.Errorf("append %s: %w", kind, err)
	}
	r := request{kind, raw, make(chan reply, 1)}
	select {
	case j.requests <- r:
	case <-j.stop:
		return 0, fmt.Errorf("append %s: %w", kind, ErrClosed)
	}
	answer := <-r.reply
	if answer.err != nil {
		return 0, fmt.Errorf("append %s: %w", kind, answer.err)
	}
	return answer.index, nil
}

// write is the one writer: it takes what waits, writes it with one fsync and answers.
func (j *Journal) write() {
	defer close(j.done)
	for {
		select {
		case <-j.stop:
			return
		case first := <-j.requests:
			batch := append(make([]request, 0, maxBatch), first)
			for more := true; more && len(batch) < maxBatch; {
				select {
				case next := <-j.requests:
					batch = append(batch, next)
				default:
					more = false
				}
			}
			j.commit(batch)
		}
	}
}

func (j *Journal) commit(batch []request) {
	next := j.view // the writer alone changes it, so it may read without the lock
	answers := make([]reply, len(batch))
	err := j.broken
	if err == nil {
		err = j.commitTo(&next, batch, answers)
	}
	j.mu.Lock()
	if err == nil {
		j.view = next
	} else if errors.Is(err, ErrPoisoned) {
		j.broken = err
	}
	j.mu.Unlock()
	for i, r := range batch {
		if answers[i].err == nil {
			answers[i].err = err
		}
		r.reply <- answers[i]
	}
}

// commitTo writes the records of a batch behind v. An entry that cannot be encoded fails alone, in answers.
func (j *Journal) commitTo(v *View, batch []request, answers []reply) error {
	start := v.end
	var out []byte
	for i, r := range batch {
		entry := ledger.Entry{Kind: r.kind, Time: j.opts.Clock(), Body: r.body}
		encoded, err := entry.Encode()
		if err == nil && len(encoded) > MaxEntry {
			err = fmt.Errorf("entry of %d bytes, at most %d", len(encoded), MaxEntry)
		}
		if err != nil {
			answers[i].err = err
			continue
		}
		before := len(out)
		answers[i].index = v.tree.Size()
		out = appendRecord(out, v.tree.Size(), encoded)
		if err := v.add(ledger.LeafHash(encoded), int64(len(out)-before)); err != nil {
			return err
		}
	}
	if len(out) == 0 {
		return nil
	}
	if err := j.put(v, out, start); err != nil {
		if errors.Is(err, ErrPoisoned) {
			return err
		}
		if undo := v.file.Truncate(start); undo != nil { // a full disk is no reason to stop for good, a torn record is
			return errors.Join(ErrPoisoned, err, undo)
		}
		return err
	}
	return nil
}

func (j *Journal) put(v *View, out []byte, start int64) error {
	fault.Point("leaf.write/before")
	if _, err := v.file.WriteAt(out, start); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	fault.Point("leaf.write/during")
	return j.sign(v, func() error {
		if err := v.file.Sync(); err != nil {
			return fmt.Errorf("sync: %w", err)
		}
		fault.Point("leaf.write/after")
		return nil
	})
}

// View returns what is in the journal now. It stays as it is while the journal grows, and can be read until Close.
func (j *Journal) View() *View {
	j.mu.RLock()
	defer j.mu.RUnlock()
	v := j.view
	return &v
}

// Range calls f for each entry from index from on, in order, and stops at its first error.
func (j *Journal) Range(from int64, f func(index int64, e ledger.Entry) error) error {
	return j.View().Range(from, f)
}

// Err says why the journal is poisoned, or nil. A process that finds an error here must stop deciding and restart.
func (j *Journal) Err() error {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.broken
}

// Close waits for appends that the writer has taken, then gives up the file and the lock. Later appends fail with ErrClosed.
func (j *Journal) Close() error {
	err := error(nil)
	j.closing.Do(func() {
		close(j.stop)
		<-j.done
		err = errors.Join(j.view.file.Close(), j.lock.Release())
	})
	if err != nil {
		return fmt.Errorf("close journal %s: %w", j.opts.Name, err)
	}
	return nil
}
