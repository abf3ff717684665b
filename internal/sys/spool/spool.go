// Package spool keeps payloads on disk between the moment they are taken and the moment someone else has them.
//
// Append returns when the payload is fsynced, and many at once share one fsync. A reader gets them in order, critical ones
// first, again after each restart until they are acknowledged. Of damage a spool loses the records that were hit and no
// others, tells that it did, and never hands out a changed one. It is bounded, keeps room for critical payloads, and refuses
// with ErrFull rather than drop. It never retries a failed fsync, never maps a file and does not look into payloads. The
// sensor and intake each have one; a Spool has one reader.
package spool

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"tourniquet.dev/tourniquet/internal/sys/disk"
)

// A Lane is a queue of its own inside a spool.
type Lane uint8

// Critical payloads are read first and have room kept for them.
const (
	Critical Lane = iota
	Normal
	laneCount
)

func (l Lane) String() string {
	switch l {
	case Critical:
		return "critical"
	case Normal:
		return "normal"
	}
	return fmt.Sprintf("lane(%d)", uint8(l))
}

// Valid says whether there is such a lane.
func (l Lane) Valid() bool { return l < laneCount }

// MaxRecord is the largest payload.
const MaxRecord = 1 << 20

// What Options are when they do not say.
const (
	DefaultMaxBytes     = 1 << 30
	DefaultSegmentBytes = 8 << 20
)

// What one write may hold, of one lane, and how many appends may wait for theirs.
const (
	maxBatch      = 256
	maxBatchBytes = 4 << 20
	maxQueue      = 4096
)

var (
	// ErrFull says that the spool has no room for a payload of this lane. It will have when something is acknowledged.
	ErrFull = errors.New("spool full")
	// ErrTooLarge says that a payload is over MaxRecord.
	ErrTooLarge = errors.New("payload too large for the spool")
	// ErrClosed says that the spool was closed before.
	ErrClosed = errors.New("spool closed")
	// ErrPoisoned says that the disk failed in a way after which nothing more can be promised. The process has to restart:
	// what was acknowledged to appenders is there, and Open finds it.
	ErrPoisoned = errors.New("spool poisoned by a disk error")
)

// Options say where a spool is and how large it may grow.
type Options struct {
	Dir          string           // made if it is missing
	MaxBytes     int64            // of all segments; DefaultMaxBytes if 0
	SegmentBytes int64            // after which the next segment begins; DefaultSegmentBytes if 0
	ReserveBytes int64            // of MaxBytes, for critical payloads alone; an eighth if 0
	Clock        func() time.Time // time.Now if nil
	FS           disk.FS          // disk.OS if nil
}

// Stats are figures since Open, but for Pending and Bytes, which are as of now.
type Stats struct {
	Pending    [laneCount]uint64 // appended and not acknowledged
	Refused    [laneCount]uint64 // appends that failed with ErrFull: each is a payload that its sender still has, or nobody
	Bytes      int64             // in segments
	Damaged    uint64            // places at which a segment was not as it was written
	Lost       uint64            // records that are missing because of damage
	Torn       uint64            // unfinished records at the end of a segment: their appends did not return
	Unsaved    uint64            // quarantine and cursor files that a full disk did not take
	Recovered  uint64            // the highest sequence that Open found: what is beyond was appended since
	CursorLost bool              // the cursor was damaged at Open: what was acknowledged is read again
}

// A Spool is open for one process. It is safe for concurrent use, but Next has one caller at a time, or order has no meaning.
type Spool struct {
	opts  Options
	lock  *disk.Lock
	lanes [laneCount]*lane
	next  uint64 // sequence; the writer's own

	wake chan struct{} // to the writer: there is something in queue
	more chan struct{} // to the reader: there is something to read
	stop chan struct{}
	done chan struct{}
	once sync.Once

	mu      sync.Mutex // guards what follows, and the lanes' lists of segments
	queue   [laneCount][]request
	closed  bool
	broken  error
	stats   Stats
	reserve bool // the reserve file is on disk
	cursor  [laneCount]position

	reading sync.Mutex // guards what is the reader's own; taken before mu
}

// A position is that of a record, in the spool and in its lane.
type position struct{ sequence, ordinal uint64 }

