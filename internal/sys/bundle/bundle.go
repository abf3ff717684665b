// Package bundle is the container of an audit: one file that holds the record of an incident as named files, under a
// manifest that the exporter signed. There is exactly one spelling of it, so that no byte can change unseen: it is
// canonical JSON, its base64 is strict, and the manifest names every file by size and SHA-256. The package knows nothing
// of what the files say, reads no disk and trusts nobody: the command line collects, and verifies.
package bundle

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/canonical"
	"tourniquet.dev/tourniquet/internal/incident"
)

const (
	// Format names this version of the container.
	Format = "tourniquet audit bundle v1"
	// MaxBytes bounds an encoded bundle.
	MaxBytes = 256 << 20
	// MaxFiles bounds how many files one may hold.
	MaxFiles = 2_000
)

var (
	// ErrForm says that bytes are not a bundle as Seal writes it.
	ErrForm = errors.New("not a bundle as it is written")
	// ErrManifest says that a bundle does not hold what its manifest says, or that no trusted key signed the manifest.
	ErrManifest = errors.New("manifest does not hold")
)

// Manifest is what the exporter signs.
type Manifest struct {
	V          int       `json:"v"`
	IncidentID string    `json:"incident_id"`
	ExportedAt time.Time `json:"exported_at"`
	// Person is who exported, by the id of the trust file.
	Person string `json:"person"`
	Files  []File `json:"files"` // by name
}

// File is one file of a bundle.
type File struct {
	Name   string `json:"name"`
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
}

// Bundle is an opened container. Nobody has said yet that its manifest can be believed: Verify does.
type Bundle struct {
	Envelope authz.Envelope
	Files    map[string][]byte
}

type container struct {
	Format   string            `json:"format"`
	Manifest authz.Envelope    `json:"manifest"`
	Files    map[string][]byte `json:"files"`
}

var fileName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]*(/[a-zA-Z0-9][a-zA-Z0-9._-]*)*$`)

// Seal signs a manifest over files and returns the bundle's bytes.
func Seal(signer *authz.Signer, m Manifest, files map[string][]byte) ([]byte, error) {
	m.V, m.ExportedAt, m.Files = 1, m.ExportedAt.UTC().Truncate(time.Millisecond), list(files)
	if err := m.validate(); err != nil {
		return nil, fmt.Errorf("seal bundle: %w", err)
	}
	e, err := signer.Sign(authz.TypeAudit, m)
	if err != nil {
		return nil, fmt.Errorf("seal bundle: %w", err)
	}
	out, err := canonical.Marshal(container{Format, e, files})
	if err != nil {
		return nil, fmt.Errorf("seal bundle: %w", err)
	}
	if len(out) > MaxBytes {
		return nil, fmt.Errorf("seal bundle: %d bytes, at most %d", len(out), MaxBytes)
	}
	return out, nil
}

func list(files map[string][]byte) []File {
	out := []File{}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		out = append(out, File{Name: name, Digest: canonical.DigestOf(files[name]), Size: int64(len(files[name]))})
	}
	return out
}

func (m Manifest) validate() error {
	switch {
	case m.V != 1:
		return fmt.Errorf("manifest of version %d", m.V)
	case !incident.ValidID(m.IncidentID):
		return fmt.Errorf("%.40q is no incident", m.IncidentID)
	case m.Person == "" || m.ExportedAt.IsZero():
		return errors.New("who exported, and when, is needed")
	case len(m.Files) > MaxFiles:
		return fmt.Errorf("%d files, at most %d", len(m.Files), MaxFiles)
	}
	for _, f := range m.Files {
		if len(f.Name) > 200 || !fileName.MatchString(f.Name) {
			return fmt.Errorf("%.80q cannot name a file", f.Name)
		}
	}
	return nil
}

// Open reads the container. It takes only the bytes that Seal would have written for this content.
func Open(data []byte) (*Bundle, error) {
	var c container
	if err := canonical.Unmarshal(data, &c, MaxBytes); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrForm, err)
	}
	again, err := canonical.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrForm, err)
	}
	if !bytes.Equal(again, data) {
		return nil, fmt.Errorf("%w: it is spelt in another way", ErrForm)
	}
	if c.Format != Format {
		return nil, fmt.Errorf("%w: format %.60q", ErrForm, c.Format)
	}
	for name, data := range c.Files {
		if data == nil { // null, where an empty file is spelt ""
			return nil, fmt.Errorf("%w: %.80s is null", ErrForm, name)
		}
	}
	if c.Files == nil || len(c.Manifest.Signatures) != 1 || c.Manifest.Certificate != nil || !strict(c.Manifest.Payload) || !strict(c.Manifest.Signatures[0].Sig) {
		return nil, fmt.Errorf("%w: it wants files, and a manifest with one signature in strict base64", ErrForm)
	}
	return &Bundle{c.Manifest, c.Files}, nil
}

// strict says whether s is the one base64 spelling of what it decodes to. Line breaks and stray bits at the end are two
// ways in which it would not be.
func strict(s string) bool {
	_, err := base64.StdEncoding.Strict().DecodeString(s)
	return err == nil && !strings.ContainsAny(s, "\r\n")
}

// Verify checks the manifest's signature by one of keys, and that the bundle holds exactly the files it names. It returns
// the manifest and the id of the key.
func (b *Bundle) Verify(keys map[string]ed25519.PublicKey) (Manifest, string, error) {
	var m Manifest
	raw, keyID, err := authz.Verify(b.Envelope, authz.TypeAudit, keys)
	if err != nil {
		return m, "", fmt.Errorf("%w: %w", ErrManifest, err)
	}
	if err := canonical.Unmarshal(raw, &m, authz.MaxEnvelope); err != nil {
		return m, "", fmt.Errorf("%w: %w", ErrManifest, err)
	}
	if err := m.validate(); err != nil {
		return m, "", fmt.Errorf("%w: %w", ErrManifest, err)
	}
	have := list(b.Files)
	for i := range max(len(have), len(m.Files)) {
		switch {
		case i >= len(have):
			return m, "", fmt.Errorf("%w: %s is missing", ErrManifest, m.Files[i].Name)
		case i >= len(m.Files):
			return m, "", fmt.Errorf("%w: %s is not in it", ErrManifest, have[i].Name)
		case have[i] != m.Files[i]:
			return m, "", fmt.Errorf("%w: %s is not the file that was signed", ErrManifest, have[i].Name)
		}
	}
	return m, keyID, nil
}

// Under returns the names of the files below a folder, sorted.
func (b *Bundle) Under(folder string) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(b.Files)) {
		if strings.HasPrefix(name, folder+"/") {
			out = append(out, name)
		}
	}
	return out
}
