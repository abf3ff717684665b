// Package keys reads and makes the key files of every process, and opens what they verify: the trust file and the
// signed playbooks. A private key is one line, base64 of the 32 bytes of an Ed25519 seed, in a file that nobody but
// its owner may read. The package never prints a key and never makes one where a file stands already. Called by the
// mains and by the command line.
package keys

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/trust"
)

// SecretSize is the length in bytes of a symmetric key, and of an Ed25519 seed.
const SecretSize = 32

// maxText bounds a secret that is text.
const maxText = 4096

// Errors that callers tell apart.
var (
	// ErrMode says that others than the owner may read a secret, or write what is trusted.
	ErrMode = errors.New("file mode is too wide")
	// ErrForm says that a file does not hold base64 of the right number of bytes.
	ErrForm = errors.New("not a key")
)

// LoadSigner reads an Ed25519 private key.
func LoadSigner(path string) (*authz.Signer, error) {
	seed, err := LoadSecret(path)
	if err != nil {
		return nil, err
	}
	return authz.NewSigner(ed25519.NewKeyFromSeed(seed)), nil
}

// LoadNodeSigner reads a node's private key and the certificate (an envelope in JSON) that goes with what it signs.
func LoadNodeSigner(keyPath, certificatePath string) (*authz.Signer, error) {
	s, err := LoadSigner(keyPath)
	if err != nil {
		return nil, err
	}
	cert, err := loadEnvelope(certificatePath)
	if err != nil {
		return nil, fmt.Errorf("node certificate: %w", err)
	}
	if cert.PayloadType != authz.TypeNode {
		return nil, fmt.Errorf("node certificate %s: %w: %.80q", certificatePath, authz.ErrPayloadType, cert.PayloadType)
	}
	return authz.NewNodeSigner(s.Key(), cert), nil
}

// LoadSecret reads a symmetric key, such as the one that notify and decide share for the button token.
func LoadSecret(path string) ([]byte, error) {
	b, err := read(path, 0o077, SecretSize*4)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	return decode(path, b, SecretSize)
}

// LoadText reads a one-line secret that is text, such as a bot token or a signing secret.
func LoadText(path string) (string, error) {
	b, err := read(path, 0o077, maxText)
	if err != nil {
		return "", fmt.Errorf("read secret: %w", err)
	}
	s := strings.TrimSuffix(string(b), "\n")
	if s == "" || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("read secret: %s: %w: want one line of plain characters", path, ErrForm)
	}
	return s, nil
}

// LoadPublic reads an Ed25519 public key: one line of base64.
func LoadPublic(path string) (ed25519.PublicKey, error) {
	b, err := read(path, 0o022, ed25519.PublicKeySize*4)
	if err != nil {
		return nil, fmt.Errorf("read public key: %w", err)
	}
	return decode(path, b, ed25519.PublicKeySize)
}

// LoadTrust reads the trust file's envelope and checks it against the root's public key.
func LoadTrust(envelopePath, rootPublicPath string) (*trust.File, error) {
	root, err := LoadPublic(rootPublicPath)
	if err != nil {
		return nil, err
	}
	e, err := loadEnvelope(envelopePath)
	if err != nil {
		return nil, err
	}
	t, err := authz.OpenTrust(e, root)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", envelopePath, err)
	}
	return t, nil
}

// LoadPlaybooks reads every *.json envelope in dir and checks it against the trust file's playbook signers. One that
// does not verify is an error, and so is a folder without any: a process must not run on fewer playbooks than it was given.
func LoadPlaybooks(t *trust.File, dir string) ([]authz.Book, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, fmt.Errorf("list playbooks: %w", err)
	}
	slices.Sort(paths)
	var books []authz.Book
	for _, p := range paths {
		e, err := loadEnvelope(p)
		if err != nil {
			return nil, fmt.Errorf("playbook: %w", err)
		}
		b, err := authz.OpenPlaybook(t, e)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p, err)
		}
		if slices.ContainsFunc(books, func(o authz.Book) bool {
			return o.Playbook.Playbook == b.Playbook.Playbook && o.Playbook.Version == b.Playbook.Version
		}) {
			return nil, fmt.Errorf("%s: playbook %s v%d stands twice", p, b.Playbook.Playbook, b.Playbook.Version)
		}
		books = append(books, b)
	}
	if len(books) == 0 {
		return nil, fmt.Errorf("no playbook in %s: want signed envelopes named *.json", dir)
	}
	return books, nil
}

// Generate makes a new Ed25519 key in a file that must not exist yet.
func Generate(path string) (*authz.Signer, error) {
	seed, err := GenerateSecret(path)
	if err != nil {
		return nil, err
	}
	return authz.NewSigner(ed25519.NewKeyFromSeed(seed)), nil
}

// GenerateSecret makes a new symmetric key in a file that must not exist yet.
func GenerateSecret(path string) ([]byte, error) {
	secret := make([]byte, SecretSize)
	rand.Read(secret) //nolint:errcheck // crypto/rand.Read never fails: it ends the program instead
	if err := write(path, secret, 0o600); err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	return secret, nil
}

// WritePublic writes a public key to a file that must not exist yet.
func WritePublic(path string, pub ed25519.PublicKey) error {
	if err := write(path, pub, 0o644); err != nil {
		return fmt.Errorf("write public key: %w", err)
	}
	return nil
}

func loadEnvelope(path string) (authz.Envelope, error) {
	b, err := read(path, 0o022, authz.MaxEnvelope)
	if err != nil {
		return authz.Envelope{}, fmt.Errorf("read envelope: %w", err)
	}
	e, err := authz.DecodeEnvelope(b)
	if err != nil {
		return e, fmt.Errorf("%s: %w", path, err)
	}
	return e, nil
}

// read reads a regular file of at most limit bytes, none of whose mode bits are in forbidden. The mode is that of the
// opened file, so that it cannot be exchanged in between.
func read(path string, forbidden os.FileMode, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: %w", path, ErrForm)
	}
	if info.Mode().Perm()&forbidden != 0 {
		return nil, fmt.Errorf("%s: %w: %04o, want at most %04o", path, ErrMode, info.Mode().Perm(), 0o777&^forbidden)
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s: %w: longer than %d bytes", path, ErrForm, limit)
	}
	return b, nil
}

func decode(path string, b []byte, size int) ([]byte, error) {
	key, err := base64.StdEncoding.Strict().DecodeString(strings.TrimSuffix(string(b), "\n"))
	if err != nil || len(key) != size {
		return nil, fmt.Errorf("%s: %w: want base64 of %d bytes on one line", path, ErrForm, size)
	}
	return key, nil
}

func write(path string, key []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.WriteString(base64.StdEncoding.EncodeToString(key) + "\n")
	return errors.Join(err, f.Sync(), f.Close())
}
