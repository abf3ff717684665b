package ledger_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/mod/sumdb/note"

	"tourniquet.dev/tourniquet/internal/ledger"
)

const origin = "tourniquet/test"

var (
	key  = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize))
	pub  = key.Public().(ed25519.PublicKey)
	when = time.Date(2026, 11, 23, 4, 5, 6, 7, time.UTC)
)

// A log is a tree with its entries.
type log struct {
	ledger.Tree
	encoded [][]byte
}

func newLog(t *testing.T, size int) *log {
	t.Helper()
	l := &log{}
	for i := range size {
		data, err := ledger.Entry{Kind: "receipt", Time: when.Add(time.Duration(i)), Body: json.RawMessage(fmt.Sprintf(`{"n":%d,"s":"<é>"}`, i))}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if at, err := l.Append(ledger.LeafHash(data)); err != nil || at != int64(i) {
			t.Fatal(at, err)
		}
		l.encoded = append(l.encoded, data)
	}
	return l
}

func (l *log) checkpoint(t *testing.T, size int64, key ed25519.PrivateKey) ledger.SignedSize {
	t.Helper()
	root, err := l.Root(size)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := ledger.Checkpoint{Origin: origin, Size: size, Root: root}.Sign(key)
	if err != nil {
		t.Fatal(err)
	}
	return ledger.SignedSize{Note: signed, Size: size}
}

