package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/cilium/ebpf"
)

const (
	recordBusy    = 1 << 31
	recordDiscard = 1 << 30
	recordHeader  = 8
)

// ring reads a BPF ring buffer. Unlike a reader that spins on a record which is not complete yet, it says so: the
// critical reader runs at real-time priority, and the writer may be a preempted task of the same CPU, which would then
// never get to complete it. One goroutine at a time.
type ring struct {
	consumer []byte // one page that we write
	producer []byte // one page and the data, mapped twice in a row, that we read
	data     []byte
	mask     uint64
}

func newRing(m *ebpf.Map) (*ring, error) {
	page := os.Getpagesize()
	size := int(m.MaxEntries())
	consumer, err := unix.Mmap(m.FD(), 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map ring's consumer page: %w", err)
	}
	producer, err := unix.Mmap(m.FD(), int64(page), page+2*size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("map ring's data: %w", err), unix.Munmap(consumer))
	}
	return &ring{consumer: consumer, producer: producer, data: producer[page:], mask: uint64(size - 1)}, nil
}

func position(page []byte) *uint64 { return (*uint64)(unsafe.Pointer(&page[0])) }

// pending returns how many bytes wait to be read.
func (r *ring) pending() uint64 {
	return atomic.LoadUint64(position(r.producer)) - atomic.LoadUint64(position(r.consumer))
}

// peek returns the next complete record without taking it, and skips discarded ones. The record is valid until taken.
func (r *ring) peek() ([]byte, bool) {
	for {
		at := atomic.LoadUint64(position(r.consumer))
		if at >= atomic.LoadUint64(position(r.producer)) {
			return nil, false
		}
		begin := at & r.mask
		header := atomic.LoadUint32((*uint32)(unsafe.Pointer(&r.data[begin])))
		if header&recordBusy != 0 {
			return nil, false
		}
		size := uint64(header &^ (recordBusy | recordDiscard))
		if header&recordDiscard == 0 {
			return r.data[begin+recordHeader:][:size], true
		}
		r.advance(at, size)
	}
}

// take gives the room of the peeked record back to the kernel.
func (r *ring) take(record []byte) {
	r.advance(atomic.LoadUint64(position(r.consumer)), uint64(len(record)))
}

func (r *ring) advance(at, size uint64) {
	atomic.StoreUint64(position(r.consumer), at+(size+recordHeader+7)&^7)
}

func (r *ring) close() error {
	return errors.Join(unix.Munmap(r.consumer), unix.Munmap(r.producer))
}

// timeOf reads when a record was made, without decoding it.
func timeOf(record []byte) time.Duration {
	if len(record) < int(headerSize) {
		return 0
	}
	return time.Duration(binary.LittleEndian.Uint64(record[timeOffset:]))
}

// waker waits for the kernel to write into a ring, or for stop.
type waker struct {
	epoll int
	stop  int
}

func newWaker(ringFD int) (*waker, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create epoll: %w", err)
	}
	stop, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create eventfd: %w", err), unix.Close(epoll))
	}
	w := &waker{epoll: epoll, stop: stop}
	for _, fd := range []int{ringFD, stop} {
		event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
		if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
			return nil, errors.Join(fmt.Errorf("watch ring: %w", err), w.close())
		}
	}
	return w, nil
}

// wait returns false when it was stopped.
func (w *waker) wait() (bool, error) {
	var events [2]unix.EpollEvent
	for {
		n, err := unix.EpollWait(w.epoll, events[:], -1)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("wait for ring: %w", err)
		}
		for _, e := range events[:n] {
			if int(e.Fd) == w.stop {
				return false, nil
			}
		}
		return true, nil
	}
}

func (w *waker) interrupt() error {
	_, err := unix.Write(w.stop, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	return err
}

func (w *waker) close() error {
	return errors.Join(unix.Close(w.stop), unix.Close(w.epoll))
}
