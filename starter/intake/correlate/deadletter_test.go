package correlate_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"tourniquet.dev/tourniquet/starter/intake/correlate"
)

func TestDeadLettersAreBoundedAndKeptOnce(t *testing.T) {
	dir := t.TempDir()
	d, err := correlate.OpenDeadLetters(dir, 600)
	if err != nil {
		t.Fatal(err)
	}
	letter := correlate.Letter{From: "scout", Kind: "detection", Code: "malformed", Reason: "x", Body: []byte("poison")}
	if known, err := d.Put(letter); known || err != nil {
		t.Fatal(known, err)
	}
	if d, err = correlate.OpenDeadLetters(dir, 600); err != nil { // restarted
		t.Fatal(err)
	}
	if known, err := d.Put(letter); !known || err != nil {
		t.Errorf("the same again: known %v, %v", known, err)
	}
	letter.Body = make([]byte, 600)
	if _, err := d.Put(letter); !errors.Is(err, correlate.ErrDeadLettersFull) {
		t.Errorf("beyond the bound: %v", err)
	}
	if files, _ := os.ReadDir(dir); len(files) != 1 {
		t.Errorf("%d files, want 1", len(files))
	}
}

func TestSeenSurvivesATornTail(t *testing.T) {
	dir := t.TempDir()
	s, err := correlate.OpenSeen(dir)
	if err != nil {
		t.Fatal(err)
	}
	a, b := correlate.DetectionKey("n", "a"), correlate.DetectionKey("n", "b")
	if err := errors.Join(s.Commit([]correlate.Key{a, b}), s.Close()); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, "new"), 20); err != nil {
		t.Fatal(err)
	}
	if s, err = correlate.OpenSeen(dir); err != nil {
		t.Fatal(err)
	}
	if !s.Known(a) || s.Known(b) {
		t.Errorf("knows a %v, b %v; want a only", s.Known(a), s.Known(b))
	}
	if err := errors.Join(s.Commit([]correlate.Key{b}), s.Close()); err != nil {
		t.Fatal(err)
	}
	if s, err = correlate.OpenSeen(dir); err != nil || !s.Known(a) || !s.Known(b) {
		t.Errorf("after it was written again: %v", err)
	}
	s.Close()
}

func TestSeenForgetsTheOldestOnly(t *testing.T) {
	s, err := correlate.OpenSeen(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	key := func(i int) correlate.Key { return correlate.DetectionKey("n", fmt.Sprint(i)) }
	for from := 0; from < 3<<16; from += 1 << 12 {
		var keys []correlate.Key
		for i := range 1 << 12 {
			keys = append(keys, key(from+i))
		}
		if err := s.Commit(keys); err != nil {
			t.Fatal(err)
		}
	}
	if s.Known(key(0)) || !s.Known(key(2<<16)) || !s.Known(key(3<<16-1)) {
		t.Errorf("knows the first %v, the last generation %v %v", s.Known(key(0)), s.Known(key(2<<16)), s.Known(key(3<<16-1)))
	}
}