func (l *log) bundle(t *testing.T, sizes, indexes []int64) ledger.Bundle {
	t.Helper()
	var signed []ledger.SignedSize
	for _, s := range sizes {
		signed = append(signed, l.checkpoint(t, s, key))
	}
	b, err := l.Bundle(origin, signed, indexes, func(i int64) ([]byte, error) { return l.encoded[i], nil })
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestEntryHasOneSpelling(t *testing.T) {
	zone := time.FixedZone("x", 3600)
	a, errA := ledger.Entry{Kind: "intent", Time: when, Body: json.RawMessage(`{"a": "<b>" }`)}.Encode()
	b, errB := ledger.Entry{Kind: "intent", Time: when.In(zone), Body: json.RawMessage("{\"a\":\n\"<b>\"}")}.Encode()
	if errA != nil || errB != nil {
		t.Fatal(errA, errB)
	}
	want := `{"kind":"intent","time":"2026-11-23T04:05:06.000000007Z","body":{"a":"<b>"}}`
	if diff := cmp.Diff([]string{want, want}, []string{string(a), string(b)}); diff != "" {
		t.Error(diff)
	}
	got, err := ledger.DecodeEntry(a)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(ledger.Entry{Kind: "intent", Time: when, Body: json.RawMessage(`{"a":"<b>"}`)}, got); diff != "" {
		t.Error(diff)
	}
	for name, bad := range map[string]string{
		"a space":          strings.Replace(want, ":", ": ", 1),
		"another order":    `{"time":"2026-11-23T04:05:06.000000007Z","kind":"intent","body":{}}`,
		"an extra key":     strings.Replace(want, `{"kind"`, `{"x":1,"kind"`, 1),
		"another zone":     strings.Replace(want, "Z", "+00:00", 1),
		"an upper-case":    strings.Replace(want, "intent", "Intent", 1),
		"a key's case":     strings.Replace(want, "kind", "Kind", 1),
		"no body":          `{"kind":"intent","time":"2026-11-23T04:05:06Z"}`,
		"trailing newline": want + "\n",
		"nothing":          "",
	} {
		if _, err := ledger.DecodeEntry([]byte(bad)); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func TestEveryProofHoldsAndOnlyThere(t *testing.T) {
	const size = 17
	l := newLog(t, size)
	for n := int64(1); n <= size; n++ {
		newer := open(t, l.checkpoint(t, n, key))
		for i := range n {
			proof, err := l.Inclusion(i, n)
			if err != nil {
				t.Fatal(err)
			}
			for j := range n {
				leaf, err := l.Leaf(j)
				if err != nil {
					t.Fatal(err)
				}
				if err := newer.CheckInclusion(i, leaf, proof); (err == nil) != (i == j) {
					t.Errorf("leaf %d at %d of %d: %v", j, i, n, err)
				}
			}
		}
		for o := range n + 1 {
			proof, err := l.Consistency(o, n)
			if err != nil {
				t.Fatal(err)
			}
			older := open(t, l.checkpoint(t, o, key))
			if err := newer.CheckConsistency(older, proof); err != nil {
				t.Errorf("%d to %d: %v", o, n, err)
			}
			older.Root[0] ^= 1
			if err := newer.CheckConsistency(older, proof); err == nil {
				t.Errorf("%d to %d: a fork is consistent", o, n)
			}
		}
	}
	if _, err := l.Inclusion(size, size); err == nil {
		t.Error("an entry past the end is proven")
	}
	if _, err := l.Root(size + 1); err == nil {
		t.Error("a tree past the end has a root")
	}
}

func open(t *testing.T, s ledger.SignedSize) ledger.Checkpoint {
	t.Helper()
	c, err := ledger.OpenCheckpoint(s.Note, origin, pub)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCheckpointIsAC2SPNote(t *testing.T) {
	l := newLog(t, 3)
	signed := l.checkpoint(t, 3, key)
	vkey, err := note.NewEd25519VerifierKey(origin, pub)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	n, err := note.Open(signed.Note, note.VerifierList(verifier))
	if err != nil {
		t.Fatal(err)
	}
	root, _ := l.Root(3)
	if want := origin + "\n3\n" + root.String() + "\n"; n.Text != want {
		t.Errorf("got %q, want %q", n.Text, want)
	}
}

func TestOpenCheckpointRefuses(t *testing.T) {
	l := newLog(t, 3)
	good := string(l.checkpoint(t, 3, key).Note)
	other := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{2}, ed25519.SeedSize))
	root, _ := l.Root(3)
	elsewhere, err := ledger.Checkpoint{Origin: "tourniquet/other", Size: 3, Root: root}.Sign(key)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(good, "\n")
	for name, bad := range map[string]string{
		"another key's signature":  string(l.checkpoint(t, 3, other).Note),
		"another log's checkpoint": string(elsewhere),
		"a second signature":       good + lines[4],
		"a stranger's signature":   good + strings.Split(string(l.checkpoint(t, 3, other).Note), "\n\n")[1],
		"an edited size":           strings.Replace(good, "\n3\n", "\n4\n", 1),
		"no signature":             strings.Join(lines[:4], ""),
		"nothing":                  "",
		"too much":                 good + strings.Repeat("\n", 2000),
		"a missing last newline":   strings.TrimSuffix(good, "\n"),
	} {
		if _, err := ledger.OpenCheckpoint([]byte(bad), origin, pub); !errors.Is(err, ledger.ErrCheckpoint) {
			t.Errorf("%s: got %v, want ErrCheckpoint", name, err)
		}
	}
	for i := range good {
		for _, c := range []byte("\n =+/0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") {
			bad := []byte(good)
			bad[i] = c
			if _, err := ledger.OpenCheckpoint(bad, origin, pub); err == nil && c != good[i] {
				t.Errorf("byte %d is %q instead of %q: accepted", i, c, good[i])
			}
		}
	}
}

func TestSignRefuses(t *testing.T) {
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (ledger.Checkpoint{Origin: origin}).Sign(weak); err == nil {
		t.Error("an RSA key signs")
	}
	for _, bad := range []string{"", "a b", "a+b", "a\nb", strings.Repeat("a", 201)} {
		if _, err := (ledger.Checkpoint{Origin: bad}).Sign(key); err == nil {
			t.Errorf("origin %q is accepted", bad)
		}
	}
}

func TestVerify(t *testing.T) {
	l := newLog(t, 9)
	for name, tc := range map[string]struct {
		sizes, indexes []int64
		complete       bool
	}{
		"some entries":       {[]int64{9}, []int64{1, 4, 8}, false},
		"all entries":        {[]int64{9}, []int64{0, 1, 2, 3, 4, 5, 6, 7, 8}, true},
		"several checkpoint": {[]int64{0, 2, 2, 7}, []int64{0, 6}, false},
		"an empty log":       {[]int64{0}, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			b := l.bundle(t, tc.sizes, tc.indexes)
			data, err := b.Encode()
			if err != nil {
				t.Fatal(err)
			}
			parsed, err := ledger.ParseBundle(data)
			if err != nil {
				t.Fatal(err)
			}
			v, err := ledger.Verify(parsed, pub)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.indexes, v.Indexes); diff != "" || v.Complete != tc.complete || len(v.Entries) != len(tc.indexes) {
				t.Errorf("%s complete %v, want %v", diff, v.Complete, tc.complete)
			}
		})
	}
}

