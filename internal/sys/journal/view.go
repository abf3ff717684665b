package journal

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"

	"tourniquet.dev/tourniquet/internal/ledger"
	"tourniquet.dev/tourniquet/internal/sys/disk"
)

// A record is: magic, length of the payload, sequence, CRC of these three; payload; CRC of the payload. Little endian.
// The checksums locate damage; it is the signed checkpoint that decides whether a record was ever acknowledged.
const (
	magic       = "TQJ1"
	headerSize  = 4 + 4 + 8 + 4
	trailerSize = 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func appendRecord(out []byte, sequence int64, payload []byte) []byte {
	start := len(out)
	out = append(out, magic...)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(payload))) // #nosec G115 -- at most MaxEntry
	out = binary.LittleEndian.AppendUint64(out, uint64(sequence))     // #nosec G115 -- not negative
	out = binary.LittleEndian.AppendUint32(out, crc32.Checksum(out[start:], castagnoli))
	out = append(out, payload...)
	return binary.LittleEndian.AppendUint32(out, crc32.Checksum(payload, castagnoli))
}

// A View is the journal at one moment. It does not change and is safe for concurrent use.
type View struct {
	file   disk.File
	end    int64   // of the last record
	starts []int64 // of each record
	tree   ledger.Tree
	signed ledger.SignedSize
}

// Load reads a journal that another process may be writing, up to its last checkpoint. The caller closes the view.
func Load(dir, name string, key ed25519.PublicKey) (*View, error) {
	file, err := disk.OS.OpenFile(filepath.Join(dir, LogFile), os.O_RDONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("load journal %s: %w", name, err)
	}
	v := &View{file: file}
	if _, err := v.load(disk.OS, dir, name, key, false); err != nil {
		return nil, errors.Join(fmt.Errorf("load journal %s: %w", name, err), file.Close())
	}
	return v, nil
}

// Close gives up the file of a view that Load returned.
func (v *View) Close() error { return v.file.Close() }

// load reads the checkpoint, then the records of v.file, up to the checkpoint or (whole) to the end. torn says that bytes
// follow which are no whole record. Such bytes behind the checkpoint belong to an append that did not return; before it,
// they are damage.
func (v *View) load(fsys disk.FS, dir, name string, key ed25519.PublicKey, whole bool) (torn bool, err error) {
	path := filepath.Join(dir, CheckpointFile)
	signed, err := disk.ReadFile(fsys, path, 4096)
	if errors.Is(err, fs.ErrNotExist) {
		return false, &DamageError{path, -1, -1, "missing beside the log"}
	} else if err != nil {
		return false, err
	}
	checkpoint, err := ledger.OpenCheckpoint(signed, name, key)
	if err != nil {
		return false, &DamageError{path, -1, -1, err.Error()}
	}
	v.signed = ledger.SignedSize{Note: signed, Size: checkpoint.Size}
	path = filepath.Join(dir, LogFile)
	size, err := v.file.Size()
	if err != nil {
		return false, err
	}
	for v.end < size && (whole || v.tree.Size() < checkpoint.Size) {
		payload, err := v.read(path, v.end, v.tree.Size(), size)
		var damage *DamageError
		if torn = errors.As(err, &damage) && v.tree.Size() >= checkpoint.Size; torn {
			break
		}
		if err != nil {
			return false, err
		}
		if err := v.add(ledger.LeafHash(payload), headerSize+trailerSize+int64(len(payload))); err != nil {
			return false, err
		}
	}
	if v.tree.Size() < checkpoint.Size {
		return false, &DamageError{path, v.end, v.tree.Size(), fmt.Sprintf("ends before its checkpoint of %d entries", checkpoint.Size)}
	}
	root, err := v.tree.Root(checkpoint.Size)
	if err != nil {
		return false, err
	}
	if root != checkpoint.Root {
		return false, &DamageError{path, -1, -1, fmt.Sprintf("its first %d entries are not those that were signed", checkpoint.Size)}
	}
	return torn, nil
}

// read returns the payload of the record at offset, or a *DamageError when there is none that is whole.
func (v *View) read(path string, offset, index, size int64) ([]byte, error) {
	damaged := func(reason string) error { return &DamageError{path, offset, index, reason} }
	if size-offset < headerSize {
		return nil, damaged("the file ends inside the header")
	}
	var header [headerSize]byte
	if _, err := v.file.ReadAt(header[:], offset); err != nil {
		return nil, fmt.Errorf("read entry %d: %w", index, err)
	}
	if binary.LittleEndian.Uint32(header[16:]) != crc32.Checksum(header[:16], castagnoli) || string(header[:4]) != magic {
		return nil, damaged("the header does not match its checksum")
	}
	length := int64(binary.LittleEndian.Uint32(header[4:]))
	if binary.LittleEndian.Uint64(header[8:]) != uint64(index) || length > MaxEntry { // #nosec G115 -- not negative
		return nil, damaged("the header is of another record")
	}
	if size-offset < headerSize+length+trailerSize {
		return nil, damaged("the file ends inside the entry")
	}
	body := make([]byte, length+trailerSize)
	if _, err := v.file.ReadAt(body, offset+headerSize); err != nil {
		return nil, fmt.Errorf("read entry %d: %w", index, err)
	}
	payload := body[:length]
	if binary.LittleEndian.Uint32(body[length:]) != crc32.Checksum(payload, castagnoli) {
		return nil, damaged("the entry does not match its checksum")
	}
	return payload, nil
}

func (v *View) add(leaf ledger.Hash, length int64) error {
	if _, err := v.tree.Append(leaf); err != nil {
		return err
	}
	v.starts = append(v.starts, v.end)
	v.end += length
	return nil
}

// Size is the number of entries.
func (v *View) Size() int64 { return v.tree.Size() }

// Checkpoint is the newest signed checkpoint.
func (v *View) Checkpoint() ledger.SignedSize { return v.signed }

// Encoded returns the bytes of entry i as the tree has hashed them, read from disk and compared with the tree.
func (v *View) Encoded(i int64) ([]byte, error) {
	if i < 0 || i >= v.tree.Size() {
		return nil, fmt.Errorf("entry %d: the journal has %d", i, v.tree.Size())
	}
	payload, err := v.read(LogFile, v.starts[i], i, v.end)
	if err != nil {
		return nil, err
	}
	want, err := v.tree.Leaf(i)
	if err != nil {
		return nil, err
	}
	if ledger.LeafHash(payload) != want {
		return nil, &DamageError{LogFile, v.starts[i], i, "changed since it was written"}
	}
	return payload, nil
}

// Entry returns entry i.
func (v *View) Entry(i int64) (ledger.Entry, error) {
	payload, err := v.Encoded(i)
	if err != nil {
		return ledger.Entry{}, err
	}
	return ledger.DecodeEntry(payload)
}

// Range calls f for each entry from index from on, in order, and stops at its first error.
func (v *View) Range(from int64, f func(index int64, e ledger.Entry) error) error {
	for i := from; i < v.tree.Size(); i++ {
		e, err := v.Entry(i)
		if err != nil {
			return err
		}
		if err := f(i, e); err != nil {
			return err
		}
	}
	return nil
}

// Bundle returns these entries with their proofs against the newest checkpoint. older are earlier checkpoints of the same
// journal, oldest first, that the newest is to be shown consistent with.
func (v *View) Bundle(name string, indexes []int64, older ...ledger.SignedSize) (ledger.Bundle, error) {
	return v.tree.Bundle(name, append(append([]ledger.SignedSize{}, older...), v.signed), indexes, v.Encoded)
}
