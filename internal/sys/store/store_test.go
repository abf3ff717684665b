package store_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tourniquet.dev/tourniquet/internal/sys/disk"
	"tourniquet.dev/tourniquet/internal/sys/disk/disktest"
	"tourniquet.dev/tourniquet/internal/sys/store"
)

func open(t *testing.T, dir string, fsys disk.FS) *store.Store {
	t.Helper()
	s, err := store.Open(store.Options{Dir: dir, FS: fsys, MaxBytes: 1 << 10})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestWhatWasPutIsGot(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, nil)
	for _, want := range [][]byte{{}, []byte("a"), bytes.Repeat([]byte("b"), 1<<10)} {
		digest, err := s.Put(t.Context(), want)
		if err != nil {
			t.Fatal(err)
		}
		again, err := s.Put(t.Context(), want)
		if err != nil || again != digest {
			t.Fatal(again, err)
		}
		r, err := store.OpenReader(store.Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		got, err := r.Get(t.Context(), digest)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if _, writes := r.(interface {
			Put(context.Context, []byte) (string, error)
		}); writes {
			t.Error("a reader can put")
		}
	}
	names, err := os.ReadDir(dir)
	if err != nil || len(names) != 3 {
		t.Errorf("%d files, want 3; %v", len(names), err)
	}
}

func TestGetRefuses(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, nil)
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	zeros := "sha256:" + strings.Repeat("0", 64)
	for name, tc := range map[string]struct {
		digest string
		want   error
	}{
		"nothing put":      {zeros, store.ErrNotFound},
		"an empty string":  {"", store.ErrDigest},
		"no prefix":        {zeros[7:], store.ErrDigest},
		"a path":           {"sha256:../../../../../../../../../../../../../../../../../../../../etc/passwd", store.ErrDigest},
		"a file's name":    {"secret", store.ErrDigest},
		"upper case":       {"sha256:" + strings.Repeat("A", 64), store.ErrDigest},
		"a longer one":     {zeros + "0", store.ErrDigest},
		"a NUL":            {zeros[:70] + "\x00", store.ErrDigest},
		"another function": {"sha512:" + strings.Repeat("0", 64), store.ErrDigest},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := s.Get(t.Context(), tc.digest); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
	if _, err := s.Put(t.Context(), make([]byte, 1<<10+1)); !errors.Is(err, store.ErrTooLarge) {
		t.Errorf("got %v, want ErrTooLarge", err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Get(cancelled, zeros); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want Canceled", err)
	}
	if _, err := store.OpenReader(store.Options{Dir: filepath.Join(dir, "none")}); err == nil {
		t.Error("a missing store opens for reading")
	}
}

func TestEveryFlippedByteIsDetectedAndRepaired(t *testing.T) {
	dir, d := t.TempDir(), &disktest.Disk{}
	s := open(t, dir, d)
	want := []byte("some evidence")
	digest, err := s.Put(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, strings.TrimPrefix(digest, "sha256:"))
	damages := [][]byte{nil, want[1:], append(bytes.Clone(want), 0), make([]byte, 4096)}
	for i := range want {
		bad := bytes.Clone(want)
		bad[i] ^= 1
		damages = append(damages, bad)
	}
	for _, bad := range damages {
		d.SetBytes(path, bad)
		if _, err := s.Get(t.Context(), digest); !errors.Is(err, store.ErrDamaged) {
			t.Errorf("%q: got %v, want ErrDamaged", bad, err)
		}
		if _, err := s.Put(t.Context(), want); err != nil {
			t.Errorf("%q: %v", bad, err)
		}
		if got, err := s.Get(t.Context(), digest); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%q: %q, %v after repair", bad, got, err)
		}
	}
}

func TestPowerCutKeepsWhatWasPut(t *testing.T) {
	for seed := range uint64(200) {
		dice := rand.New(rand.NewPCG(seed, 1))
		dir, d := t.TempDir(), &disktest.Disk{}
		left := dice.IntN(60)
		d.Fail = func(string, string) error {
			if left--; left < 0 {
				return syscall.ENOSPC
			}
			return nil
		}
		s := open(t, dir, d)
		var acked []string
		for i := byte(0); ; i++ {
			digest, err := s.Put(t.Context(), []byte{i})
			if err != nil {
				if !errors.Is(err, syscall.ENOSPC) {
					t.Fatalf("seed %d: %v", seed, err)
				}
				break
			}
			acked = append(acked, digest)
		}
		d.PowerCut(dice)
		d.Fail = nil
		for i, digest := range acked {
			if got, err := s.Get(t.Context(), digest); err != nil || !bytes.Equal(got, []byte{byte(i)}) {
				t.Errorf("seed %d: %q, %v", seed, got, err)
			}
		}
	}
}

func TestConcurrentPutsOfOneThing(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, nil)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range byte(20) {
				digest, err := s.Put(t.Context(), []byte{i})
				if err != nil {
					t.Error(err)
				}
				if got, err := s.Get(t.Context(), digest); err != nil || !bytes.Equal(got, []byte{i}) {
					t.Error(got, err)
				}
			}
		})
	}
	wg.Wait()
	names, err := os.ReadDir(dir)
	if err != nil || len(names) != 20 {
		t.Errorf("%d files, want 20; %v", len(names), err)
	}
}
