package slack

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"unicode/utf8"
)

// maxBlockText bounds the sum of all texts of one message's blocks (msg_blocks_too_long). Slack does not document the figure;
// 11,341 characters were refused (slackapi/bolt-js#2867), so the stand-in refuses a little earlier.
const maxBlockText = 11000

// A check looks at one value and reports what Slack would say about it.
type check func(v *validation, at string, value any)

type validation struct {
	problems  []string
	blockIDs  map[string]bool
	textRunes int
	hasInput  bool
	imageFile func(id string) bool // whether the app uploaded this image
}

func (v *validation) bad(at, format string, a ...any) {
	v.problems = append(v.problems, fmt.Sprintf(format, a...)+" [json-pointer:"+at+"]")
}

type field struct {
	required bool
	check    check
}

func must(c check) field { return field{true, c} }
func may(c check) field  { return field{false, c} }

// object wants a JSON object with these fields, and no others.
func object(fields map[string]field) check {
	return func(v *validation, at string, value any) {
		o, ok := value.(map[string]any)
		if !ok {
			v.bad(at, "must be an object")
			return
		}
		for _, name := range sortedKeys(fields) {
			f := fields[name]
			inner, present := o[name]
			if present {
				f.check(v, at+"/"+name, inner)
			} else if f.required {
				v.bad(at, "missing required field: %s", name)
			}
		}
		for _, name := range sortedKeys(o) {
			if _, known := fields[name]; !known && name != "type" {
				v.bad(at, "invalid additional property: %s", name)
			}
		}
	}
}

// oneOf picks the shape by the object's type.
func oneOf(shapes map[string]check) check {
	return func(v *validation, at string, value any) {
		o, _ := value.(map[string]any)
		kind, _ := o["type"].(string)
		shape, ok := shapes[kind]
		if !ok {
			v.bad(at+"/type", "unsupported type: %s", kind)
			return
		}
		shape(v, at, value)
	}
}

func list(least, most int, item check) check {
	return func(v *validation, at string, value any) {
		items, ok := value.([]any)
		switch {
		case !ok:
			v.bad(at, "must be a list")
			return
		case len(items) > most:
			v.bad(at, "no more than %d items allowed", most)
		case len(items) < least:
			v.bad(at, "no fewer than %d items allowed", least)
		}
		for i, it := range items {
			item(v, fmt.Sprintf("%s/%d", at, i), it)
		}
	}
}

func str(least, most int) check {
	return func(v *validation, at string, value any) {
		text, ok := value.(string)
		n := utf8.RuneCountInString(text)
		switch {
		case !ok:
			v.bad(at, "must be a string")
		case n > most:
			v.bad(at, "must be less than %d characters", most+1)
		case n < least:
			v.bad(at, "must be more than %d characters", least-1)
		}
	}
}

func choice(allowed ...string) check {
	return func(v *validation, at string, value any) {
		if text, ok := value.(string); !ok || !slices.Contains(allowed, text) {
			v.bad(at, "value not allowed")
		}
	}
}

func boolean(v *validation, at string, value any) {
	if _, ok := value.(bool); !ok {
		v.bad(at, "must be a boolean")
	}
}

func number(v *validation, at string, value any) {
	if _, ok := value.(json.Number); !ok {
		v.bad(at, "must be a number")
	}
}

// counted is a text that counts towards maxBlockText.
func counted(least, most int) check {
	return func(v *validation, at string, value any) {
		text, _ := value.(string)
		v.textRunes += utf8.RuneCountInString(text)
		str(least, most)(v, at, value)
	}
}

func plain(most int) check {
	return oneOf(map[string]check{"plain_text": object(map[string]field{"text": must(counted(1, most)), "emoji": may(boolean)})})
}

func text(most int) check {
	return oneOf(map[string]check{
		"plain_text": object(map[string]field{"text": must(counted(1, most)), "emoji": may(boolean)}),
		"mrkdwn":     object(map[string]field{"text": must(counted(1, most)), "verbatim": may(boolean)}),
	})
}

func sortedKeys[T any](m map[string]T) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// decode reads JSON with numbers kept as they are.
func decode(raw string) (any, error) {
	d := json.NewDecoder(bytes.NewReader([]byte(raw)))
	d.UseNumber()
	var value any
	if err := d.Decode(&value); err != nil {
		return nil, err
	}
	if d.More() {
		return nil, fmt.Errorf("more than one JSON value")
	}
	return value, nil
}

// checkBlocks validates a message's blocks and gives them with ids filled in, as Slack stores them.
func (s *Server) checkBlocks(raw string) (json.RawMessage, error) {
	value, err := decode(raw)
	blocks, isList := value.([]any)
	if err != nil || !isList {
		return nil, refuse("invalid_blocks_format")
	}
	v := s.validation()
	list(0, 50, messageBlock())(v, "/blocks", value)
	if len(v.problems) > 0 {
		return nil, &apiError{code: "invalid_blocks", messages: v.problems}
	}
	if v.textRunes > maxBlockText {
		return nil, refuse("msg_blocks_too_long")
	}
	s.fillIDs(blocks)
	return encode(blocks), nil
}

func (s *Server) validation() *validation {
	return &validation{blockIDs: map[string]bool{}, imageFile: func(id string) bool {
		f := s.state.files[id]
		return f != nil && f.complete && isImage(f.MIMEType)
	}}
}

// fillIDs gives an id to each block and element that came without one.
func (s *Server) fillIDs(blocks []any) {
	for _, b := range blocks {
		block := b.(map[string]any) // validated
		if id, _ := block["block_id"].(string); id == "" {
			block["block_id"] = s.state.id("b")
		}
		for _, e := range elements(block) {
			if id, _ := e["action_id"].(string); id == "" && interactive(e) {
				e["action_id"] = s.state.id("a")
			}
		}
	}
}

// elements lists a block's elements: of an actions block, a section's accessory, an input's element.
func elements(block map[string]any) []map[string]any {
	var out []map[string]any
	add := func(x any) {
		if e, ok := x.(map[string]any); ok {
			out = append(out, e)
		}
	}
	add(block["accessory"])
	add(block["element"])
	if block["type"] == "actions" {
		many, _ := block["elements"].([]any)
		for _, e := range many {
			add(e)
		}
	}
	return out
}

func interactive(element map[string]any) bool { return element["type"] != "image" }

func encode(v any) json.RawMessage {
	out, err := json.Marshal(v)
	if err != nil {
		panic(err) // it was decoded from JSON
	}
	return out
}
