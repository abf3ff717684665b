package iampolicy

import (
	"strings"
	"unicode/utf8"
)

// truth is Kleene's three-valued logic; unknown is the zero value, so that nothing forgotten counts as decided.
type truth int8

const (
	unknown truth = iota
	no
	yes
)

func truthOf(b bool) truth {
	if b {
		return yes
	}
	return no
}

func (t truth) not() truth {
	switch t {
	case yes:
		return no
	case no:
		return yes
	}
	return unknown
}

func (t truth) and(u truth) truth {
	switch {
	case t == no || u == no:
		return no
	case t == yes && u == yes:
		return yes
	}
	return unknown
}

func (t truth) or(u truth) truth { return t.not().and(u.not()).not() }

// Marks of a compiled pattern. They lie above the last Unicode code point, so no text contains them.
const (
	anyRun  = utf8.MaxRune + 1 // *
	anyRune = utf8.MaxRune + 2 // ?
)

// pattern is a text with the wildcards * and ? and, in a document of the current version, policy variables.
type pattern struct {
	source string
	runes  []rune    // for a pattern without variables
	parts  []varPart // for one with
}

type varPart struct {
	runes    []rune
	variable string // lower case; "" for a literal part
	fallback string // ${key, 'default'}
	hasElse  bool
}

func newPattern(source string, variables bool) pattern {
	if !variables || !strings.Contains(source, "${") {
		return pattern{source: source, runes: globRunes(source)}
	}
	p := pattern{source: source}
	var literal []rune
	rest := source
	for rest != "" {
		start := strings.Index(rest, "${")
		end := -1
		if start >= 0 {
			end = strings.IndexByte(rest[start:], '}')
		}
		if end < 0 {
			literal = append(literal, globRunes(rest)...)
			break
		}
		literal = append(literal, globRunes(rest[:start])...)
		name := rest[start+2 : start+end]
		rest = rest[start+end+1:]
		switch name {
		case "*", "?", "$": // the documented escapes
			literal = append(literal, []rune(name)...)
			continue
		}
		p.parts = append(p.parts, varPart{runes: literal}, newVariable(name))
		literal = nil
	}
	if p.parts == nil {
		p.runes = literal
		return p
	}
	p.parts = append(p.parts, varPart{runes: literal})
	return p
}

func newVariable(name string) varPart {
	key, fallback, found := strings.Cut(name, ",")
	part := varPart{variable: strings.ToLower(strings.TrimSpace(key))}
	fallback = strings.TrimSpace(fallback)
	if found && len(fallback) >= 2 && fallback[0] == '\'' && fallback[len(fallback)-1] == '\'' {
		part.fallback, part.hasElse = fallback[1:len(fallback)-1], true
	}
	return part
}

func globRunes(s string) []rune {
	runes := []rune(s)
	for i, r := range runes {
		switch r {
		case '*':
			runes[i] = anyRun
		case '?':
			runes[i] = anyRune
		}
	}
	return runes
}

// expand replaces variables by their values, whose own wildcards stay literal. It is unknown where a value is unknown or has
// several values, and no where a variable without a default is absent: then nothing matches.
func (p pattern) expand(context Context) ([]rune, truth) {
	if p.parts == nil {
		return p.runes, yes
	}
	var out []rune
	for _, part := range p.parts {
		if part.variable == "" {
			out = append(out, part.runes...)
			continue
		}
		value, found := context.lookup(part.variable)
		switch {
		case value.Unknown || len(value.List) > 1:
			return nil, unknown
		case found && len(value.List) == 1:
			out = append(out, []rune(value.List[0])...)
		case part.hasElse:
			out = append(out, []rune(part.fallback)...)
		default:
			return nil, no
		}
	}
	return out, yes
}

// unresolved reports whether a variable of the pattern is absent. AWS does not say what a negated element does then.
func (p pattern) unresolved(context Context) bool {
	_, ok := p.expand(context)
	return p.parts != nil && ok == no
}

func (p pattern) match(s string, context Context) truth {
	if p.parts == nil { // without a copy of s: this is the way of nearly every call
		return truthOf(glob(p.runes, s))
	}
	runes, ok := p.expand(context)
	if ok != yes {
		return ok
	}
	return truthOf(glob(runes, s))
}

// glob matches in at most len(pattern) x len(s) steps and without recursion.
func glob(pattern []rune, s string) bool {
	at, star, retry := 0, -1, 0
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case at < len(pattern) && pattern[at] == anyRun:
			star, retry = at, i
			at++
			continue
		case at < len(pattern) && (pattern[at] == anyRune || pattern[at] == r):
			at++
			i += size
			continue
		case star < 0:
			return false
		}
		_, size = utf8.DecodeRuneInString(s[retry:])
		retry += size
		at, i = star+1, retry
	}
	for at < len(pattern) && pattern[at] == anyRun {
		at++
	}
	return at == len(pattern)
}
