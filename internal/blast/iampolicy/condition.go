package iampolicy

import (
	"math/big"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// compare judges one context value against one value of the policy.
type compare func(value string, want pattern, context Context) truth

// test is a compiled condition.
type test struct {
	key      string // lower case
	compare  compare
	values   []pattern
	negated  bool // …NotEquals and the like: none of the policy's values may match
	ifExists bool
	forAny   bool
	forAll   bool
	null     bool
}

var comparisons = map[string]struct {
	compare   compare
	negated   bool
	variables bool // AWS expands policy variables in String and Arn operators only
}{
	"stringequals":              {equalText, false, true},
	"stringnotequals":           {equalText, true, true},
	"stringequalsignorecase":    {equalFold, false, true},
	"stringnotequalsignorecase": {equalFold, true, true},
	"stringlike":                {like, false, true},
	"stringnotlike":             {like, true, true},
	"arnequals":                 {arnLike, false, true},
	"arnlike":                   {arnLike, false, true},
	"arnnotequals":              {arnLike, true, true},
	"arnnotlike":                {arnLike, true, true},
	"bool":                      {equalBool, false, false},
	"binaryequals":              {equalText, false, false},
	"ipaddress":                 {inRange, false, false},
	"notipaddress":              {inRange, true, false},
	"numericequals":             {number(func(c int) bool { return c == 0 }), false, false},
	"numericnotequals":          {number(func(c int) bool { return c == 0 }), true, false},
	"numericlessthan":           {number(func(c int) bool { return c < 0 }), false, false},
	"numericlessthanequals":     {number(func(c int) bool { return c <= 0 }), false, false},
	"numericgreaterthan":        {number(func(c int) bool { return c > 0 }), false, false},
	"numericgreaterthanequals":  {number(func(c int) bool { return c >= 0 }), false, false},
	"dateequals":                {date(func(c int) bool { return c == 0 }), false, false},
	"datenotequals":             {date(func(c int) bool { return c == 0 }), true, false},
	"datelessthan":              {date(func(c int) bool { return c < 0 }), false, false},
	"datelessthanequals":        {date(func(c int) bool { return c <= 0 }), false, false},
	"dategreaterthan":           {date(func(c int) bool { return c > 0 }), false, false},
	"dategreaterthanequals":     {date(func(c int) bool { return c >= 0 }), false, false},
}

func newTest(c Condition, variables bool) test {
	name := strings.ToLower(c.Operator)
	t := test{key: strings.ToLower(c.Key)}
	if rest, ok := strings.CutPrefix(name, "foranyvalue:"); ok {
		name, t.forAny = rest, true
	} else if rest, ok := strings.CutPrefix(name, "forallvalues:"); ok {
		name, t.forAll = rest, true
	}
	name, t.ifExists = strings.CutSuffix(name, "ifexists")
	t.null = name == "null" && !t.ifExists && !t.forAny && !t.forAll
	comparison := comparisons[name]
	t.compare, t.negated = comparison.compare, comparison.negated
	for _, value := range c.Values {
		t.values = append(t.values, newPattern(value, variables && comparison.variables))
	}
	return t
}

// known reports whether the operator can be evaluated at all.
func (t test) known() bool { return t.null || t.compare != nil }

func (t test) eval(context Context) truth {
	value, found := context.lookup(t.key)
	switch {
	case !t.known() || value.Unknown:
		return unknown
	case t.null:
		return t.evalNull(found && len(value.List) > 0)
	case !found || len(value.List) == 0:
		return t.evalMissing()
	case t.forAll:
		result := yes
		for _, v := range value.List {
			result = result.and(t.one(v, context))
		}
		return result
	case t.forAny || !t.negated:
		result := no
		for _, v := range value.List {
			result = result.or(t.one(v, context))
		}
		return result
	}
	// A negated operator on several values without a set prefix: none of them may match.
	result := yes
	for _, v := range value.List {
		result = result.and(t.one(v, context))
	}
	return result
}

func (t test) evalNull(present bool) truth {
	result := no
	for _, want := range t.values {
		switch strings.ToLower(want.source) {
		case "true":
			result = result.or(truthOf(!present))
		case "false":
			result = result.or(truthOf(present))
		default:
			result = result.or(unknown)
		}
	}
	return result
}

// evalMissing is AWS's rule for an absent key: a plain operator fails, a negated one holds, IfExists and ForAllValues hold,
// ForAnyValue fails.
func (t test) evalMissing() truth {
	return truthOf(t.ifExists || t.forAll || t.negated && !t.forAny)
}

// one judges one value of the context against all values of the policy.
func (t test) one(value string, context Context) truth {
	result := no
	for _, want := range t.values {
		if t.negated && want.unresolved(context) {
			result = result.or(unknown)
			continue
		}
		result = result.or(t.compare(value, want, context))
	}
	if t.negated {
		return result.not()
	}
	return result
}

// plain is the policy's value with variables expanded and wildcards as the letters they are.
func plain(want pattern, context Context) (string, truth) {
	if want.parts == nil && want.runes != nil && !strings.Contains(want.source, "${") {
		return want.source, yes
	}
	runes, ok := want.expand(context)
	runes = slices.Clone(runes) // a pattern is shared
	for i, r := range runes {
		switch r {
		case anyRun:
			runes[i] = '*'
		case anyRune:
			runes[i] = '?'
		}
	}
	return string(runes), ok
}

func equalText(value string, want pattern, context Context) truth {
	s, ok := plain(want, context)
	return ok.and(truthOf(s == value))
}

func equalFold(value string, want pattern, context Context) truth {
	s, ok := plain(want, context)
	return ok.and(truthOf(strings.EqualFold(s, value)))
}

func like(value string, want pattern, context Context) truth { return want.match(value, context) }

// arnLike matches each of the six parts of an ARN by itself: a wildcard does not run over a colon, but for the last part.
func arnLike(value string, want pattern, context Context) truth {
	runes, ok := want.expand(context)
	if ok != yes {
		return ok
	}
	if len(runes) == 1 && runes[0] == anyRun {
		return yes
	}
	wantParts := splitRunes(runes, 6)
	parts := strings.SplitN(value, ":", 6)
	if len(wantParts) != 6 {
		return unknown // not an ARN: AWS does not say what it does
	}
	if len(parts) != 6 {
		return no
	}
	for i, part := range parts {
		if !glob(wantParts[i], part) {
			return no
		}
	}
	return yes
}

func splitRunes(runes []rune, n int) [][]rune {
	var parts [][]rune
	start := 0
	for i, r := range runes {
		if r == ':' && len(parts) < n-1 {
			parts = append(parts, runes[start:i])
			start = i + 1
		}
	}
	return append(parts, runes[start:])
}

func equalBool(value string, want pattern, _ Context) truth {
	w := strings.ToLower(want.source)
	if w != "true" && w != "false" {
		return unknown
	}
	return truthOf(strings.ToLower(value) == w)
}

func inRange(value string, want pattern, _ Context) truth {
	prefix, err := netip.ParsePrefix(want.source)
	if err != nil {
		address, err := netip.ParseAddr(want.source)
		if err != nil {
			return unknown
		}
		prefix = netip.PrefixFrom(address, address.BitLen())
	}
	address, err := netip.ParseAddr(value)
	return truthOf(err == nil && prefix.Contains(address.Unmap()))
}

// maxNumber bounds the length of a number, so that "1e999999999" costs nothing.
const maxNumber = 64

func parseNumber(s string) (*big.Rat, bool) {
	if len(s) > maxNumber || strings.ContainsAny(s, "eE/_xXpP") {
		return nil, false
	}
	return new(big.Rat).SetString(s)
}

func number(holds func(int) bool) compare {
	return func(value string, want pattern, _ Context) truth {
		w, ok := parseNumber(want.source)
		if !ok {
			return unknown
		}
		v, ok := parseNumber(value)
		return truthOf(ok && holds(v.Cmp(w)))
	}
}

var dateLayouts = []string{
	time.RFC3339Nano, "2006-01-02T15:04Z07:00", "2006-01-02T15Z07:00", "2006-01-02T15:04:05", "2006-01-02",
}

// parseDate reads the ISO 8601 forms that AWS documents, and seconds since 1970.
func parseDate(s string) (time.Time, bool) {
	for _, layout := range dateLayouts {
		if t, err := time.Parse(layout, s); err == nil {
			return t, true
		}
	}
	if seconds, err := strconv.ParseInt(s, 10, 64); err == nil {
		return time.Unix(seconds, 0), true
	}
	return time.Time{}, false
}

func date(holds func(int) bool) compare {
	return func(value string, want pattern, _ Context) truth {
		w, ok := parseDate(want.source)
		if !ok {
			return unknown
		}
		v, ok := parseDate(value)
		return truthOf(ok && holds(v.Compare(w)))
	}
}
