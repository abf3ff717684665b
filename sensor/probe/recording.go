package probe

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"tourniquet.dev/tourniquet/bpf"
)

// A recording is a text: one JSON object a line, first the head, then the events.

const (
	recordingFormat  = "tourniquet-kernel-events"
	recordingVersion = 1
	maxRecordedLine  = 64 << 10
)

// ErrRecording marks a recording that cannot be read; the error says which line.
var ErrRecording = errors.New("malformed recording")

type recordingHead struct {
	Format  string    `json:"format"`
	Version int       `json:"version"`
	Boot    time.Time `json:"boot"` // the moment from which the events' times count
}

type recordedEvent struct {
	Kind  string          `json:"kind"`
	Event json.RawMessage `json:"event"`
}

const kindBlind = "blind"

// newEvent returns an empty event of the kind, to be decoded into; nil for an unknown one.
func newEvent(kind string) Event {
	switch kind {
	case bpf.KindExec.String():
		return &Exec{}
	case bpf.KindFork.String():
		return &Fork{}
	case bpf.KindExit.String():
		return &Exit{}
	case bpf.KindOpen.String():
		return &Open{}
	case bpf.KindConnect.String():
		return &Connect{}
	case bpf.KindCgroup.String():
		return &Cgroup{}
	case bpf.KindUring.String():
		return &Uring{}
	case bpf.KindCall.String():
		return &Call{}
	case bpf.KindCred.String():
		return &Cred{}
	case bpf.KindUnix.String():
		return &Unix{}
	case bpf.KindDNS.String():
		return &DNS{}
	case kindBlind:
		return &Blind{}
	}
	return nil
}

// KindName returns the name of an event's kind, as recordings and metrics use it.
func KindName(e Event) string {
	switch e.(type) {
	case *Exec:
		return bpf.KindExec.String()
	case *Fork:
		return bpf.KindFork.String()
	case *Exit:
		return bpf.KindExit.String()
	case *Open:
		return bpf.KindOpen.String()
	case *Connect:
		return bpf.KindConnect.String()
	case *Cgroup:
		return bpf.KindCgroup.String()
	case *Uring:
		return bpf.KindUring.String()
	case *Call:
		return bpf.KindCall.String()
	case *Cred:
		return bpf.KindCred.String()
	case *Unix:
		return bpf.KindUnix.String()
	case *DNS:
		return bpf.KindDNS.String()
	default:
		return kindBlind
	}
}

// Recorder writes events down as Player reads them. Safe for concurrent use. Bytes that are not UTF-8 are lost.
type Recorder struct {
	mu  sync.Mutex
	out *json.Encoder
}

// NewRecorder begins a recording of a source; boot is the moment from which its events' times count, src.Wall(0).
func NewRecorder(w io.Writer, boot time.Time) (*Recorder, error) {
	r := &Recorder{out: json.NewEncoder(w)}
	r.out.SetEscapeHTML(false)
	if err := r.out.Encode(recordingHead{recordingFormat, recordingVersion, boot.UTC()}); err != nil {
		return nil, fmt.Errorf("begin recording: %w", err)
	}
	return r, nil
}

// Write adds one event.
func (r *Recorder) Write(e Event) error {
	body, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("record %s: %w", KindName(e), err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.out.Encode(recordedEvent{KindName(e), body}); err != nil {
		return fmt.Errorf("record %s: %w", KindName(e), err)
	}
	return nil
}

// PlayOptions says how a recording is played.
type PlayOptions struct {
	Replace map[string]string // texts in the recording, such as ${POD_UID}, and what stands for them now
	Shift   bool              // move all times so that the first event happens at the start of Run
	Paced   bool              // wait between events as long as it took; needs Shift to make sense of Wall
}

// Player is a recording as a Source.
type Player struct {
	options  PlayOptions
	lines    *bufio.Reader
	replacer *strings.Replacer
	line     int

	mu    sync.Mutex
	boot  time.Time
	shift time.Duration
	begun bool
}

// NewPlayer reads the head of a recording. The rest is read by Run, from the same reader.
func NewPlayer(recording io.Reader, o PlayOptions) (*Player, error) {
	var pairs []string
	for from, to := range o.Replace {
		quoted, err := json.Marshal(to)
		if err != nil {
			return nil, fmt.Errorf("replace %s: %w", from, err)
		}
		pairs = append(pairs, from, string(quoted[1:len(quoted)-1]))
	}
	p := &Player{options: o, lines: bufio.NewReaderSize(recording, maxRecordedLine), replacer: strings.NewReplacer(pairs...)}
	line, err := p.next()
	if err != nil {
		return nil, fmt.Errorf("%w: no head: %w", ErrRecording, err)
	}
	var head recordingHead
	if err := strictly(line, &head); err != nil {
		return nil, fmt.Errorf("%w: head: %w", ErrRecording, err)
	}
	if head.Format != recordingFormat || head.Version != recordingVersion {
		return nil, fmt.Errorf("%w: head: format %q version %d, want %q version %d", ErrRecording, head.Format, head.Version, recordingFormat, recordingVersion)
	}
	p.boot = head.Boot
	return p, nil
}

// next returns the next line that is not empty, or io.EOF.
func (p *Player) next() ([]byte, error) {
	for {
		line, err := p.lines.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			return nil, fmt.Errorf("line %d is longer than %d bytes", p.line+1, maxRecordedLine)
		}
		if len(line) == 0 {
			return nil, err
		}
		p.line++
		if line = bytes.TrimSpace(line); len(line) > 0 {
			return []byte(p.replacer.Replace(string(line))), nil
		}
	}
}

func strictly(line []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if d.More() {
		return errors.New("more than one object")
	}
	return nil
}

// Next returns the next event with its times as recorded; io.EOF after the last one.
func (p *Player) Next() (Event, error) {
	line, err := p.next()
	if errors.Is(err, io.EOF) {
		return nil, io.EOF
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRecording, err)
	}
	var recorded recordedEvent
	if err := strictly(line, &recorded); err != nil {
		return nil, fmt.Errorf("%w: line %d: %w", ErrRecording, p.line, err)
	}
	event := newEvent(recorded.Kind)
	if event == nil {
		return nil, fmt.Errorf("%w: line %d: kind %q", ErrRecording, p.line, recorded.Kind)
	}
	if err := strictly(recorded.Event, event); err != nil {
		return nil, fmt.Errorf("%w: line %d: %s: %w", ErrRecording, p.line, recorded.Kind, err)
	}
	return event, nil
}

// Wall returns when an event happened: as recorded, or as shifted.
func (p *Player) Wall(at time.Duration) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.boot.Add(p.shift + at)
}

// Run plays the recording to its end.
func (p *Player) Run(ctx context.Context, out chan<- Event) error {
	started := time.Now()
	var first time.Duration
	for {
		event, err := p.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		at := event.Head().At
		if p.begin(started, at) {
			first = at
		}
		if p.options.Paced && !sleepUntil(ctx, started.Add(at-first)) {
			return nil
		}
		select {
		case out <- event:
		case <-ctx.Done():
			return nil
		}
	}
}

// begin fixes the shift by the first event; true for that one.
func (p *Player) begin(started time.Time, at time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.begun {
		return false
	}
	p.begun = true
	if p.options.Shift {
		p.shift = started.Sub(p.boot.Add(at))
	}
	return true
}

func sleepUntil(ctx context.Context, when time.Time) bool {
	timer := time.NewTimer(time.Until(when))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
