// Package adapter turns what detectors send into detections: bytes in, a Detection or a typed Refusal out. In our own
// format whatever is unknown is refused; in a foreign one it is kept aside. The package signs nothing, keeps nothing and
// never reaches out (its queue does); intake's server calls it and answers with its codes.
package adapter

import (
	"errors"
	"strings"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/canonical"
)

// Code is a stable name of a reason for refusal. Codes are part of the protocol: they are added to, never changed.
type Code string

// The codes.
const (
	TooLarge     Code = "too-large"     // body, item or detection above its limit
	TooDeep      Code = "too-deep"      // objects and arrays nest too deep
	Malformed    Code = "malformed"     // not JSON, not UTF-8, a key twice, an unknown key or a wrong type in our own format
	BadSignature Code = "bad-signature" // no valid signature of a key that may sign this
	WrongType    Code = "wrong-type"    // signed, but as something else
	Invalid      Code = "invalid"       // a field is not what it must be
	TooOld       Code = "too-old"       // happened longer ago than intake takes
	InFuture     Code = "in-future"     // happens later than clocks may differ
	Unsupported  Code = "unsupported"   // a media type or event type that no adapter knows
	UnknownRule  Code = "unknown-rule"  // a detector's rule for which no technique is known or configured
)

// Refusal says why something was not taken. It is an error.
type Refusal struct {
	Code  Code
	Field string // path of the field, where there is one
	Err   error
}

func (r *Refusal) Error() string {
	if r.Field != "" {
		return string(r.Code) + ": " + r.Field + ": " + r.Err.Error()
	}
	return string(r.Code) + ": " + r.Err.Error()
}

func (r *Refusal) Unwrap() error { return r.Err }

func refuse(c Code, field, why string) *Refusal { return &Refusal{c, field, errors.New(why)} }

// asRefusal names the errors of the domain's decoders and openers.
func asRefusal(err error) *Refusal {
	var already *Refusal
	switch {
	case errors.As(err, &already):
		return already
	case errors.Is(err, canonical.ErrTooLarge):
		return &Refusal{TooLarge, "", err}
	case errors.Is(err, canonical.ErrTooDeep):
		return &Refusal{TooDeep, "", err}
	case errors.Is(err, authz.ErrPayloadType):
		return &Refusal{WrongType, "payloadType", err}
	case errors.Is(err, authz.ErrSignature):
		return &Refusal{BadSignature, "signatures", err}
	}
	return &Refusal{Malformed, "", err}
}

// invalid names what Validate of a detection found: one line for each field, the first one leads.
func invalid(err error) *Refusal {
	field, _, _ := strings.Cut(err.Error(), ": ")
	return &Refusal{Invalid, field, err}
}
