package telemetry

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"regexp"
)

// Redacted stands where a secret was.
const Redacted = "<redacted>"

// A Secret is text that no formatting, logging or encoding shows. Reveal is the only way to it, and easy to search for.
type Secret struct{ text string }

// NewSecret hides text.
func NewSecret(text string) Secret { return Secret{text} }

// Reveal returns the text, for handing it to what needs it.
func (s Secret) Reveal() string { return s.text }

// String returns Redacted.
func (s Secret) String() string { return Redacted }

// Format prints Redacted for every verb, also the ones that look inside.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, Redacted) }

// LogValue logs Redacted.
func (s Secret) LogValue() slog.Value { return slog.StringValue(Redacted) }

// MarshalText encodes Redacted, in JSON and YAML too.
func (s Secret) MarshalText() ([]byte, error) { return []byte(Redacted), nil }

// patterns find secrets by their form, in plain text as in JSON strings, where the letter of an escape such as \n may stand
// right before them: so no pattern asks for a word boundary. Of an access key id its end stays, so that a
// responder can tell two apart; the id is no secret by itself.
var patterns = []struct {
	find    *regexp.Regexp
	replace []byte
}{
	{regexp.MustCompile(`-----BEGIN [A-Z0-9 ]{1,40}-----(?:[A-Za-z0-9+/=:,.\s]|\\+[nrt]|-----END [A-Z0-9 ]{1,40}-----|-)*`), []byte("<redacted PEM>")},
	{regexp.MustCompile(`eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)*`), []byte("<redacted JWT>")},
	{regexp.MustCompile(`(AKIA|ASIA)[A-Z2-7]{12}([A-Z2-7]{4})`), []byte("${1}************${2}")},
	{regexp.MustCompile(`(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,})`), []byte(Redacted)},
	{regexp.MustCompile(`(?:xox[a-z]|xapp)-[A-Za-z0-9-]{10,}`), []byte(Redacted)},
	{regexp.MustCompile(`(?i)(bearer|basic) +[A-Za-z0-9._~+/=-]{8,}`), []byte("${1} " + Redacted)},
	{regexp.MustCompile(`(?i)(X-Amz-Security-Token|X-Amz-Signature|Signature)(=|%3D)[A-Za-z0-9%/+=._-]{16,}`), []byte("${1}${2}" + Redacted)},
}

// base64Run finds what may be an AWS secret access key (exactly 40 characters) or a session token (far more), behind the
// JSON escape that may precede it.
var base64Run = regexp.MustCompile(`\\+(?:[bfnrt]|u[0-9a-fA-F]{4})[A-Za-z0-9+/=]*|[A-Za-z0-9+/=]{40,}`)

var escape = regexp.MustCompile(`^\\+(?:[bfnrt]|u[0-9a-fA-F]{4})`)

const (
	secretKeyLength = 40
	tokenLength     = 100
)

// Redact takes out of s what looks like a secret: AWS keys and session tokens, JWTs, PEM blocks, bearer tokens, GitHub and
// Slack tokens. It is a net under the rule that secrets are never logged, not a reason to log them.
func Redact(s string) string { return string(redact([]byte(s))) }

func redact(text []byte) []byte {
	for _, p := range patterns {
		text = p.find.ReplaceAll(text, p.replace)
	}
	return base64Run.ReplaceAllFunc(text, func(match []byte) []byte {
		run := match[len(escape.Find(match)):]
		if (len(run) == secretKeyLength || len(run) >= tokenLength) && looksRandom(run) {
			return append(match[:len(match)-len(run):len(match)-len(run)], Redacted...)
		}
		return match
	})
}

// looksRandom tells base64 of random bytes from hex digests and from words.
func looksRandom(run []byte) bool {
	if _, err := hex.DecodeString(string(run)); err == nil {
		return false
	}
	return bytes.ContainsAny(run, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") && bytes.ContainsAny(run, "abcdefghijklmnopqrstuvwxyz") &&
		bytes.ContainsAny(run, "0123456789")
}
