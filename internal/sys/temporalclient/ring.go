package temporalclient

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"time"

	"tourniquet.dev/tourniquet/internal/sys/disk"
)

const (
	keySize     = 32
	maxKeys     = 64
	maxRingFile = 64 << 10
)

// ErrRing says that a key ring cannot be used: who may read it, or what is in it.
var ErrRing = errors.New("key ring not usable")

var validKeyID = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,64}$`)

// A KeyRing holds the keys that payloads are encrypted with. The newest encrypts, all decrypt. Random nonces keep one key
// safe for 2^32 payloads: rotate long before. A ring does not change and is safe for concurrent use.
type KeyRing struct {
	newest string
	keys   map[string]cipher.AEAD
}

// ringFile is the form on disk: JSON, oldest key first.
type ringFile struct {
	Keys []ringKey `json:"keys"`
}

type ringKey struct {
	ID  string `json:"id"`
	Key string `json:"key"` // base64 of 32 bytes
}

// LoadKeyRing reads a key ring. Its file must not be readable by others, nor writable by anyone but its owner.
func LoadKeyRing(path string) (*KeyRing, error) {
	data, err := readRing(path)
	if err != nil {
		return nil, err
	}
	ring, _, err := parseRing(data)
	if err != nil {
		return nil, fmt.Errorf("key ring %s: %w", path, err)
	}
	return ring, nil
}

func readRing(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("key ring: %w", err)
	}
	// A mounted Kubernetes secret is readable by its pod's group; nothing else may be.
	if mode := info.Mode().Perm(); mode&0o037 != 0 {
		return nil, fmt.Errorf("key ring %s: %w: mode %04o, want 0600", path, ErrRing, mode)
	}
	data, err := disk.ReadFile(disk.OS, path, maxRingFile)
	if err != nil {
		return nil, fmt.Errorf("key ring: %w", err)
	}
	return data, nil
}

// parseRing never puts file content into an error: it is made of keys.
func parseRing(data []byte) (*KeyRing, ringFile, error) {
	var file ringFile
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&file); err != nil {
		return nil, file, fmt.Errorf("%w: not the JSON of a key ring", ErrRing)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, file, fmt.Errorf("%w: data after the key ring", ErrRing)
	}
	if len(file.Keys) == 0 || len(file.Keys) > maxKeys {
		return nil, file, fmt.Errorf("%w: %d keys", ErrRing, len(file.Keys))
	}
	ring := &KeyRing{keys: map[string]cipher.AEAD{}}
	for i, k := range file.Keys {
		if !validKeyID.MatchString(k.ID) {
			return nil, file, fmt.Errorf("%w: key %d: bad id", ErrRing, i)
		}
		if _, twice := ring.keys[k.ID]; twice {
			return nil, file, fmt.Errorf("%w: key %d: id %s twice", ErrRing, i, k.ID)
		}
		raw, err := base64.StdEncoding.Strict().DecodeString(k.Key)
		if err != nil || len(raw) != keySize {
			return nil, file, fmt.Errorf("%w: key %s: want base64 of %d bytes", ErrRing, k.ID, keySize)
		}
		block, err := aes.NewCipher(raw)
		if err != nil {
			return nil, file, fmt.Errorf("%w: key %s: %w", ErrRing, k.ID, err)
		}
		if ring.keys[k.ID], err = cipher.NewGCM(block); err != nil {
			return nil, file, fmt.Errorf("%w: key %s: %w", ErrRing, k.ID, err)
		}
		ring.newest = k.ID
	}
	return ring, file, nil
}

// RotateKeyRing adds a new key to the ring in a file, or makes the file with its first key, and returns the key's id. The
// file is 0600. Processes that run have to load it again; decoders should have it before the first encoder.
func RotateKeyRing(path string, now time.Time) (id string, err error) {
	var file ringFile
	data, err := readRing(path)
	if err == nil {
		_, file, err = parseRing(data)
	} else if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return "", err
	}
	raw := make([]byte, keySize)
	if _, err := rand.Read(raw); err != nil {
		return "", fmt.Errorf("rotate key ring: %w", err)
	}
	id = now.UTC().Format("20060102T150405") + "-" + rand.Text()[:6]
	file.Keys = append(file.Keys, ringKey{ID: id, Key: base64.StdEncoding.EncodeToString(raw)})
	out, err := json.MarshalIndent(file, "", "  ")
	if err != nil {
		return "", fmt.Errorf("rotate key ring: %w", err)
	}
	if _, _, err := parseRing(out); err != nil {
		return "", fmt.Errorf("rotate key ring: %w", err)
	}
	if err := disk.WriteFile(disk.OS, path, append(out, '\n'), 0o600); err != nil {
		return "", fmt.Errorf("rotate key ring: %w", err)
	}
	return id, nil
}
