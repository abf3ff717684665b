package canonical

import (
	"bytes"
	"encoding"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"unicode/utf8"
)

var (
	jsonMarshaler   = reflect.TypeFor[json.Marshaler]()
	textMarshaler   = reflect.TypeFor[encoding.TextMarshaler]()
	jsonUnmarshaler = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// Unmarshal reads one JSON document of at most limit bytes into v. Beyond what Canonicalize refuses it refuses what
// encoding/json lets pass: unknown keys, keys in another case, null where the type has no nil, arrays of another length than
// the type's, and base64 with stray bits. The document need not be canonical: who needs that compares it with Canonicalize.
//
// A type that unmarshals itself answers for what is below it. Embedded fields are read as encoding/json reads them when no
// two of them share a name.
func Unmarshal(data []byte, v any, limit int) error {
	if len(data) > limit {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(data), limit)
	}
	root, err := parse(data)
	if err != nil {
		return err
	}
	t := reflect.TypeOf(v)
	if t == nil || t.Kind() != reflect.Pointer {
		return fmt.Errorf("unmarshal into %T: want a pointer", v)
	}
	if err := match(root, t.Elem()); err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return fmt.Errorf("unmarshal: %w", err)
	}
	return nil
}

// match says whether n fits t in the ways that encoding/json does not check itself.
func match(n node, t reflect.Type) error {
	if decodesItself(t) {
		return nil
	}
	null := n.kind == literal && n.text == "null"
	switch t.Kind() {
	case reflect.Interface:
		return nil
	case reflect.Pointer:
		if null {
			return nil
		}
		return match(n, t.Elem())
	case reflect.Struct:
		if n.kind == object {
			return matchStruct(n, t)
		}
	case reflect.Map:
		if null {
			return nil
		}
		if n.kind == object {
			return matchEach(n, t.Elem())
		}
	case reflect.Slice:
		if null {
			return nil
		}
		if n.kind == text {
			return matchBase64(n.text)
		}
		return matchEach(n, t.Elem())
	case reflect.Array:
		if n.kind == array && len(n.content) != t.Len() {
			return fmt.Errorf("%d elements where %d belong", len(n.content), t.Len())
		}
		return matchEach(n, t.Elem())
	}
	if null {
		return errors.New("null where a value belongs")
	}
	return nil
}

func matchEach(n node, t reflect.Type) error {
	for i, c := range n.content {
		if err := match(c, t); err != nil {
			if n.kind == object {
				return fmt.Errorf("%.60s: %w", c.key, err)
			}
			return fmt.Errorf("[%d]: %w", i, err)
		}
	}
	return nil
}

func matchStruct(n node, t reflect.Type) error {
	fields := map[string]reflect.Type{}
	fieldTypes(t, fields)
	for _, c := range n.content {
		want, ok := fields[c.key]
		if !ok {
			return fmt.Errorf("unknown key %.60q", c.key)
		}
		if err := match(c, want); err != nil {
			return fmt.Errorf("%s: %w", c.key, err)
		}
	}
	return nil
}

func matchBase64(s string) error {
	if strings.ContainsAny(s, "\r\n") {
		return errors.New("line break in base64")
	}
	if _, err := base64.StdEncoding.Strict().DecodeString(s); err != nil {
		return fmt.Errorf("base64: %w", err)
	}
	return nil
}

// fieldTypes collects the keys of struct t, with those of embedded structs that have no name of their own.
func fieldTypes(t reflect.Type, into map[string]reflect.Type) {
	for f := range t.Fields() {
		tag := f.Tag.Get("json")
		name, _, _ := strings.Cut(tag, ",")
		embedded := f.Type
		if embedded.Kind() == reflect.Pointer {
			embedded = embedded.Elem()
		}
		switch {
		case tag == "-":
		case f.Anonymous && name == "" && embedded.Kind() == reflect.Struct:
			fieldTypes(embedded, into)
		case !f.IsExported():
		case name == "":
			into[f.Name] = f.Type
		default:
			into[name] = f.Type
		}
	}
}

func decodesItself(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return p.Implements(jsonUnmarshaler) || p.Implements(textUnmarshaler)
}

// checkStrings walks v, which encoding/json has taken already, and refuses strings that are not UTF-8: they would be
// written with replacement characters, so that two different values had one document.
func checkStrings(v any) error { return checkValue(reflect.ValueOf(v)) }

func checkValue(v reflect.Value) error {
	if !v.IsValid() || encodesItself(v.Type()) {
		return nil
	}
	switch v.Kind() {
	case reflect.String:
		if !utf8.ValidString(v.String()) {
			return errors.New("a string is not UTF-8")
		}
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			return checkValue(v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.Tag.Get("json") == "-" || !f.IsExported() && !f.Anonymous {
				continue
			}
			if err := checkValue(v.Field(i)); err != nil {
				return err
			}
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			if err := errors.Join(checkValue(it.Key()), checkValue(it.Value())); err != nil {
				return err
			}
		}
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return nil
		}
		for i := range v.Len() {
			if err := checkValue(v.Index(i)); err != nil {
				return err
			}
		}
	}
	return nil
}

// encodesItself says whether t answers for its own UTF-8. What a json.Marshaler returns is parsed and so checked again.
func encodesItself(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return p.Implements(jsonMarshaler) || p.Implements(textMarshaler)
}