func TestVerifyRefuses(t *testing.T) {
	l, fork := newLog(t, 9), newLog(t, 4)
	forged, err := ledger.Entry{Kind: "receipt", Time: when, Body: json.RawMessage(`{"n":99}`)}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fork.Append(ledger.LeafHash(forged)); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*ledger.Bundle){
		"an edited entry":            func(b *ledger.Bundle) { b.Entries[1].Entry = string(forged) },
		"an entry at another index":  func(b *ledger.Bundle) { b.Entries[1].Index = 5 },
		"a reordered bundle":         func(b *ledger.Bundle) { b.Entries[0], b.Entries[1] = b.Entries[1], b.Entries[0] },
		"an entry twice":             func(b *ledger.Bundle) { b.Entries = append(b.Entries[:1], b.Entries...) },
		"an index past the end":      func(b *ledger.Bundle) { b.Entries[1].Index = 9 },
		"a negative index":           func(b *ledger.Bundle) { b.Entries[0].Index = -1 },
		"a short proof":              func(b *ledger.Bundle) { b.Entries[0].Proof = b.Entries[0].Proof[1:] },
		"no checkpoint":              func(b *ledger.Bundle) { b.Checkpoints = nil },
		"another origin":             func(b *ledger.Bundle) { b.Origin = "x" },
		"a checkpoint of a fork":     func(b *ledger.Bundle) { b.Checkpoints[0].Note = string(fork.checkpoint(t, 5, key).Note) },
		"checkpoints that shrink":    func(b *ledger.Bundle) { b.Checkpoints[0], b.Checkpoints[1] = b.Checkpoints[1], b.Checkpoints[0] },
		"a proof for the first":      func(b *ledger.Bundle) { b.Checkpoints[0].Consistency = b.Checkpoints[1].Consistency },
		"a missing consistency":      func(b *ledger.Bundle) { b.Checkpoints[1].Consistency = nil },
		"an older checkpoint is all": func(b *ledger.Bundle) { b.Checkpoints = b.Checkpoints[:1] },
	} {
		b := l.bundle(t, []int64{5, 9}, []int64{2, 4, 8})
		change(&b)
		if _, err := ledger.Verify(b, pub); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

// I31: any edit of one byte of the record is detected offline, wherever it is.
func TestI31EveryOneByteEditOfABundleIsDetected(t *testing.T) {
	l := newLog(t, 4)
	good, err := l.bundle(t, []int64{2, 4}, []int64{0, 1, 2, 3}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	accepted := func(data []byte) bool {
		b, err := ledger.ParseBundle(data)
		if err != nil {
			return false
		}
		v, err := ledger.Verify(b, pub)
		return err == nil && v.Complete
	}
	if !accepted(good) {
		t.Fatal("the bundle itself is refused")
	}
	for i := range good {
		edits := [][]byte{append(bytes.Clone(good[:i]), good[i+1:]...), append(append(bytes.Clone(good[:i]), ' '), good[i:]...)}
		for bit := range 8 {
			edit := bytes.Clone(good)
			edit[i] ^= 1 << bit
			edits = append(edits, edit)
		}
		edit := bytes.Clone(good)
		edit[i] = '0'
		if edit[i] == good[i] {
			edit[i] = '1'
		}
		for _, edit := range append(edits, edit) {
			if bytes.Equal(edit, good) {
				continue
			}
			if accepted(edit) {
				t.Errorf("byte %d: %q accepted", i, edit[max(0, i-10):min(len(edit), i+10)])
			}
		}
	}
	if accepted(append(bytes.Clone(good), '\n')) || accepted(good[:len(good)-1]) {
		t.Error("an edit at the end is accepted")
	}
}

// Whatever bytes come, nothing verifies but the log's own entries at their places.
func FuzzVerifyBundle(f *testing.F) {
	t := &testing.T{}
	l := newLog(t, 4)
	for _, b := range []ledger.Bundle{l.bundle(t, []int64{4}, []int64{0, 3}), l.bundle(t, []int64{1, 4}, []int64{2}), l.bundle(t, []int64{0}, nil)} {
		data, err := b.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := ledger.ParseBundle(data)
		if err != nil {
			return
		}
		if _, err := ledger.Verify(b, pub); err != nil {
			return
		}
		for _, p := range b.Entries {
			if !bytes.Equal([]byte(p.Entry), l.encoded[p.Index]) {
				t.Fatalf("entry %d: %s", p.Index, p.Entry)
			}
		}
	})
}
