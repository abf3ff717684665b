// Package ledger is the arithmetic of an append-only log: entries, the Merkle tree over them, signed checkpoints, and the
// proofs by which someone who holds only a few entries can tell that they stand in the log and that nobody rewrote it.
//
// The tree is that of RFC 6962, a checkpoint is a C2SP signed note (https://c2sp.org/tlog-checkpoint), so that outside
// witnesses and tools can read both. The package is pure: it opens no file, reads no clock and asks no network. sys/journal
// keeps a log on disk with it; `tourniquet audit` verifies bundles with it.
package ledger

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

// An Entry is one fact that a process wrote down.
type Entry struct {
	Kind string          `json:"kind"` // what it is, such as "intent" or "receipt"
	Time time.Time       `json:"time"` // by the writer's clock, in UTC
	Body json.RawMessage `json:"body"` // what it says; a JSON document
}

var validKind = regexp.MustCompile(`^[a-z][a-z0-9./-]{0,63}$`)

// Encode returns the bytes that the tree hashes: one JSON document without line breaks. Equal entries have equal bytes.
func (e Entry) Encode() ([]byte, error) {
	if !validKind.MatchString(e.Kind) {
		return nil, fmt.Errorf("encode entry: kind %.70q is not lower-case words", e.Kind)
	}
	e.Time = e.Time.UTC().Round(0)
	if len(e.Body) == 0 {
		return nil, fmt.Errorf("encode entry %s: no body", e.Kind)
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e); err != nil {
		return nil, fmt.Errorf("encode entry %s: %w", e.Kind, err)
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

// DecodeEntry reads what Encode wrote and refuses any other spelling of it.
func DecodeEntry(data []byte) (Entry, error) {
	var e Entry
	if err := json.Unmarshal(data, &e); err != nil {
		return Entry{}, fmt.Errorf("decode entry: %w", err)
	}
	again, err := e.Encode()
	if err != nil {
		return Entry{}, fmt.Errorf("decode entry: %w", err)
	}
	if !bytes.Equal(again, data) {
		return Entry{}, errors.New("decode entry: not as an entry is written")
	}
	e.Time = e.Time.UTC()
	return e, nil
}

// A Hash is a node of the tree. In JSON it is standard base64 in its one strict spelling.
type Hash tlog.Hash

// String returns the strict base64 of h.
func (h Hash) String() string { return tlog.Hash(h).String() }

// MarshalText writes h as String does.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (h *Hash) UnmarshalText(data []byte) error {
	raw, err := base64.StdEncoding.Strict().DecodeString(string(data))
	if err != nil || len(raw) != len(h) || h.set(raw).String() != string(data) {
		return fmt.Errorf("%.50q is no hash", data)
	}
	return nil
}

func (h *Hash) set(raw []byte) Hash {
	copy(h[:], raw)
	return *h
}

// LeafHash is the hash of an entry's encoded bytes in the tree.
func LeafHash(encoded []byte) Hash { return Hash(tlog.RecordHash(encoded)) }

// A Tree is the Merkle tree over a log, in memory: 64 bytes an entry. The zero value is the empty tree. It is not safe for
// concurrent use.
type Tree struct {
	size   int64
	stored []tlog.Hash
}

// Append adds the hash of one more entry and returns the entry's index.
func (t *Tree) Append(leaf Hash) (int64, error) {
	more, err := tlog.StoredHashesForRecordHash(t.size, tlog.Hash(leaf), t.reader())
	if err != nil {
		return 0, fmt.Errorf("append to tree: %w", err)
	}
	t.stored = append(t.stored, more...)
	t.size++
	return t.size - 1, nil
}

// Size is the number of entries.
func (t *Tree) Size() int64 { return t.size }

// Root is the hash over the first size entries.
func (t *Tree) Root(size int64) (Hash, error) {
	if size < 0 || size > t.size {
		return Hash{}, fmt.Errorf("root of %d entries: the tree has %d", size, t.size)
	}
	root, err := tlog.TreeHash(size, t.reader())
	if err != nil {
		return Hash{}, fmt.Errorf("root of %d entries: %w", size, err)
	}
	return Hash(root), nil
}

// Leaf is the hash of entry i.
func (t *Tree) Leaf(i int64) (Hash, error) {
	if i < 0 || i >= t.size {
		return Hash{}, fmt.Errorf("leaf %d: the tree has %d", i, t.size)
	}
	return Hash(t.stored[tlog.StoredHashIndex(0, i)]), nil
}

// Inclusion proves that entry i is in the tree of the first size entries.
func (t *Tree) Inclusion(i, size int64) ([]Hash, error) {
	if i < 0 || i >= size || size > t.size {
		return nil, fmt.Errorf("prove entry %d of %d: the tree has %d", i, size, t.size)
	}
	proof, err := tlog.ProveRecord(size, i, t.reader())
	if err != nil {
		return nil, fmt.Errorf("prove entry %d of %d: %w", i, size, err)
	}
	return fromProof(proof), nil
}

// Consistency proves that the tree of the first older entries begins the tree of the first newer ones.
func (t *Tree) Consistency(older, newer int64) ([]Hash, error) {
	if older < 0 || older > newer || newer > t.size {
		return nil, fmt.Errorf("prove growth from %d to %d: the tree has %d", older, newer, t.size)
	}
	if older == 0 {
		return []Hash{}, nil
	}
	proof, err := tlog.ProveTree(newer, older, t.reader())
	if err != nil {
		return nil, fmt.Errorf("prove growth from %d to %d: %w", older, newer, err)
	}
	return fromProof(proof), nil
}

func (t *Tree) reader() tlog.HashReader {
	return tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, at := range indexes {
			if at < 0 || at >= int64(len(t.stored)) {
				return nil, fmt.Errorf("hash %d is not stored", at)
			}
			out[i] = t.stored[at]
		}
		return out, nil
	})
}

func fromProof(in []tlog.Hash) []Hash {
	out := make([]Hash, len(in))
	for i, h := range in {
		out[i] = Hash(h)
	}
	return out
}

func toProof(in []Hash) []tlog.Hash {
	out := make([]tlog.Hash, len(in))
	for i, h := range in {
		out[i] = tlog.Hash(h)
	}
	return out
}
