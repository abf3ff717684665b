package probe_test

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"tourniquet.dev/tourniquet/sensor/probe"
)

const recordingHead = `{"format":"tourniquet-kernel-events","version":1,"boot":"2025-01-01T00:00:00Z"}` + "\n"

func TestARecordingPlaysAsItWasRecorded(t *testing.T) {
	var text strings.Builder
	recorder, err := probe.NewRecorder(&text, time.Unix(1_700_000_000, 0))
	if err != nil {
		t.Fatal(err)
	}
	want := []probe.Event{&probe.Blind{Meta: probe.Meta{At: 9}, Lost: "connect", Class: "telemetry", Cause: probe.CauseRingFull, Count: 3, From: 2}}
	for _, s := range samples() {
		want = append(want, s.want)
	}
	for _, event := range want {
		if err := recorder.Write(event); err != nil {
			t.Fatal(err)
		}
	}
	player, err := probe.NewPlayer(strings.NewReader(text.String()), probe.PlayOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := run(t, player); !cmp.Equal(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })) {
		t.Error(cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })))
	}
	if got := player.Wall(5); !got.Equal(time.Unix(1_700_000_000, 5)) {
		t.Errorf("wall time %v", got)
	}
}

func run(t *testing.T, source probe.Source) []probe.Event {
	t.Helper()
	out := make(chan probe.Event)
	done := make(chan error, 1)
	go func() { done <- source.Run(context.Background(), out); close(out) }()
	var got []probe.Event
	for event := range out {
		got = append(got, event)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	return got
}

func TestPlaceholdersAreReplaced(t *testing.T) {
	text := recordingHead + `{"kind":"cgroup","event":{"at_ns":1,"id":5,"path":"/kubepods/pod${UID}/x"}}` + "\n"
	player, err := probe.NewPlayer(strings.NewReader(text), probe.PlayOptions{Replace: map[string]string{"${UID}": `a"b`}})
	if err != nil {
		t.Fatal(err)
	}
	event, err := player.Next()
	if err != nil {
		t.Fatal(err)
	}
	if got := event.(*probe.Cgroup).Path; got != `/kubepods/poda"b/x` {
		t.Errorf("path %q", got)
	}
}

func TestAPacedRecordingTakesItsTimeAndIsShiftedToNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		text := recordingHead + `{"kind":"exit","event":{"at_ns":1000000000}}` + "\n" + `{"kind":"exit","event":{"at_ns":4000000000}}`
		player, err := probe.NewPlayer(strings.NewReader(text), probe.PlayOptions{Shift: true, Paced: true})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		got := run(t, player)
		if took := time.Since(began); took != 3*time.Second || len(got) != 2 {
			t.Errorf("%d events in %v", len(got), took)
		}
		if at := player.Wall(got[0].Head().At); !at.Equal(began) {
			t.Errorf("the first event is said to be at %v, the run began at %v", at, began)
		}
	})
}

func TestABadRecordingIsRefused(t *testing.T) {
	for name, text := range map[string]string{
		"empty":            "",
		"another format":   `{"format":"other","version":1,"boot":"2025-01-01T00:00:00Z"}`,
		"a later version":  `{"format":"tourniquet-kernel-events","version":2,"boot":"2025-01-01T00:00:00Z"}`,
		"unknown in head":  `{"format":"tourniquet-kernel-events","version":1,"boot":"2025-01-01T00:00:00Z","x":1}`,
		"unknown kind":     recordingHead + `{"kind":"nap","event":{}}`,
		"unknown field":    recordingHead + `{"kind":"exit","event":{"cod":1}}`,
		"wrong type":       recordingHead + `{"kind":"exit","event":{"code":"1"}}`,
		"torn":             recordingHead + `{"kind":"exit","eve`,
		"two on a line":    recordingHead + `{"kind":"exit","event":{}} {"kind":"exit","event":{}}`,
		"oversized":        recordingHead + `{"kind":"exit","event":{"comm":"` + strings.Repeat("x", 70_000) + `"}}`,
		"an event of null": recordingHead + `{"kind":"exit"}`,
	} {
		t.Run(name, func(t *testing.T) {
			player, err := probe.NewPlayer(strings.NewReader(text), probe.PlayOptions{})
			if err == nil {
				_, err = player.Next()
			}
			if !errors.Is(err, probe.ErrRecording) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestTheEndOfARecordingIsEOF(t *testing.T) {
	player, err := probe.NewPlayer(strings.NewReader(recordingHead), probe.PlayOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := player.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("error %v", err)
	}
}
