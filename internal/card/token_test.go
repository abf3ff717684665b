package card_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/card"
)

func token() card.Token {
	return card.Token{Kind: card.OnOffer, Incident: "iabcdefghijkl", Plans: []card.Offer{{Option: "everything", Plan: digestA}, {Option: "less", Plan: digestB}},
		Nonce: "0123456789abcdef0123456789abcdef", Expiry: now.Add(time.Hour), Channel: "C1", TS: "1.2"}
}

func TestTokenComesBackAsItWas(t *testing.T) {
	key := bytes.Repeat([]byte{7}, 32)
	modalToken := token()
	modalToken.Kind, modalToken.Decision, modalToken.Plan, modalToken.Shown, modalToken.User = card.InModal, authz.Approve, digestB, digestA, "U1"
	full := token()
	for len(full.Plans) < card.MaxOptions {
		full.Plans = append(full.Plans, card.Offer{Option: "abcdefghijklmnopqrstuvwxyzabcdef", Plan: digestB})
	}
	for name, want := range map[string]card.Token{"of a button": token(), "of a modal": modalToken, "with as many plans as there may be": full} {
		t.Run(name, func(t *testing.T) {
			sealed, err := card.Seal(key, want, rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			got, err := card.Open(key, sealed, now)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			if _, err := card.Open(key, sealed, now.Add(time.Hour)); !errors.Is(err, card.ErrTokenExpired) {
				t.Errorf("after its time: %v", err)
			}
			if _, err := card.Open(bytes.Repeat([]byte{8}, 32), sealed, now); !errors.Is(err, card.ErrToken) {
				t.Errorf("with another key: %v", err)
			}
			if again, _ := card.Seal(key, want, rand.Reader); again == sealed {
				t.Error("the same token was sealed twice alike")
			}
		})
	}
}

func TestOneFlippedBitOpensNothing(t *testing.T) {
	key := bytes.Repeat([]byte{7}, 32)
	sealed, err := card.Seal(key, token(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(sealed, "t1."))
	for i := range len(raw) * 8 {
		raw[i/8] ^= 1 << (i % 8)
		if _, err := card.Open(key, "t1."+base64.RawURLEncoding.EncodeToString(raw), now); !errors.Is(err, card.ErrToken) {
			t.Fatalf("bit %d: %v", i, err)
		}
		raw[i/8] ^= 1 << (i % 8)
	}
	for i := range len(sealed) {
		for _, bad := range []string{sealed[:i], sealed[:i] + "A" + sealed[i:], sealed[:i] + "\n" + sealed[i:]} {
			if _, err := card.Open(key, bad, now); err == nil {
				t.Fatalf("opened %q", bad)
			}
		}
	}
}

func TestSealRefuses(t *testing.T) {
	key := bytes.Repeat([]byte{7}, 32)
	for name, change := range map[string]func(*card.Token){
		"no incident":           func(t *card.Token) { t.Incident = "x" },
		"no plans":              func(t *card.Token) { t.Plans = nil },
		"a plan without digest": func(t *card.Token) { t.Plans[0].Plan = "x" },
		"a short nonce":         func(t *card.Token) { t.Nonce = "00" },
		"no expiry":             func(t *card.Token) { t.Expiry = time.Time{} },
		"no message":            func(t *card.Token) { t.TS = "" },
		"an unknown kind":       func(t *card.Token) { t.Kind = "all" },
		"a deciding button":     func(t *card.Token) { t.Decision = authz.Approve },
		"a modal for nobody": func(t *card.Token) {
			t.Kind, t.Decision, t.Plan, t.Shown = card.InModal, authz.Approve, digestA, digestA
		},
		"a modal on other plans": func(t *card.Token) {
			t.Kind, t.Decision, t.Plan, t.Shown, t.User = card.InModal, authz.Approve, "sha256:"+strings.Repeat("c", 64), digestA, "U"
		},
	} {
		t.Run(name, func(t *testing.T) {
			tk := token()
			change(&tk)
			if _, err := card.Seal(key, tk, rand.Reader); !errors.Is(err, card.ErrToken) {
				t.Errorf("got %v", err)
			}
		})
	}
	if _, err := card.Seal(key[:16], token(), rand.Reader); err == nil {
		t.Error("sealed with half a key")
	}
}

func FuzzOpen(f *testing.F) {
	key := bytes.Repeat([]byte{7}, 32)
	sealed, err := card.Seal(key, token(), strings.NewReader("012345678901")) // alike in each fuzzing process
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed)
	f.Add("t1.")
	f.Fuzz(func(t *testing.T, s string) {
		if got, err := card.Open(key, s, now); err == nil && (s != sealed || !cmp.Equal(got, token())) {
			t.Errorf("opened %q", s)
		}
	})
}
