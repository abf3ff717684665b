package iampolicy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// maxDepth bounds nesting: a real policy needs five levels.
const maxDepth = 12

// member is one key of a JSON object, in the order of the document.
type member struct {
	key   string
	value any // []member, []any, string, json.Number, bool or nil
}

// readTree decodes one JSON value and refuses duplicate keys, trailing bytes and deep nesting. encoding/json alone would keep
// the last of two equal keys and match element names in any case, so that two readers could see two different policies.
func readTree(raw []byte) (any, error) {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	value, err := readValue(decoder, 0)
	if err != nil {
		return nil, err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("bytes after the end of the document")
	}
	return value, nil
}

func readValue(decoder *json.Decoder, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("nested more than %d levels", maxDepth)
	}
	token, err := decoder.Token()
	if err != nil {
		return nil, fmt.Errorf("read JSON: %w", err)
	}
	switch token {
	case json.Delim('{'):
		return readObject(decoder, depth)
	case json.Delim('['):
		return readArray(decoder, depth)
	}
	return token, nil
}

func readObject(decoder *json.Decoder, depth int) (any, error) {
	members := []member{}
	seen := map[string]bool{}
	for decoder.More() {
		token, err := decoder.Token()
		if err != nil {
			return nil, fmt.Errorf("read JSON: %w", err)
		}
		key, ok := token.(string)
		if !ok {
			return nil, fmt.Errorf("object key %v is not a string", token)
		}
		if seen[key] {
			return nil, fmt.Errorf("duplicate key %q", key)
		}
		seen[key] = true
		value, err := readValue(decoder, depth+1)
		if err != nil {
			return nil, err
		}
		members = append(members, member{key, value})
	}
	return members, closing(decoder)
}

func readArray(decoder *json.Decoder, depth int) (any, error) {
	items := []any{}
	for decoder.More() {
		value, err := readValue(decoder, depth+1)
		if err != nil {
			return nil, err
		}
		items = append(items, value)
	}
	return items, closing(decoder)
}

// closing reads the bracket that More has seen, or finds the end of a torn document.
func closing(decoder *json.Decoder) error {
	if _, err := decoder.Token(); err != nil {
		return fmt.Errorf("read JSON: %w", err)
	}
	return nil
}

// texts reads a string or a list of strings. With scalars, numbers and booleans count as their text, as in condition values.
func texts(value any, scalars bool) ([]string, error) {
	list, ok := value.([]any)
	if !ok {
		list = []any{value}
	}
	out := make([]string, 0, len(list))
	for _, item := range list {
		switch v := item.(type) {
		case string:
			out = append(out, v)
			continue
		case json.Number:
			if scalars {
				out = append(out, v.String())
				continue
			}
		case bool:
			if scalars {
				out = append(out, fmt.Sprint(v))
				continue
			}
		}
		return nil, errors.New("want a string or a list of strings")
	}
	return out, nil
}
