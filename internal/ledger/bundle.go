package ledger

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
)

// A Bundle carries some or all entries of one log, with what is needed to check them offline against its key.
type Bundle struct {
	Origin      string   `json:"origin"`
	Checkpoints []Signed `json:"checkpoints"` // oldest first; the last one is what the entries are proven against
	Entries     []Proven `json:"entries"`     // by index
}

// Signed is a checkpoint with the proof that the log only grew since the one before it in the bundle.
type Signed struct {
	Note        string `json:"note"`
	Consistency []Hash `json:"consistency"` // empty for the first
}

// Proven is one entry with the proof that it stands in the log.
type Proven struct {
	Index int64  `json:"index"`
	Entry string `json:"entry"` // the encoded bytes, kept as text so that no JSON tool respells them
	Proof []Hash `json:"proof"`
}

// A Verified bundle is what remains when every proof and signature in it holds.
type Verified struct {
	Checkpoint Checkpoint // the newest
	Entries    []Entry    // in the bundle's order
	Indexes    []int64    // of the entries
	Complete   bool       // every entry of the log up to the checkpoint is here
}

// Verify checks a bundle against the log's public key: all checkpoints are signed and each grew from the one before it, and
// every entry stands at its index under the newest. It cannot tell which entries were left out; Complete says that none was.
func Verify(b Bundle, key ed25519.PublicKey) (Verified, error) {
	if len(b.Checkpoints) == 0 {
		return Verified{}, fmt.Errorf("verify %.60q: %w: none in the bundle", b.Origin, ErrCheckpoint)
	}
	var v Verified
	for i, s := range b.Checkpoints {
		c, err := OpenCheckpoint([]byte(s.Note), b.Origin, key)
		if err != nil {
			return Verified{}, fmt.Errorf("verify %.60q: checkpoint %d: %w", b.Origin, i, err)
		}
		if i == 0 && len(s.Consistency) != 0 {
			return Verified{}, fmt.Errorf("verify %s: checkpoint 0 follows none", b.Origin)
		}
		if i > 0 {
			if err := c.CheckConsistency(v.Checkpoint, s.Consistency); err != nil {
				return Verified{}, fmt.Errorf("verify %s: checkpoint %d: %w", b.Origin, i, err)
			}
		}
		v.Checkpoint = c
	}
	for i, p := range b.Entries {
		if i > 0 && p.Index <= b.Entries[i-1].Index {
			return Verified{}, fmt.Errorf("verify %s: entry %d comes after entry %d", b.Origin, p.Index, b.Entries[i-1].Index)
		}
		if err := v.Checkpoint.CheckInclusion(p.Index, LeafHash([]byte(p.Entry)), p.Proof); err != nil {
			return Verified{}, fmt.Errorf("verify %s: %w", b.Origin, err)
		}
		e, err := DecodeEntry([]byte(p.Entry))
		if err != nil {
			return Verified{}, fmt.Errorf("verify %s: entry %d: %w", b.Origin, p.Index, err)
		}
		v.Entries = append(v.Entries, e)
		v.Indexes = append(v.Indexes, p.Index)
	}
	v.Complete = int64(len(b.Entries)) == v.Checkpoint.Size
	return v, nil
}

// Encode writes a bundle in the one spelling that ParseBundle takes.
func (b Bundle) Encode() ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	if err := enc.Encode(b); err != nil {
		return nil, fmt.Errorf("encode bundle of %.60q: %w", b.Origin, err)
	}
	return out.Bytes(), nil
}

// ParseBundle reads what Encode wrote. Every other spelling is refused, so that no byte of a bundle can change unseen:
// spaces, the case of an escape and the order of keys are no more free than an entry is.
func ParseBundle(data []byte) (Bundle, error) {
	var b Bundle
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&b); err != nil {
		return Bundle{}, fmt.Errorf("parse bundle: %w", err)
	}
	again, err := b.Encode()
	if err != nil {
		return Bundle{}, fmt.Errorf("parse bundle: %w", err)
	}
	if !bytes.Equal(again, data) {
		return Bundle{}, errors.New("parse bundle: not as a bundle is written")
	}
	return b, nil
}

// Bundle collects the entries with these indexes, proven against the newest checkpoint of signed, which are the log's own,
// oldest first. entry returns the encoded bytes of an entry.
func (t *Tree) Bundle(origin string, signed []SignedSize, indexes []int64, entry func(int64) ([]byte, error)) (Bundle, error) {
	b := Bundle{Origin: origin, Checkpoints: []Signed{}, Entries: []Proven{}}
	if len(signed) == 0 {
		return b, fmt.Errorf("bundle of %s: no checkpoint", origin)
	}
	for i, s := range signed {
		proof := []Hash{}
		if i > 0 {
			var err error
			if proof, err = t.Consistency(signed[i-1].Size, s.Size); err != nil {
				return b, fmt.Errorf("bundle of %s: %w", origin, err)
			}
		}
		b.Checkpoints = append(b.Checkpoints, Signed{Note: string(s.Note), Consistency: proof})
	}
	size := signed[len(signed)-1].Size
	for _, i := range indexes {
		proof, err := t.Inclusion(i, size)
		if err != nil {
			return b, fmt.Errorf("bundle of %s: %w", origin, err)
		}
		encoded, err := entry(i)
		if err != nil {
			return b, fmt.Errorf("bundle of %s: entry %d: %w", origin, i, err)
		}
		b.Entries = append(b.Entries, Proven{Index: i, Entry: string(encoded), Proof: proof})
	}
	return b, nil
}

// SignedSize is a signed checkpoint with the size that it stands for.
type SignedSize struct {
	Note []byte
	Size int64
}
