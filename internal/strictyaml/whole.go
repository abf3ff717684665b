package strictyaml

import (
	"encoding"
	"fmt"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

var (
	yamlUnmarshaler = reflect.TypeFor[yaml.Unmarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// wholeNumbers refuses a fraction where t wants a whole number: the library would cut it off without a word, so that a
// quorum of 1.9 became 1. Whatever does not match t otherwise is left for the decoder to refuse.
func wholeNumbers(n *yaml.Node, t reflect.Type) error {
	for t.Kind() == reflect.Pointer && !decodesItself(t) {
		t = t.Elem()
	}
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if decodesItself(t) {
		return nil
	}
	switch {
	case n.Kind == yaml.DocumentNode && len(n.Content) == 1:
		return wholeNumbers(n.Content[0], t)
	case n.Kind == yaml.ScalarNode && isInteger(t.Kind()) && n.ShortTag() == "!!float":
		return fmt.Errorf("line %d: cannot unmarshal fraction `%.20s` into a whole number", n.Line, n.Value)
	case n.Kind == yaml.SequenceNode && (t.Kind() == reflect.Slice || t.Kind() == reflect.Array):
		for _, c := range n.Content {
			if err := wholeNumbers(c, t.Elem()); err != nil {
				return err
			}
		}
	case n.Kind == yaml.MappingNode:
		return wholeMapping(n, t)
	}
	return nil
}

func wholeMapping(n *yaml.Node, t reflect.Type) error {
	fields := map[string]reflect.Type{}
	if t.Kind() == reflect.Struct {
		fieldTypes(t, fields)
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.ShortTag() == "!!merge" {
			if err := wholeMerge(value, t); err != nil {
				return err
			}
			continue
		}
		want := fields[key.Value]
		if t.Kind() == reflect.Map {
			want = t.Elem()
			if err := wholeNumbers(key, t.Key()); err != nil {
				return err
			}
		}
		if want == nil {
			continue
		}
		if err := wholeNumbers(value, want); err != nil {
			return err
		}
	}
	return nil
}

// wholeMerge follows `<<: *a` and `<<: [*a, *b]`, whose mappings count as if they stood in the place of the merge.
func wholeMerge(n *yaml.Node, t reflect.Type) error {
	if n.Kind != yaml.SequenceNode {
		return wholeNumbers(n, t)
	}
	for _, c := range n.Content {
		if err := wholeNumbers(c, t); err != nil {
			return err
		}
	}
	return nil
}

// fieldTypes collects the keys that the library knows for struct t: the tag's name or the field's in lower case, inlined ones too.
func fieldTypes(t reflect.Type, into map[string]reflect.Type) {
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		inline := f.Type
		if inline.Kind() == reflect.Pointer {
			inline = inline.Elem()
		}
		switch {
		case !f.IsExported() && !f.Anonymous, name == "-":
		case strings.Contains(","+options+",", ",inline,") && inline.Kind() == reflect.Struct:
			fieldTypes(inline, into)
		case name != "":
			into[name] = f.Type
		default:
			into[strings.ToLower(f.Name)] = f.Type
		}
	}
}

func decodesItself(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return t.Implements(yamlUnmarshaler) || p.Implements(yamlUnmarshaler) || t.Implements(textUnmarshaler) || p.Implements(textUnmarshaler)
}

func isInteger(k reflect.Kind) bool { return k >= reflect.Int && k <= reflect.Uintptr }
