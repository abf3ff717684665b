// Package canonical writes and reads the one canonical form of our JSON documents (RFC 8785, JCS): sorted keys, no
// white space, shortest numbers. Digests and signatures are over these bytes. It is pure; every package that signs,
// digests or decodes our own formats calls it.
package canonical

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// MaxDepth bounds the nesting of a document.
const MaxDepth = 32

// maxExact is the largest integer that every JSON reader keeps exactly (2^53).
const maxExact = 1 << 53

// Errors that callers branch on.
var (
	ErrTooLarge = errors.New("document too large")
	ErrTooDeep  = errors.New("document nested too deeply")
	ErrForm     = errors.New("document not in canonical form")
)

// Marshal returns the canonical bytes of v, which encoding/json must be able to encode.
func Marshal(v any) ([]byte, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("canonical form: %w", err)
	}
	return Transform(raw)
}

// Transform returns the canonical bytes of a JSON text.
func Transform(raw []byte) ([]byte, error) {
	if !utf8.Valid(raw) {
		return nil, fmt.Errorf("canonical form: %w: invalid UTF-8", ErrForm)
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var out bytes.Buffer
	if err := value(dec, &out, 0); err != nil {
		return nil, fmt.Errorf("canonical form: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("canonical form: %w: more than one value", ErrForm)
	}
	return out.Bytes(), nil
}

// Digest names v by the SHA-256 of its canonical bytes: sha256:<64 hexadecimal digits>.
func Digest(v any) (string, error) {
	b, err := Marshal(v)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:]), nil
}

// Unmarshal decodes a document strictly: it must be exactly the canonical bytes, at most limit of them, without
// unknown fields, duplicate keys or trailing data.
func Unmarshal(data []byte, v any, limit int) error {
	if len(data) > limit {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(data), limit)
	}
	again, err := Transform(data)
	if err != nil {
		return err
	}
	if !bytes.Equal(again, data) {
		return ErrForm
	}
	return strict(data, v)
}

// Decode is Unmarshal for documents that others write: it takes any white space and key order, and is as strict in
// everything else.
func Decode(data []byte, v any, limit int) error {
	if len(data) > limit {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(data), limit)
	}
	if _, err := Transform(data); err != nil {
		return err
	}
	return strict(data, v)
}

func strict(data []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	return dec.Decode(v)
}

func value(dec *json.Decoder, out *bytes.Buffer, depth int) error {
	if depth > MaxDepth {
		return ErrTooDeep
	}
	tok, err := dec.Token()
	if err != nil {
		return err
	}
	switch t := tok.(type) {
	case json.Delim:
		if t == '{' {
			return object(dec, out, depth)
		}
		return array(dec, out, depth)
	case string:
		text(out, t)
	case json.Number:
		return number(out, t)
	case bool:
		out.WriteString(strconv.FormatBool(t))
	case nil:
		out.WriteString("null")
	}
	return nil
}

func array(dec *json.Decoder, out *bytes.Buffer, depth int) error {
	out.WriteByte('[')
	for i := 0; dec.More(); i++ {
		if i > 0 {
			out.WriteByte(',')
		}
		if err := value(dec, out, depth+1); err != nil {
			return err
		}
	}
	out.WriteByte(']')
	_, err := dec.Token()
	return err
}

type member struct {
	key  string
	sort []uint16
	json []byte
}

func object(dec *json.Decoder, out *bytes.Buffer, depth int) error {
	var members []member
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return err
		}
		key, ok := tok.(string)
		if !ok {
			return ErrForm
		}
		var b bytes.Buffer
		if err := value(dec, &b, depth+1); err != nil {
			return err
		}
		members = append(members, member{key, utf16.Encode([]rune(key)), b.Bytes()})
	}
	if _, err := dec.Token(); err != nil {
		return err
	}
	slices.SortFunc(members, func(a, b member) int { return slices.Compare(a.sort, b.sort) })
	out.WriteByte('{')
	for i, m := range members {
		if i > 0 {
			if members[i-1].key == m.key {
				return fmt.Errorf("%w: key %.40q stands twice", ErrForm, m.key)
			}
			out.WriteByte(',')
		}
		text(out, m.key)
		out.WriteByte(':')
		out.Write(m.json)
	}
	out.WriteByte('}')
	return nil
}

// text writes a string as RFC 8785 does: only what JSON demands is escaped.
func text(out *bytes.Buffer, s string) {
	out.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			out.WriteByte('\\')
			out.WriteRune(r)
		case r == '\b':
			out.WriteString(`\b`)
		case r == '\f':
			out.WriteString(`\f`)
		case r == '\n':
			out.WriteString(`\n`)
		case r == '\r':
			out.WriteString(`\r`)
		case r == '\t':
			out.WriteString(`\t`)
		case r < 0x20:
			fmt.Fprintf(out, `\u%04x`, r)
		default:
			out.WriteRune(r)
		}
	}
	out.WriteByte('"')
}

// number writes integers within ±2^53 exactly, and other numbers in ECMAScript's shortest form. Larger integers are
// refused: readers would round them.
func number(out *bytes.Buffer, n json.Number) error {
	if !strings.ContainsAny(n.String(), ".eE") {
		i, err := strconv.ParseInt(n.String(), 10, 64)
		if err == nil && i >= -maxExact && i <= maxExact {
			out.WriteString(strconv.FormatInt(i, 10))
			return nil
		}
		return fmt.Errorf("%w: integer %.40s is beyond 2^53", ErrForm, n)
	}
	f, err := n.Float64()
	if err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
		return fmt.Errorf("%w: number %.40s", ErrForm, n)
	}
	if f == 0 {
		out.WriteByte('0')
		return nil
	}
	abs := math.Abs(f)
	if abs >= 1e21 || abs < 1e-6 {
		s := strconv.FormatFloat(f, 'e', -1, 64)
		mantissa, exp, _ := strings.Cut(s, "e")
		sign, digits := exp[:1], strings.TrimLeft(exp[1:], "0")
		out.WriteString(mantissa + "e" + sign + digits)
		return nil
	}
	out.WriteString(strconv.FormatFloat(f, 'f', -1, 64))
	return nil
}
