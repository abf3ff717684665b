package spool

import (
	"encoding/binary"
	"hash/crc32"
	"time"
)

// A record on disk, little endian:
//
//	mark      8  the segment's own random number, also in its file name
//	length    4  of the payload
//	sequence  8  in the spool, growing
//	ordinal   8  in the lane, without gaps
//	time      8  Unix nanoseconds
//	checksum  4  CRC-32C of the 36 bytes before, and of the record's offset in its segment
//	payload
//	checksum  4  CRC-32C of the header's checksum and the payload
//
// The mark is what a reader looks for behind damage. It is random, so that a payload that somebody else chose cannot hold
// what looks like a record of ours. The offset in the checksum is what a block that landed in a wrong place does not match.
const (
	headerSize  = 40
	trailerSize = 4
	overhead    = headerSize + trailerSize
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A Record is one payload as it was appended.
type Record struct {
	Lane    Lane
	Seq     uint64 // from 1, growing with each append to the spool, over restarts too
	Time    time.Time
	Payload []byte
}

type header struct {
	length   uint32
	sequence uint64
	ordinal  uint64
	nanos    int64
	checksum uint32
}

func appendRecord(out []byte, offset int64, mark, sequence, ordinal uint64, at time.Time, payload []byte) []byte {
	start := len(out)
	out = binary.LittleEndian.AppendUint64(out, mark)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(payload))) // #nosec G115 -- at most MaxRecord
	out = binary.LittleEndian.AppendUint64(out, sequence)
	out = binary.LittleEndian.AppendUint64(out, ordinal)
	out = binary.LittleEndian.AppendUint64(out, uint64(at.UnixNano())) // #nosec G115 -- the bits are kept
	sum := headerSum(out[start:], offset)
	out = binary.LittleEndian.AppendUint32(out, sum)
	out = append(out, payload...)
	return binary.LittleEndian.AppendUint32(out, payloadSum(sum, payload))
}

func headerSum(fields []byte, offset int64) uint32 {
	sum := crc32.Checksum(fields, castagnoli)
	return crc32.Update(sum, castagnoli, binary.LittleEndian.AppendUint64(nil, uint64(offset))) // #nosec G115 -- not negative
}

// payloadSum ties a payload to its own header.
func payloadSum(headerSum uint32, payload []byte) uint32 {
	return crc32.Update(headerSum, castagnoli, payload)
}

// readHeader reads the first headerSize bytes of data, and says whether they are a header of the segment with this mark, at this
// offset.
func readHeader(data []byte, offset int64, mark uint64) (header, bool) {
	if len(data) < headerSize || binary.LittleEndian.Uint64(data) != mark {
		return header{}, false
	}
	h := header{
		length:   binary.LittleEndian.Uint32(data[8:]),
		sequence: binary.LittleEndian.Uint64(data[12:]),
		ordinal:  binary.LittleEndian.Uint64(data[20:]),
		nanos:    int64(binary.LittleEndian.Uint64(data[28:])), // #nosec G115 -- the bits are kept
		checksum: binary.LittleEndian.Uint32(data[36:]),
	}
	return h, h.checksum == headerSum(data[:36], offset) && h.length <= MaxRecord
}

// size is that of the whole record.
func (h header) size() int64 { return overhead + int64(h.length) }
