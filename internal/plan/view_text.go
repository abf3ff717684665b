package plan

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// encodeJSON writes indented JSON in printable ASCII: nothing in a name can turn a terminal or the reading direction.
func encodeJSON(document any) (string, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(document); err != nil {
		return "", fmt.Errorf("encode JSON: %w", err)
	}
	return ascii(out.String(), func(b *strings.Builder, r rune) {
		if high, low := utf16.EncodeRune(r); high != utf8.RuneError {
			fmt.Fprintf(b, `\u%04x\u%04x`, high, low)
		} else {
			fmt.Fprintf(b, `\u%04x`, r)
		}
	}), nil
}

// encodeYAML writes YAML in printable ASCII.
func encodeYAML(document any) (string, error) {
	var node yaml.Node
	if err := node.Encode(document); err != nil {
		return "", fmt.Errorf("encode YAML: %w", err)
	}
	quoteForeign(&node)
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(&node); err != nil {
		return "", fmt.Errorf("encode YAML: %w", err)
	}
	if err := enc.Close(); err != nil {
		return "", fmt.Errorf("encode YAML: %w", err)
	}
	return ascii(out.String(), func(b *strings.Builder, r rune) { fmt.Fprintf(b, `\U%08x`, r) }), nil
}

// quoteForeign puts every text that is not plain ASCII in double quotes, the only place where YAML knows escapes.
func quoteForeign(n *yaml.Node) {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!str" && strings.ContainsFunc(n.Value, foreign) {
		n.Style = yaml.DoubleQuotedStyle
	}
	for _, c := range n.Content {
		quoteForeign(c)
	}
}

func foreign(r rune) bool { return r < ' ' || r > '~' }

// ascii replaces what is not ASCII by its escape. In both documents that stands in quoted strings only.
func ascii(text string, escape func(*strings.Builder, rune)) string {
	var b strings.Builder
	for _, r := range text {
		if r != '\n' && foreign(r) {
			escape(&b, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// command is one command line, by its words.
type command []string

// script writes commands, one a line.
func script(commands []command) string {
	var b strings.Builder
	for _, c := range commands {
		for i, word := range c {
			if i > 0 {
				b.WriteByte(' ')
			}
			b.WriteString(quote(word))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// quote writes a word so that bash, zsh and ksh read exactly it, in printable ASCII on one line.
func quote(word string) string {
	safe := func(r rune) bool {
		return ('a' <= r && r <= 'z') || ('A' <= r && r <= 'Z') || ('0' <= r && r <= '9') || strings.ContainsRune("-_./:@,+=", r)
	}
	switch {
	case word != "" && !strings.ContainsFunc(word, func(r rune) bool { return !safe(r) }):
		return word
	case !strings.ContainsFunc(word, foreign) && utf8.ValidString(word):
		return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
	}
	var b strings.Builder
	b.WriteString("$'")
	for _, c := range []byte(word) {
		switch {
		case c == '\'' || c == '\\':
			b.Write([]byte{'\\', c})
		case foreign(rune(c)):
			fmt.Fprintf(&b, `\%03o`, c) // three digits, so that a digit behind it is not taken for a part of it
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('\'')
	return b.String()
}
