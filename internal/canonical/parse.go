package canonical

import (
	"errors"
	"fmt"
	"slices"
	"unicode/utf16"
	"unicode/utf8"
)

type kind byte

const (
	literal kind = iota // true, false, null, or a number in canonical spelling
	text
	array
	object
)

// A node is one parsed JSON value. Members of an object are sorted as RFC 8785 wants them.
type node struct {
	kind    kind
	text    string // a literal's spelling or a string's content
	key     string // the name, where the node is a member of an object
	content []node
}

type parser struct {
	data []byte
	at   int
}

// parse reads exactly one JSON document.
func parse(data []byte) (node, error) {
	p := &parser{data: data}
	p.space()
	root, err := p.value(0)
	if err == nil {
		p.space()
		if p.at != len(data) {
			err = errors.New("data after the document")
		}
	}
	if err != nil {
		return node{}, fmt.Errorf("json at byte %d: %w", p.at, err)
	}
	return root, nil
}

func (p *parser) space() {
	for p.at < len(p.data) && (p.data[p.at] == ' ' || p.data[p.at] == '\t' || p.data[p.at] == '\n' || p.data[p.at] == '\r') {
		p.at++
	}
}

// peek returns the next byte, or 0 at the end; a NUL in the data is no token either.
func (p *parser) peek() byte {
	if p.at < len(p.data) {
		return p.data[p.at]
	}
	return 0
}

func (p *parser) value(depth int) (node, error) {
	switch c := p.peek(); {
	case c == '{' || c == '[':
		if depth >= MaxDepth {
			return node{}, ErrTooDeep
		}
		if c == '{' {
			return p.object(depth + 1)
		}
		return p.array(depth + 1)
	case c == '"':
		s, err := p.string()
		return node{kind: text, text: s}, err
	case c == '-' || c >= '0' && c <= '9':
		return p.number()
	}
	for _, word := range []string{"true", "false", "null"} {
		if end := p.at + len(word); end <= len(p.data) && string(p.data[p.at:end]) == word {
			p.at = end
			return node{kind: literal, text: word}, nil
		}
	}
	return node{}, errors.New("want a value")
}

func (p *parser) array(depth int) (node, error) {
	n := node{kind: array}
	p.at++
	if p.space(); p.peek() == ']' {
		p.at++
		return n, nil
	}
	for {
		p.space()
		v, err := p.value(depth)
		if err != nil {
			return n, err
		}
		n.content = append(n.content, v)
		if more, err := p.more(']'); !more {
			return n, err
		}
	}
}

func (p *parser) object(depth int) (node, error) {
	n := node{kind: object}
	p.at++
	if p.space(); p.peek() == '}' {
		p.at++
		return n, nil
	}
	for {
		p.space()
		if p.peek() != '"' {
			return n, errors.New("want a key")
		}
		key, err := p.string()
		if err != nil {
			return n, err
		}
		if p.space(); p.peek() != ':' {
			return n, errors.New("want a colon")
		}
		p.at++
		p.space()
		v, err := p.value(depth)
		if err != nil {
			return n, err
		}
		v.key = key
		n.content = append(n.content, v)
		if more, err := p.more('}'); err != nil {
			return n, err
		} else if !more {
			return n, sortMembers(n.content)
		}
	}
}

// more reads what follows an element: a comma, or the closing byte.
func (p *parser) more(closing byte) (bool, error) {
	p.space()
	switch p.peek() {
	case ',':
		p.at++
		return true, nil
	case closing:
		p.at++
		return false, nil
	}
	return false, fmt.Errorf("want a comma or %q", closing)
}

func sortMembers(members []node) error {
	slices.SortFunc(members, func(a, b node) int { return compareUTF16(a.key, b.key) })
	for i := 1; i < len(members); i++ {
		if members[i].key == members[i-1].key {
			return fmt.Errorf("duplicate key %.60q", members[i].key)
		}
	}
	return nil
}

// compareUTF16 orders by UTF-16 code units, as RFC 8785 §3.2.3 asks. It differs from byte order only where one side has a
// character beyond the basic plane.
func compareUTF16(a, b string) int {
	return slices.Compare(utf16.Encode([]rune(a)), utf16.Encode([]rune(b)))
}

func (p *parser) string() (string, error) {
	p.at++
	var out []byte
	for p.at < len(p.data) {
		c := p.data[p.at]
		switch {
		case c == '"':
			p.at++
			return string(out), nil
		case c < 0x20:
			return "", errors.New("control character in a string")
		case c == '\\':
			r, err := p.escape()
			if err != nil {
				return "", err
			}
			out = utf8.AppendRune(out, r)
		case c < utf8.RuneSelf:
			out = append(out, c)
			p.at++
		default:
			r, size := utf8.DecodeRune(p.data[p.at:])
			if r == utf8.RuneError && size == 1 {
				return "", errors.New("invalid UTF-8")
			}
			out = append(out, p.data[p.at:p.at+size]...)
			p.at += size
		}
	}
	return "", errors.New("a string does not end")
}

var shortEscapes = map[byte]rune{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

func (p *parser) escape() (rune, error) {
	p.at++
	c := p.peek()
	if r, ok := shortEscapes[c]; ok {
		p.at++
		return r, nil
	}
	if c != 'u' {
		return 0, errors.New("unknown escape")
	}
	r, err := p.unit()
	if err != nil || !utf16.IsSurrogate(r) {
		return r, err
	}
	if p.peek() != '\\' || p.at+1 >= len(p.data) || p.data[p.at+1] != 'u' {
		return 0, errors.New("unpaired surrogate")
	}
	p.at++
	low, err := p.unit()
	if err != nil {
		return 0, err
	}
	if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
		return 0, errors.New("unpaired surrogate")
	}
	return r, nil
}

// unit reads u and four hex digits.
func (p *parser) unit() (rune, error) {
	if p.at+5 > len(p.data) {
		return 0, errors.New("an escape does not end")
	}
	var r rune
	for _, c := range p.data[p.at+1 : p.at+5] {
		r <<= 4
		switch {
		case c >= '0' && c <= '9':
			r |= rune(c - '0')
		case c >= 'a' && c <= 'f':
			r |= rune(c - 'a' + 10)
		case c >= 'A' && c <= 'F':
			r |= rune(c - 'A' + 10)
		default:
			return 0, errors.New("an escape wants four hex digits")
		}
	}
	p.at += 5
	return r, nil
}

// appendTo writes n in its canonical spelling.
func (n node) appendTo(out []byte) []byte {
	switch n.kind {
	case literal:
		return append(out, n.text...)
	case text:
		return appendString(out, n.text)
	}
	brackets := "[]"
	if n.kind == object {
		brackets = "{}"
	}
	out = append(out, brackets[0])
	for i, c := range n.content {
		if i > 0 {
			out = append(out, ',')
		}
		if n.kind == object {
			out = append(appendString(out, c.key), ':')
		}
		out = c.appendTo(out)
	}
	return append(out, brackets[1])
}

func appendString(out []byte, s string) []byte {
	out = append(out, '"')
	for i := range len(s) {
		switch c := s[i]; c {
		case '"', '\\':
			out = append(out, '\\', c)
		case '\b':
			out = append(out, `\b`...)
		case '\f':
			out = append(out, `\f`...)
		case '\n':
			out = append(out, `\n`...)
		case '\r':
			out = append(out, `\r`...)
		case '\t':
			out = append(out, `\t`...)
		default:
			if c < 0x20 {
				out = fmt.Appendf(out, `\u%04x`, c)
			} else {
				out = append(out, c)
			}
		}
	}
	return append(out, '"')
}
