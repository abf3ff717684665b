package card

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/internal/plan"
)

// nothing stands where a text is empty: Slack takes no empty leaf.
const nothing = "–"

// clean makes untrusted text fit to be shown: no secrets, no control, direction or invisible characters, at most limit
// bytes, never empty.
func clean(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if r == ' ' || (unicode.IsPrint(r) && !unicode.Is(unicode.Variation_Selector, r)) {
			return r
		}
		return '\uFFFD'
	}, detection.Clean(s, limit))
	if s = strings.TrimSpace(s); s == "" {
		return nothing
	}
	return s
}

// exact shows a name that people decide on: as it is when it is plain printable ASCII with single blanks inside, else
// quoted with every other character spelt out, so that two different names never look the same.
func exact(s string) string {
	strange := strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' || r == '"' })
	if strange || s == "" || strings.TrimSpace(s) != s || strings.Contains(s, "  ") {
		return strconv.QuoteToASCII(s)
	}
	return s
}

// escape is for the fallback text, the only one that Slack reads as markup.
func escape(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(s)
}

// short is the part of a digest that people compare.
func short(digest string) string {
	if !plan.ValidDigest(digest) {
		return nothing
	}
	return strings.TrimPrefix(digest, "sha256:")[:12]
}

func clock(t time.Time) string {
	if t.IsZero() {
		return nothing
	}
	return t.UTC().Format("15:04:05 UTC")
}

func day(t time.Time) string {
	if t.IsZero() {
		return nothing
	}
	return t.UTC().Format("2006-01-02 15:04 UTC")
}

// money writes minor units as an amount: whole units from 100 up, two digits below.
func money(currency string, minor int64) string {
	sign := ""
	if minor < 0 {
		sign, minor = "-", -minor
	}
	units := strconv.FormatInt(minor/100, 10)
	for i := len(units) - 3; i > 0; i -= 3 {
		units = units[:i] + "," + units[i:]
	}
	if minor < 100*100 {
		units += fmt.Sprintf(".%02d", minor%100)
	}
	return clean(currency, 8) + " " + sign + units
}

func duration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