type request struct {
	payload []byte
	reply   chan reply
}

type reply struct {
	sequence uint64
	err      error
}

// Open takes the spool's lock and finds what is in it. It fails with disk.ErrLocked when another process has it. Damage is no
// reason to fail: it is met, counted and put aside when the reader comes there.
func Open(opts Options) (*Spool, error) {
	opts.MaxBytes = cmp.Or(opts.MaxBytes, DefaultMaxBytes)
	opts.SegmentBytes = cmp.Or(opts.SegmentBytes, min(DefaultSegmentBytes, opts.MaxBytes/8))
	opts.ReserveBytes = cmp.Or(opts.ReserveBytes, opts.MaxBytes/8)
	if opts.Clock == nil {
		opts.Clock = time.Now
	}
	if opts.FS == nil {
		opts.FS = disk.OS
	}
	// A segment goes only as a whole, and each lane keeps its last one: four leave room for what is not acknowledged.
	if opts.SegmentBytes < 1 || opts.ReserveBytes < 1 || opts.SegmentBytes > (opts.MaxBytes-opts.ReserveBytes)/4 {
		return nil, fmt.Errorf("open spool: %d bytes are too few for segments of %d and a reserve of %d", opts.MaxBytes, opts.SegmentBytes, opts.ReserveBytes)
	}
	if err := os.MkdirAll(opts.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	lock, err := disk.TakeLock(filepath.Join(opts.Dir, "lock"))
	if err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	s := &Spool{
		opts: opts, lock: lock,
		wake: make(chan struct{}, 1), more: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
	}
	if err := s.restore(); err != nil {
		return nil, errors.Join(fmt.Errorf("open spool: %w", err), lock.Release())
	}
	go s.write()
	return s, nil
}

func (s *Spool) restore() error {
	if err := s.loadCursor(); err != nil {
		return err
	}
	names, err := s.opts.FS.List(s.opts.Dir)
	if err != nil {
		return err
	}
	for l := range laneCount {
		if s.lanes[l], err = s.openLane(l, names); err != nil {
			return err
		}
		s.stats.Bytes += s.lanes[l].bytes()
		s.stats.Recovered = max(s.stats.Recovered, s.lanes[l].durable.sequence)
	}
	s.next = s.stats.Recovered + 1
	return s.keepReserve()
}

// Append writes a payload and returns its sequence when it is on disk. It fails with ErrFull, ErrTooLarge,
// ErrPoisoned or ErrClosed, all of which mean that the spool does not have it. When ctx ends first, it may have it or not.
func (s *Spool) Append(ctx context.Context, lane Lane, payload []byte) (uint64, error) {
	if !lane.Valid() {
		return 0, fmt.Errorf("append to %v: no such lane", lane)
	}
	if len(payload) > MaxRecord {
		return 0, fmt.Errorf("append to spool: %w: %d bytes, at most %d", ErrTooLarge, len(payload), MaxRecord)
	}
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("append to spool: %w", err)
	}
	r := request{bytes.Clone(payload), make(chan reply, 1)} // the writer may come to it after ctx has ended
	if err := s.enqueue(lane, r); err != nil {
		return 0, fmt.Errorf("append to spool: %w", err)
	}
	select {
	case answer := <-r.reply:
		if answer.err != nil {
			return 0, fmt.Errorf("append to spool: %w", answer.err)
		}
		return answer.sequence, nil
	case <-ctx.Done():
		return 0, fmt.Errorf("append to spool: %w", ctx.Err())
	}
}

func (s *Spool) enqueue(lane Lane, r request) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return ErrClosed
	case len(s.queue[lane]) >= maxQueue:
		s.stats.Refused[lane]++
		return ErrFull
	}
	s.queue[lane] = append(s.queue[lane], r)
	poke(s.wake)
	return nil
}

// poke wakes who waits on c, or who will.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// write is the one writer: it takes what is queued, lane by lane, critical first.
func (s *Spool) write() {
	defer close(s.done)
	for {
		select {
		case <-s.wake:
		case <-s.stop:
			s.drain() // what was queued before Close still counts
			return
		}
		s.drain()
	}
}

