package slack

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A Span is a piece of a mrkdwn text as Slack would show it. Tests compare the structure of what they posted with it: untrusted
// words that were escaped well add nothing but text.
type Span struct {
	Kind  SpanKind `json:"kind"`
	Text  string   `json:"text,omitempty"` // what a person reads; of a mention, the id
	Name  string   `json:"name,omitempty"` // of an emoji
	URL   string   `json:"url,omitempty"`
	Inner []Span   `json:"inner,omitempty"`
}

// A SpanKind says how a span is shown.
type SpanKind string

// Kinds of spans. Link, Person, Group, ChannelLink and Broadcast are the ones that act.
const (
	Text        SpanKind = "text"
	Emoji       SpanKind = "emoji"
	Bold        SpanKind = "bold"
	Italic      SpanKind = "italic"
	Strike      SpanKind = "strike"
	Code        SpanKind = "code"
	Preformat   SpanKind = "pre"
	Quote       SpanKind = "quote"
	Link        SpanKind = "link"
	Person      SpanKind = "user"
	Group       SpanKind = "group"
	ChannelLink SpanKind = "channel"
	Broadcast   SpanKind = "broadcast" // @here, @channel, @everyone: it wakes people
	Date        SpanKind = "date"
)

// Mrkdwn parses a mrkdwn text. Verbatim texts do not make links of bare addresses. The stand-in reads <…> inside code spans too,
// so that a missing escape shows wherever it stands.
func Mrkdwn(text string, verbatim bool) []Span {
	p := mrkdwn{verbatim: verbatim}
	var out []Span
	for i, part := range strings.Split(text, "```") {
		isLast := strings.Count(text, "```") == i
		if i%2 == 1 && !isLast {
			if part != "" {
				out = append(out, Span{Kind: Preformat, Inner: p.leaves(strings.Trim(part, "\n"))})
			}
			continue
		}
		if i%2 == 1 {
			part = "```" + part // never closed
		}
		out = append(out, p.lines(part)...)
	}
	return merge(out)
}

// Plain gives the spans of a plain_text: text and, where emoji is on, emoji.
func Plain(text string, emoji bool) []Span {
	if !emoji {
		return merge([]Span{{Kind: Text, Text: text}})
	}
	return merge(emojis(text))
}

type mrkdwn struct{ verbatim bool }

// lines takes quoted lines apart from the others.
func (p mrkdwn) lines(text string) []Span {
	var out []Span
	var quote, open []string
	flush := func() {
		if len(open) > 0 {
			out = append(out, p.inline(strings.Join(open, "\n"), "")...)
		}
		if len(quote) > 0 {
			out = append(out, Span{Kind: Quote, Inner: p.inline(strings.Join(quote, "\n"), "")})
		}
		quote, open = nil, nil
	}
	for _, line := range strings.Split(text, "\n") {
		rest, quoted := strings.CutPrefix(line, "&gt;")
		if !quoted {
			rest, quoted = strings.CutPrefix(line, ">")
		}
		if quoted {
			if len(open) > 0 {
				flush()
			}
			quote = append(quote, strings.TrimPrefix(rest, " "))
			continue
		}
		if len(quote) > 0 {
			flush()
		}
		open = append(open, line)
	}
	flush()
	return out
}

var markers = map[byte]SpanKind{'*': Bold, '_': Italic, '~': Strike, '`': Code}

// inline parses one run of text; within names the markers that are open around it.
func (p mrkdwn) inline(text, within string) []Span {
	var out []Span
	from := 0
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c == '<' {
			if end := strings.IndexAny(text[i+1:], "<>\n"); end > 0 && text[i+1+end] == '>' {
				out = append(out, p.leaves(text[from:i])...)
				out = append(out, angle(text[i+1:i+1+end]))
				i += end + 1
				from = i + 1
			}
			continue
		}
		kind, isMarker := markers[c]
		if !isMarker || strings.IndexByte(within, c) >= 0 || !opens(text, i) {
			continue
		}
		end := closing(text, i)
		if end < 0 {
			continue
		}
		out = append(out, p.leaves(text[from:i])...)
		inner := text[i+1 : end]
		if kind == Code {
			out = append(out, Span{Kind: Code, Inner: p.leaves(inner)})
		} else {
			out = append(out, Span{Kind: kind, Inner: p.inline(inner, within+string(c))})
		}
		i = end
		from = end + 1
	}
	return append(out, p.leaves(text[from:])...)
}

