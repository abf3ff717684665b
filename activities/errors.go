package activities

import (
	"errors"

	"go.temporal.io/sdk/temporal"

	"tourniquet.dev/tourniquet/internal/authz"
)

// The outcomes of an effect other than done. Anything else that comes back from an Action is tried again.
var (
	// ErrRefused: the system or the gate will never do this; never retry.
	ErrRefused = errors.New("refused")
	// ErrConflict: the object is not what the plan saw, or is gone; ask again.
	ErrConflict = errors.New("conflict")
	// ErrUnknown: sent, and no answer came; read the state back, never repeat blindly.
	ErrUnknown = errors.New("outcome unknown")
	// ErrStanding: the step failed, and something of it may stand; it is held until its end, like a step that went well.
	ErrStanding = errors.New("failed, and something of it may stand")
)

// The types of application errors, as workflows see them.
const (
	TypeRefused  = "refused"
	TypeConflict = "conflict"
	TypeUnknown  = "unknown"
	TypeStanding = "standing"
	TypeInput    = "bad-input"
)

// asTemporal turns the outcomes into named application errors. No other code builds a Temporal error.
func asTemporal(err error) error {
	if err == nil {
		return nil
	}
	var refusal *authz.Refusal
	switch {
	case errors.Is(err, ErrStanding): // before its cause, which says less
		return temporal.NewNonRetryableApplicationError(err.Error(), TypeStanding, nil)
	case errors.As(err, &refusal):
		return temporal.NewApplicationErrorWithOptions(err.Error(), TypeRefused, temporal.ApplicationErrorOptions{NonRetryable: true, Details: []any{string(refusal.Code)}})
	case errors.Is(err, ErrRefused):
		return temporal.NewNonRetryableApplicationError(err.Error(), TypeRefused, nil)
	case errors.Is(err, ErrConflict):
		return temporal.NewNonRetryableApplicationError(err.Error(), TypeConflict, nil)
	case errors.Is(err, ErrUnknown):
		return temporal.NewApplicationError(err.Error(), TypeUnknown)
	}
	return err
}
