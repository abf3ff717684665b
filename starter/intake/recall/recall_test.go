package recall_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"tourniquet.dev/tourniquet/starter/intake/recall"
)

var began = time.Date(2026, 11, 23, 4, 5, 6, 0, time.UTC)

func open(t *testing.T, dir string) *recall.Store {
	t.Helper()
	s, err := recall.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestFirstTimeStaysOverARestart(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for n := range 2 {
		if err := s.Met("a", began.Add(time.Duration(n)*time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Met("b", began); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "new")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[28+3] ^= 1 // in the second record
	if err := os.WriteFile(path, append(data, 1, 2, 3), 0o600); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	defer s.Close()
	if at, ok := s.First("a"); !ok || !at.Equal(began) {
		t.Errorf("a: %s, %t", at, ok)
	}
	if _, ok := s.First("b"); ok {
		t.Error("a damaged record was believed")
	}
}

func TestIsBoundedAndKeepsWhatIsMet(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	defer s.Close()
	for n := range 300_000 {
		if err := s.Met(fmt.Sprint(n), began.Add(time.Duration(n))); err != nil {
			t.Fatal(err)
		}
		if n%10_000 == 0 {
			if err := s.Met("always", began.Add(time.Duration(n)*time.Second)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if at, ok := s.First("always"); !ok || !at.Equal(began) {
		t.Errorf("what is met all the time: %s, %t", at, ok)
	}
	if _, ok := s.First("0"); ok {
		t.Error("the first of 300000 is still known")
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 2 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, f := range files {
		if info, err := f.Info(); err != nil || info.Size() > 28<<16 {
			t.Errorf("%s has %d bytes", f.Name(), info.Size())
		}
	}
}
