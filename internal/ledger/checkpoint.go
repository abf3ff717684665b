package ledger

import (
	"crypto"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// maxCheckpoint bounds a signed checkpoint: three short lines and one signature.
const maxCheckpoint = 1024

// ErrCheckpoint says that a signed checkpoint is not one that the expected log signed.
var ErrCheckpoint = errors.New("checkpoint not valid")

// A Checkpoint says how long a log is and what it holds.
type Checkpoint struct {
	Origin string // the log's name, unique to it, such as "tourniquet/contain-aws/prod"
	Size   int64
	Root   Hash
}

// ValidOrigin says whether a log can have this name: no spaces, no plus, no control characters, at most 200 bytes.
func ValidOrigin(origin string) bool {
	return origin != "" && len(origin) <= 200 && !strings.Contains(origin, "+") &&
		!strings.ContainsFunc(origin, func(r rune) bool { return r == unicode.ReplacementChar || unicode.IsSpace(r) || unicode.IsControl(r) })
}

// text is the body of the C2SP checkpoint.
func (c Checkpoint) text() string {
	return c.Origin + "\n" + strconv.FormatInt(c.Size, 10) + "\n" + c.Root.String() + "\n"
}

// Sign returns the checkpoint as a signed note. The key is Ed25519; its public half and the origin name it in the note.
func (c Checkpoint) Sign(key crypto.Signer) ([]byte, error) {
	public, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("sign checkpoint: want an Ed25519 key, got %T", key.Public())
	}
	verifier, err := newVerifier(c.Origin, public)
	if err != nil {
		return nil, fmt.Errorf("sign checkpoint: %w", err)
	}
	signed, err := note.Sign(&note.Note{Text: c.text()}, signer{verifier, key})
	if err != nil {
		return nil, fmt.Errorf("sign checkpoint: %w", err)
	}
	return signed, nil
}

// OpenCheckpoint reads a checkpoint that the holder of key signed for the log of this origin. It takes exactly one spelling:
// one signature, no extension lines, strict base64. Anything else is ErrCheckpoint.
func OpenCheckpoint(signed []byte, origin string, key ed25519.PublicKey) (Checkpoint, error) {
	if len(signed) > maxCheckpoint {
		return Checkpoint{}, fmt.Errorf("%w: %d bytes", ErrCheckpoint, len(signed))
	}
	verifier, err := newVerifier(origin, key)
	if err != nil {
		return Checkpoint{}, err
	}
	n, err := note.Open(signed, note.VerifierList(verifier))
	if err != nil {
		return Checkpoint{}, fmt.Errorf("%w: %w", ErrCheckpoint, err)
	}
	c, err := parseText(n.Text)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("%w: %w", ErrCheckpoint, err)
	}
	if c.Origin != origin {
		return Checkpoint{}, fmt.Errorf("%w: origin %q, want %q", ErrCheckpoint, c.Origin, origin)
	}
	// The note format tolerates further signatures and loose base64, either of which could be edited unseen.
	sig := n.Sigs[0]
	if _, err := base64.StdEncoding.Strict().DecodeString(sig.Base64); err != nil {
		return Checkpoint{}, fmt.Errorf("%w: signature: %w", ErrCheckpoint, err)
	}
	if string(signed) != n.Text+"\n— "+sig.Name+" "+sig.Base64+"\n" {
		return Checkpoint{}, fmt.Errorf("%w: more than one signature", ErrCheckpoint)
	}
	return c, nil
}

func parseText(text string) (Checkpoint, error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 4 {
		return Checkpoint{}, fmt.Errorf("%d lines of text", len(lines)-1)
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 {
		return Checkpoint{}, fmt.Errorf("size %.30q", lines[1])
	}
	c := Checkpoint{Origin: lines[0], Size: size}
	if err := c.Root.UnmarshalText([]byte(lines[2])); err != nil {
		return Checkpoint{}, err
	}
	if c.text() != text {
		return Checkpoint{}, errors.New("not as a checkpoint is written")
	}
	return c, nil
}

// CheckInclusion says whether proof shows that the entry with this leaf hash is number i of the log at c.
func (c Checkpoint) CheckInclusion(i int64, leaf Hash, proof []Hash) error {
	if err := tlog.CheckRecord(toProof(proof), c.Size, tlog.Hash(c.Root), i, tlog.Hash(leaf)); err != nil {
		return fmt.Errorf("entry %d is not in %s at %d: %w", i, c.Origin, c.Size, err)
	}
	return nil
}

// CheckConsistency says whether proof shows that the log at older only grew to be the log at c.
func (c Checkpoint) CheckConsistency(older Checkpoint, proof []Hash) error {
	if older.Origin != c.Origin {
		return fmt.Errorf("checkpoints of two logs: %q and %q", older.Origin, c.Origin)
	}
	if older.Size == 0 {
		var empty Tree
		root, err := empty.Root(0)
		if err != nil || older.Root != root || len(proof) != 0 {
			return fmt.Errorf("%s at 0: not the empty log", c.Origin)
		}
		return nil
	}
	if err := tlog.CheckTree(toProof(proof), c.Size, tlog.Hash(c.Root), older.Size, tlog.Hash(older.Root)); err != nil {
		return fmt.Errorf("%s did not only grow from %d to %d: %w", c.Origin, older.Size, c.Size, err)
	}
	return nil
}

// A signer lets any Ed25519 crypto.Signer sign notes.
type signer struct {
	note.Verifier
	key crypto.Signer
}

func (s signer) Sign(msg []byte) ([]byte, error) { return s.key.Sign(nil, msg, crypto.Hash(0)) }

func newVerifier(origin string, key ed25519.PublicKey) (note.Verifier, error) {
	if !ValidOrigin(origin) {
		return nil, fmt.Errorf("%.60q cannot name a log", origin)
	}
	text, err := note.NewEd25519VerifierKey(origin, key)
	if err != nil {
		return nil, fmt.Errorf("key of %s: %w", origin, err)
	}
	verifier, err := note.NewVerifier(text)
	if err != nil {
		return nil, fmt.Errorf("key of %s: %w", origin, err)
	}
	return verifier, nil
}
