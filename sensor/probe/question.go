package probe

import (
	"encoding/binary"
	"fmt"
	"strings"
)

const (
	maxLabel = 63
	maxName  = 255
)

// questionOf reads the name and type of a DNS question; cut when it does not end within b, or is no name.
func questionOf(b []byte) (name string, kind uint16, cut bool) {
	var text strings.Builder
	for off := 0; off < len(b) && off < maxName; {
		n := int(b[off])
		off++
		if n == 0 {
			if off+2 > len(b) {
				return text.String(), 0, true
			}
			return text.String(), binary.BigEndian.Uint16(b[off:]), false
		}
		if n > maxLabel { // a pointer, which no first question has
			break
		}
		if text.Len() > 0 {
			text.WriteByte('.')
		}
		writeLabel(&text, b[off:min(off+n, len(b))])
		off += n
	}
	return text.String(), 0, true
}

func writeLabel(to *strings.Builder, label []byte) {
	for _, c := range label {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
			to.WriteByte(c)
		default:
			fmt.Fprintf(to, `\%03d`, c)
		}
	}
}
