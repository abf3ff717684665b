package adapter

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"unicode/utf8"
)

// maxDepth is how deep a foreign document may nest.
const maxDepth = 32

// document is a foreign JSON document whose parts are taken out one by one: what is left is unmapped. Numbers keep their
// spelling, since foreign ones may be larger than a float holds.
type document map[string]any

// parse reads one JSON object. Ambiguous ones (a key twice, invalid UTF-8, data after the end) are refused.
func parse(data []byte) (document, error) {
	if !utf8.Valid(data) {
		return nil, refuse(Malformed, "", "not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	v, err := value(dec, 0)
	if err != nil {
		return nil, asRefusal(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, refuse(Malformed, "", "data after the document")
	}
	doc, ok := v.(map[string]any)
	if !ok {
		return nil, refuse(Malformed, "", "not an object")
	}
	return doc, nil
}

func value(dec *json.Decoder, depth int) (any, error) {
	token, err := dec.Token()
	if err != nil {
		return nil, fmt.Errorf("read json: %w", err)
	}
	open, ok := token.(json.Delim)
	if !ok {
		return token, nil
	}
	if depth >= maxDepth {
		return nil, refuse(TooDeep, "", fmt.Sprintf("nested deeper than %d", maxDepth))
	}
	object, array := map[string]any{}, []any{}
	for dec.More() {
		key := ""
		if open == '{' {
			name, err := dec.Token()
			if err != nil {
				return nil, fmt.Errorf("read json: %w", err)
			}
			key, _ = name.(string)
			if _, twice := object[key]; twice {
				return nil, refuse(Malformed, key, "stands twice")
			}
		}
		v, err := value(dec, depth+1)
		if err != nil {
			return nil, err
		}
		object[key], array = v, append(array, v)
	}
	if _, err := dec.Token(); err != nil {
		return nil, fmt.Errorf("read json: %w", err)
	}
	if open == '{' {
		return object, nil
	}
	return array, nil
}

// holder returns the object in which the last component of the path stands; nil if there is none.
func (d document) holder(path []string) map[string]any {
	at := map[string]any(d)
	for _, key := range path[:len(path)-1] {
		at, _ = at[key].(map[string]any)
	}
	return at
}

// take removes and returns what stands at the path; nil if nothing does.
func (d document) take(path ...string) any {
	at, last := d.holder(path), path[len(path)-1]
	v := at[last]
	delete(at, last)
	return v
}

// text takes a string; a number is taken in its own spelling.
func (d document) text(path ...string) string { return spelling(d.take(path...)) }

// read is text, but leaves what it reads where it is.
func (d document) read(path ...string) string { return spelling(d.holder(path)[path[len(path)-1]]) }

func spelling(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case json.Number:
		return v.String()
	}
	return ""
}

// whole takes an integer.
func (d document) whole(path ...string) (int64, bool) {
	n, ok := d.take(path...).(json.Number)
	if !ok {
		return 0, false
	}
	i, err := n.Int64()
	return i, err == nil
}

// list returns the objects of an array, and leaves them where they are: of some an adapter understands nothing.
func (d document) list(path ...string) []document {
	array, _ := d.holder(path)[path[len(path)-1]].([]any)
	var out []document
	for _, v := range array {
		if o, ok := v.(map[string]any); ok {
			out = append(out, o)
		}
	}
	return out
}

const (
	maxUnmapped      = 256
	maxUnmappedValue = 1024
)

// unmapped flattens what was not taken to dotted paths, and says how much it had to leave out.
func unmapped(parts map[string]any) map[string]string {
	out := map[string]string{}
	left := flatten(out, "", parts)
	if left > 0 {
		out["unmapped_left_out"] = strconv.Itoa(left)
	}
	return out
}

func flatten(out map[string]string, at string, v any) (left int) {
	switch v := v.(type) {
	case nil:
		return 0
	case document:
		return flatten(out, at, map[string]any(v))
	case map[string]any:
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			left += flatten(out, join(at, k), v[k])
		}
		return left
	case []any:
		for i, e := range v {
			left += flatten(out, join(at, strconv.Itoa(i)), e)
		}
		return left
	}
	if len(out) >= maxUnmapped-1 { // one place is kept for saying so
		return 1
	}
	text := fmt.Sprint(v)
	if len(text) > maxUnmappedValue {
		text = text[:maxUnmappedValue]
	}
	out[at] = text
	return 0
}

func join(at, key string) string {
	if at == "" {
		return key
	}
	return at + "." + key
}
