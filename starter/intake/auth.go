package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"
	"time"

	"tourniquet.dev/tourniquet/starter/intake/adapter"
)

// token is a bearer token; only its digest is kept in memory. The zero token is borne by nobody.
type token struct {
	digest [sha256.Size]byte
	set    bool
}

func newToken(secret []byte) token { return token{sha256.Sum256(secret), len(secret) > 0} }

func (t token) bears(r *http.Request) bool {
	given, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	sum := sha256.Sum256([]byte(given))
	return subtle.ConstantTimeCompare(sum[:], t.digest[:]) == 1 && ok && t.set
}

// Headers of a signed event. The signature is "v1=" and the hex HMAC-SHA256 of "v1:<timestamp>:<source>:<body>".
const (
	headerTimestamp = "Tourniquet-Timestamp"
	headerSignature = "Tourniquet-Signature"
)

// signatureAge is how far a signed request's time may be from ours. Within it a repeated event is known by its id.
const signatureAge = 5 * time.Minute

// source is a third party that may send events. It has a bearer token, or a key for HMAC, or both: then both are asked for.
type source struct {
	adapter.ThirdParty
	bearer token
	key    []byte
}

func (s source) authentic(r *http.Request, body []byte, now time.Time) bool {
	switch {
	case s.bearer.set && !s.bearer.bears(r):
		return false
	case len(s.key) > 0:
		return s.signed(r, body, now)
	}
	return s.bearer.set
}

func (s source) signed(r *http.Request, body []byte, now time.Time) bool {
	stamp := r.Header.Get(headerTimestamp)
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil || now.Sub(time.Unix(seconds, 0)).Abs() > signatureAge {
		return false
	}
	given, ok := strings.CutPrefix(r.Header.Get(headerSignature), "v1=")
	sig, err := hex.DecodeString(given)
	return ok && err == nil && hmac.Equal(sig, sign(s.key, stamp, s.Name, body))
}

func sign(key []byte, stamp, name string, body []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte("v1:" + stamp + ":" + name + ":"))
	mac.Write(body)
	return mac.Sum(nil)
}
