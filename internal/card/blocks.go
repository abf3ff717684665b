package card

import (
	"encoding/json"
	"fmt"
	"unicode"
	"unicode/utf8"
)

// Message is what Slack is given: blocks, and the text of notifications and of clients that show no blocks.
type Message struct {
	Text   string
	Blocks json.RawMessage
}

type obj = map[string]any

// line is a row of leaves. A leaf is text to Slack, whatever it holds: there is no markup in rich_text.
type line []any

func say(format string, args ...any) line { return line{leaf(fmt.Sprintf(format, args...), nil)} }

func (l line) say(format string, args ...any) line {
	return append(l, leaf(fmt.Sprintf(format, args...), nil))
}

func (l line) bold(s string) line { return append(l, leaf(s, obj{"bold": true})) }

// code shows text in a code span: for everything that others wrote.
func (l line) code(s string) line { return append(l, leaf(s, obj{"code": true})) }

func leaf(s string, style obj) obj {
	out := obj{"type": "text", "text": s}
	if style != nil {
		out["style"] = style
	}
	return out
}

func section(l line) obj { return obj{"type": "rich_text_section", "elements": []any(l)} }

func bullets(lines []line) obj {
	items := make([]any, len(lines))
	for i, l := range lines {
		items[i] = section(l)
	}
	return obj{"type": "rich_text_list", "style": "bullet", "elements": items}
}

// paragraph is a block of one bold title, and bullets below it.
func paragraph(id, title string, lines []line) obj {
	return richText(id, section(line{}.bold(title)), bullets(lines))
}

func richText(id string, parts ...any) obj {
	return obj{"type": "rich_text", "block_id": id, "elements": parts}
}

func plainText(s string) obj { return obj{"type": "plain_text", "text": s, "emoji": false} }

func header(s string) obj {
	return obj{"type": "header", "block_id": "header", "text": plainText(s)}
}

func footnote(id, s string) obj {
	return obj{"type": "context", "block_id": id, "elements": []any{plainText(s)}}
}

func button(action, label, style, value string) obj {
	out := obj{"type": "button", "action_id": action, "text": plainText(label), "value": value}
	if style != "" {
		out["style"] = style
	}
	return out
}

func actions(id string, buttons ...any) obj {
	return obj{"type": "actions", "block_id": id, "elements": buttons}
}

// textLength is how many characters of text stand in blocks, as Slack counts them.
func textLength(v any) int {
	n := 0
	switch v := v.(type) {
	case obj:
		if s, ok := v["text"].(string); ok {
			n += utf8.RuneCountInString(s)
		}
		for _, inner := range v {
			n += textLength(inner)
		}
	case []any:
		for _, inner := range v {
			n += textLength(inner)
		}
	}
	return n
}

func upperFirst(s string) string {
	first, size := utf8.DecodeRuneInString(s)
	return string(unicode.ToUpper(first)) + s[size:]
}