// drain writes until nothing is queued. It comes back to the critical lane after each batch.
func (s *Spool) drain() {
	for {
		lane, batch := s.take()
		if len(batch) == 0 {
			return
		}
		s.commit(s.lanes[lane], batch)
		poke(s.more)
	}
}

func (s *Spool) take() (Lane, []request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range laneCount {
		n, size := 0, 0
		for n < len(s.queue[l]) && n < maxBatch && size < maxBatchBytes {
			size += len(s.queue[l][n].payload)
			n++
		}
		if n > 0 {
			batch := s.queue[l][:n:n]
			if s.queue[l] = s.queue[l][n:]; len(s.queue[l]) == 0 {
				s.queue[l] = nil
			}
			return l, batch
		}
	}
	return 0, nil
}

// commit writes one batch of a lane and answers it.
func (s *Spool) commit(l *lane, batch []request) {
	answers := make([]reply, len(batch))
	fits, out := s.encode(l, batch, answers)
	last := position{s.next + fits - 1, l.durable.ordinal + fits}
	var err error
	if fits > 0 {
		if err = l.append(out, last); noRoom(err) && l.id == Critical && s.spendReserve() {
			err = l.append(out, last)
		}
	}
	s.mu.Lock()
	switch {
	case err == nil:
		s.stats.Bytes += int64(len(out))
		s.next += fits
	case noRoom(err):
		err = fmt.Errorf("%w: %w", ErrFull, err)
		s.stats.Refused[l.id] += fits
	default:
		err = s.poison(err)
	}
	s.mu.Unlock()
	for i, r := range batch {
		if answers[i].err == nil {
			answers[i].err = err
		}
		r.reply <- answers[i]
	}
}

// encode lays out the payloads of a batch that have room, in order, and answers the others.
func (s *Spool) encode(l *lane, batch []request, answers []reply) (fits uint64, out []byte) {
	s.mu.Lock()
	room := s.opts.MaxBytes - s.stats.Bytes
	if l.id != Critical {
		room -= s.opts.ReserveBytes
	}
	broken := s.broken
	s.mu.Unlock()
	mark, start := l.goesTo()
	now := s.opts.Clock()
	for i, r := range batch {
		switch size := int64(overhead + len(r.payload)); {
		case broken != nil:
			answers[i].err = broken
		case size > room:
			answers[i].err = ErrFull
			s.mu.Lock()
			s.stats.Refused[l.id]++
			s.mu.Unlock()
		default:
			room -= size
			answers[i].sequence = s.next + fits
			out = appendRecord(out, start+int64(len(out)), mark, s.next+fits, l.durable.ordinal+1+fits, now, r.payload)
			fits++
		}
	}
	return fits, out
}

// noRoom says that a disk or quota is full and that nothing was spoilt by it.
func noRoom(err error) bool {
	return (errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)) && !errors.Is(err, ErrPoisoned)
}

// poison remembers the first error after which nothing can be promised. The caller holds mu.
func (s *Spool) poison(err error) error {
	if !errors.Is(err, ErrPoisoned) {
		err = fmt.Errorf("%w: %w", ErrPoisoned, err)
	}
	s.broken = cmp.Or(s.broken, err)
	return err
}

// Stats returns the figures.
func (s *Spool) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.stats
	for l, lane := range s.lanes {
		out.Pending[l] = lane.durable.ordinal - min(s.cursor[l].ordinal, lane.durable.ordinal)
	}
	return out
}

// Err says why the spool is poisoned, or nil. A process that finds an error here has to restart.
func (s *Spool) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.broken
}

// Close writes what was queued, then gives up the files and the lock. Append, Next and Ack fail with ErrClosed after it.
func (s *Spool) Close() error {
	var err error
	s.once.Do(func() {
		s.mu.Lock()
		s.closed = true
		s.mu.Unlock()
		close(s.stop)
		<-s.done
		s.reading.Lock()
		defer s.reading.Unlock()
		for _, l := range s.lanes {
			err = errors.Join(err, l.close())
		}
		err = errors.Join(err, s.lock.Release())
	})
	if err != nil {
		return fmt.Errorf("close spool: %w", err)
	}
	return nil
}
