package aws

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strconv"
)

var idEncoding = base32.StdEncoding.WithPadding(base32.NoPadding)

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails: crypto/rand ends the program instead
	return b
}

// newUniqueID makes an id such as AIDA… or AROA…: four letters and 17 more.
func newUniqueID(prefix string) string {
	return prefix + idEncoding.EncodeToString(randomBytes(11))[:17]
}

// newKeyID makes an access key id: AKIA or ASIA and 16 letters, which hold the account as AWS's do, so that GetAccessKeyInfo can
// name the account of any key.
func newKeyID(prefix, account string) string {
	number, _ := strconv.ParseUint(account, 10, 64)
	var head [8]byte
	binary.BigEndian.PutUint64(head[:], 1<<63|number<<(16+7))
	payload := append(head[:6:6], randomBytes(4)...)
	payload[5] |= randomBytes(1)[0] & 0x7f
	return prefix + idEncoding.EncodeToString(payload)
}

// accountOf reads the account out of an access key id.
func accountOf(keyID string) (string, bool) {
	if len(keyID) != 20 {
		return "", false
	}
	payload, err := idEncoding.DecodeString(keyID[4:])
	if err != nil {
		return "", false
	}
	number := binary.BigEndian.Uint64(append([]byte{0, 0}, payload[:6]...))
	return fmt.Sprintf("%012d", number&0x7fffffffff80>>7), true
}

func newSecret() string { return base64.StdEncoding.EncodeToString(randomBytes(30)) }

func newToken() string { return base64.StdEncoding.EncodeToString(randomBytes(96)) }

func newUUID() string {
	b := randomBytes(16)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
