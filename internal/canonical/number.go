package canonical

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

// maxNumber is 2^53: up to it a float64 holds every whole number.
const maxNumber = 1 << 53

// number reads a JSON number and keeps it only if its canonical spelling has exactly the same decimal value.
func (p *parser) number() (node, error) {
	start := p.at
	if p.peek() == '-' {
		p.at++
	}
	lead := p.peek()
	if n := p.digits(); n == 0 || n > 1 && lead == '0' {
		return node{}, errors.New("malformed number")
	}
	if p.peek() == '.' {
		p.at++
		if p.digits() == 0 {
			return node{}, errors.New("malformed number")
		}
	}
	if c := p.peek(); c == 'e' || c == 'E' {
		p.at++
		if c := p.peek(); c == '+' || c == '-' {
			p.at++
		}
		if p.digits() == 0 {
			return node{}, errors.New("malformed number")
		}
	}
	spelt, err := canonicalNumber(string(p.data[start:p.at]))
	return node{kind: literal, text: spelt}, err
}

// digits skips decimal digits and returns how many there were.
func (p *parser) digits() int {
	start := p.at
	for c := p.peek(); c >= '0' && c <= '9'; c = p.peek() {
		p.at++
	}
	return p.at - start
}

// canonicalNumber spells a JSON number as ECMAScript does (RFC 8785 §3.2.2.3).
func canonicalNumber(s string) (string, error) {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.Abs(f) > maxNumber {
		return "", errors.New("number beyond 2^53")
	}
	spelt := "0" // also for -0, as ECMAScript prints it
	if f != 0 {
		format := byte('f')
		if math.Abs(f) < 1e-6 {
			format = 'e'
		}
		spelt = strings.Replace(strconv.FormatFloat(f, format, -1, 64), "e-0", "e-", 1)
	}
	if decimalOf(s) != decimalOf(spelt) {
		return "", errors.New("number with more digits than a float64 holds")
	}
	return spelt, nil
}

// A decimal is a number as ±0.digits × 10^exponent without zeros at either end, so that equal values compare equal.
type decimal struct {
	negative bool
	digits   string
	exponent int
}

// decimalOf reads a well-formed JSON number. An exponent that does not fit an int cannot be one that ParseFloat took, but
// for zero, whose exponent does not count.
func decimalOf(s string) decimal {
	s, negative := strings.CutPrefix(s, "-")
	mantissa, power := s, 0
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		mantissa = s[:i]
		power, _ = strconv.Atoi(s[i+1:])
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	digits := strings.TrimLeft(whole+fraction, "0")
	exponent := power + len(digits) - len(fraction)
	digits = strings.TrimRight(digits, "0")
	if digits == "" {
		return decimal{}
	}
	return decimal{negative, digits, exponent}
}
