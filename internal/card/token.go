package card

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/canonical"
	"tourniquet.dev/tourniquet/internal/incident"
	"tourniquet.dev/tourniquet/internal/plan"
)

// MaxToken is how long a sealed token may be: a button's value takes no more.
const MaxToken = 2000

// Errors of tokens.
var (
	// ErrToken says that a token was not sealed with this key, or holds nothing that Seal would have sealed.
	ErrToken = errors.New("not a token of ours")
	// ErrTokenExpired says that a token's time is over.
	ErrTokenExpired = errors.New("token expired")
)

// TokenKind says where a token stands, so that one from a card is of no use in a modal.
type TokenKind string

const (
	// OnOffer is on the card's buttons that decide on the offered plans.
	OnOffer TokenKind = "offer"
	// OnHold is on the card's buttons that end or extend a plan that is on.
	OnHold TokenKind = "hold"
	// InModal is in a modal: what its submission decides.
	InModal TokenKind = "modal"
)

// Offer is one plan that a token lets people decide on.
type Offer struct {
	Option string `json:"o"`
	Plan   string `json:"p"` // digest
}

// Token is what a button or modal carries: it says which incident and plans are meant, so that nobody can mix the parts
// of two cards. It is sealed, and bound to the message it stands on. It grants nothing: who clicks must still be allowed.
type Token struct {
	Kind     TokenKind `json:"k"`
	Incident string    `json:"i"`
	// Plans are the plans on offer, the recommended one first; of an OnHold token, the one that is on.
	Plans  []Offer   `json:"p"`
	Nonce  string    `json:"n"` // 128 random bits in hexadecimal
	Expiry time.Time `json:"x"`
	// Channel and TS are the message that the token stands on.
	Channel string `json:"c"`
	TS      string `json:"t"`
	// Decision, Plan, Shown and User are in a modal's token only: what its submission decides, on which plan, what was
	// shown, and who opened it.
	Decision authz.DecisionKind `json:"d,omitempty"`
	Plan     string             `json:"g,omitempty"`
	Shown    string             `json:"s,omitempty"`
	User     string             `json:"u,omitempty"`
}

var (
	nonceForm = regexp.MustCompile(`^[0-9a-f]{32}$`)
	// tokenAAD binds a sealed token to this use of the key.
	tokenAAD = []byte("tourniquet.dev/button v1")
)

const tokenPrefix = "t1."

// Validate reports what a token must not be.
func (t Token) Validate() error {
	switch {
	case !incident.ValidID(t.Incident), !nonceForm.MatchString(t.Nonce), t.Expiry.IsZero():
		return fmt.Errorf("%w: incident, nonce and expiry are needed", ErrToken)
	case len(t.Plans) == 0 || len(t.Plans) > MaxOptions:
		return fmt.Errorf("%w: %d plans, want 1 to %d", ErrToken, len(t.Plans), MaxOptions)
	case slices.ContainsFunc(t.Plans, func(o Offer) bool { return !plan.ValidDigest(o.Plan) || o.Option == "" }):
		return fmt.Errorf("%w: a plan without option or digest", ErrToken)
	case t.Channel == "" || t.TS == "":
		return fmt.Errorf("%w: not bound to a message", ErrToken)
	}
	switch t.Kind {
	case OnOffer, OnHold:
		if t.Decision != "" || t.Plan != "" || t.Shown != "" || t.User != "" {
			return fmt.Errorf("%w: a button decides nothing yet", ErrToken)
		}
		return nil
	case InModal:
		if !t.Decision.Valid() || !t.Offers(t.Plan) || !plan.ValidDigest(t.Shown) || t.User == "" {
			return fmt.Errorf("%w: a modal decides on one plan, shown to one user", ErrToken)
		}
		return nil
	}
	return fmt.Errorf("%w: kind %.20q", ErrToken, t.Kind)
}

// Offers reports whether the token lets people decide on the plan.
func (t Token) Offers(digest string) bool {
	return slices.ContainsFunc(t.Plans, func(o Offer) bool { return o.Plan == digest })
}

// Seal encrypts and authenticates a token (AES-256-GCM). random gives the nonce: crypto/rand's Reader.
func Seal(key []byte, t Token, random io.Reader) (string, error) {
	if err := t.Validate(); err != nil {
		return "", fmt.Errorf("seal token: %w", err)
	}
	aead, err := newAEAD(key)
	if err != nil {
		return "", fmt.Errorf("seal token: %w", err)
	}
	raw, err := canonical.Marshal(t)
	if err != nil {
		return "", fmt.Errorf("seal token: %w", err)
	}
	nonce := make([]byte, aead.NonceSize())
	if _, err := io.ReadFull(random, nonce); err != nil {
		return "", fmt.Errorf("seal token: %w", err)
	}
	sealed := tokenPrefix + base64.RawURLEncoding.EncodeToString(aead.Seal(nonce, nonce, raw, tokenAAD))
	if len(sealed) > MaxToken {
		return "", fmt.Errorf("seal token: %d characters, at most %d", len(sealed), MaxToken)
	}
	return sealed, nil
}

// Open authenticates and decrypts a token and checks its expiry. A token that is merely too old comes back with
// ErrTokenExpired, so that its card can be named.
func Open(key []byte, sealed string, now time.Time) (Token, error) {
	var t Token
	body, ok := strings.CutPrefix(sealed, tokenPrefix)
	if !ok || len(sealed) > MaxToken || strings.ContainsAny(body, "\r\n") { // which the decoder would skip
		return t, fmt.Errorf("%w: form", ErrToken)
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(body)
	if err != nil {
		return t, fmt.Errorf("%w: form", ErrToken)
	}
	aead, err := newAEAD(key)
	if err != nil {
		return t, fmt.Errorf("open token: %w", err)
	}
	if len(raw) < aead.NonceSize() {
		return t, fmt.Errorf("%w: form", ErrToken)
	}
	clear, err := aead.Open(nil, raw[:aead.NonceSize()], raw[aead.NonceSize():], tokenAAD)
	if err != nil {
		return t, fmt.Errorf("%w: seal", ErrToken)
	}
	if err := canonical.Unmarshal(clear, &t, MaxToken); err != nil {
		return Token{}, fmt.Errorf("%w: content", ErrToken)
	}
	if err := t.Validate(); err != nil {
		return Token{}, err
	}
	if !now.Before(t.Expiry) {
		return t, ErrTokenExpired
	}
	return t, nil
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	if len(key) != 32 {
		return nil, fmt.Errorf("token key has %d bytes, want 32", len(key))
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}