// opens reports whether the marker at i may begin a span: after a boundary and before something visible.
func opens(text string, i int) bool {
	before, _ := utf8.DecodeLastRuneInString(text[:i])
	after, _ := utf8.DecodeRuneInString(text[i+1:])
	boundary := i == 0 || !unicode.IsLetter(before) && !unicode.IsDigit(before) && before != rune(text[i])
	return boundary && i+1 < len(text) && !unicode.IsSpace(after) && after != rune(text[i])
}

// closing finds the marker that ends the span begun at i, on the same line.
func closing(text string, i int) int {
	for j := i + 2; j < len(text) && text[j] != '\n'; j++ {
		if text[j] != text[i] {
			continue
		}
		before, _ := utf8.DecodeLastRuneInString(text[:j])
		after, _ := utf8.DecodeRuneInString(text[j+1:])
		if text[i] == '`' || !unicode.IsSpace(before) && (j+1 == len(text) || !unicode.IsLetter(after) && !unicode.IsDigit(after)) {
			return j
		}
	}
	return -1
}

var bareURL = regexp.MustCompile(`https?://[^\s<>|]+`)

// leaves is text without markers: angle sequences (in code, too), bare addresses, emoji, entities.
func (p mrkdwn) leaves(text string) []Span {
	var out []Span
	for text != "" {
		i := strings.IndexByte(text, '<')
		if i < 0 {
			return append(out, p.words(text)...)
		}
		out = append(out, p.words(text[:i])...)
		if end := strings.IndexAny(text[i+1:], "<>\n"); end > 0 && text[i+1+end] == '>' {
			out = append(out, angle(text[i+1:i+1+end]))
			text = text[i+end+2:]
			continue
		}
		out = append(out, Span{Kind: Text, Text: "<"})
		text = text[i+1:]
	}
	return out
}

// words is text without angle sequences.
func (p mrkdwn) words(text string) []Span {
	if p.verbatim {
		return emojis(unescape(text))
	}
	var out []Span
	from := 0
	for _, at := range bareURL.FindAllStringIndex(text, -1) {
		url := unescape(text[at[0]:at[1]])
		out = append(out, emojis(unescape(text[from:at[0]]))...)
		out = append(out, Span{Kind: Link, Text: url, URL: url})
		from = at[1]
	}
	return append(out, emojis(unescape(text[from:]))...)
}

// angle is what stands between < and >.
func angle(inner string) Span {
	target, label, _ := strings.Cut(inner, "|")
	shown := unescape(label)
	switch {
	case strings.HasPrefix(target, "@"):
		return Span{Kind: Person, Text: target[1:]}
	case strings.HasPrefix(target, "#"):
		return Span{Kind: ChannelLink, Text: target[1:]}
	case strings.HasPrefix(target, "!subteam^"):
		return Span{Kind: Group, Text: strings.TrimPrefix(target, "!subteam^")}
	case strings.HasPrefix(target, "!date^"):
		return Span{Kind: Date, Text: shown}
	case strings.HasPrefix(target, "!"):
		return Span{Kind: Broadcast, Text: target[1:]}
	}
	url := unescape(target)
	if shown == "" {
		shown = url
	}
	return Span{Kind: Link, Text: shown, URL: url}
}

func unescape(text string) string {
	return strings.NewReplacer("&lt;", "<", "&gt;", ">", "&amp;", "&").Replace(text)
}

// merge joins neighbouring texts and drops empty ones.
func merge(spans []Span) []Span {
	out := []Span{}
	for _, s := range spans {
		s.Inner = mergeInner(s.Inner)
		if s.Kind == Text && s.Text == "" {
			continue
		}
		if n := len(out); n > 0 && s.Kind == Text && out[n-1].Kind == Text {
			out[n-1].Text += s.Text
			continue
		}
		out = append(out, s)
	}
	return out
}

func mergeInner(spans []Span) []Span {
	if len(spans) == 0 {
		return nil
	}
	return merge(spans)
}
