package detection

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// secretForms finds values that must never be stored: AWS secret keys after a telling name, JWTs, PEM keys, GitHub
// and Slack tokens, passwords in arguments. Access key ids are not secret and stay.
var secretForms = []*regexp.Regexp{
	regexp.MustCompile(`(?i)(aws_secret_access_key|aws_session_token|secret[_-]?key|password|passwd|token|authorization)"?\s*[=:]\s*"?(bearer\s+)?[^\s"']{6,}`),
	regexp.MustCompile(`eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*`),
	regexp.MustCompile(`-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(-----END [A-Z ]*PRIVATE KEY-----|$)`),
	regexp.MustCompile(`gh[pousr]_[A-Za-z0-9]{20,}`),
	regexp.MustCompile(`xox[abprs]-[A-Za-z0-9-]{10,}`),
}

// secretFlag is an argument whose value follows as the next one.
var secretFlag = regexp.MustCompile(`(?i)^--?[a-z-]*(password|passwd|token|secret|secret-key)$`)

// Redact bounds and cleans every text of the detection in place: secrets become <redacted>, control and
// bidirectional characters become U+FFFD, long values are cut. Call it before a detection is stored or signed.
func (d *Detection) Redact() {
	d.Title = Clean(d.Title, 200)
	for i := range d.Processes {
		p := &d.Processes[i]
		p.Comm, p.Exe = Clean(p.Comm, 64), Clean(p.Exe, 512)
		if len(p.Args) > 24 {
			p.Args = append(p.Args[:24:24], "…")
		}
		for j := range p.Args {
			if j > 0 && secretFlag.MatchString(p.Args[j-1]) {
				p.Args[j] = "<redacted>"
			}
			p.Args[j] = Clean(p.Args[j], 512)
		}
	}
	d.Evidence, d.Unmapped = cleanMap(d.Evidence), cleanMap(d.Unmapped)
}

// fortyLong has the length and letters of an AWS secret key; a path may have them too.
var fortyLong = regexp.MustCompile(`[A-Za-z0-9/+]{40,}`)

// looksRandom tells a secret from a path or a name: it mixes capitals, small letters and digits throughout.
func looksRandom(word string) bool {
	var upper, lower, digit, changes int
	last := 0
	for _, r := range word {
		kind := 4
		switch {
		case r >= 'A' && r <= 'Z':
			upper, kind = upper+1, 1
		case r >= 'a' && r <= 'z':
			lower, kind = lower+1, 2
		case r >= '0' && r <= '9':
			digit, kind = digit+1, 3
		}
		if kind != last {
			changes++
		}
		last = kind
	}
	return upper >= 5 && lower >= 5 && digit >= 1 && changes >= len(word)/3
}

func cleanMap(m map[string]string) map[string]string {
	if m == nil {
		return nil
	}
	out := make(map[string]string, len(m))
	for k, v := range m {
		out[Clean(k, 64)] = Clean(v, 1024)
	}
	return out
}

// Clean returns s without secrets, control and direction characters, cut to limit bytes at a character boundary.
func Clean(s string, limit int) string {
	for _, re := range secretForms {
		s = re.ReplaceAllString(s, "<redacted>")
	}
	s = fortyLong.ReplaceAllStringFunc(s, func(word string) string {
		if looksRandom(word) {
			return "<redacted>"
		}
		return word
	})
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029' {
			return '\uFFFD'
		}
		return r
	}, s)
	if len(s) <= limit {
		return s
	}
	cut := limit - len("…")
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}
