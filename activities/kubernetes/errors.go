package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/internal/detection"
)

// errStale says that the object changed between our read and our write: read again.
var errStale = errors.New("changed meanwhile")

// attempts bounds how often a change is tried anew because the object moved: a kubelet writes a pod's status at any time.
const attempts = 8

// apiError says what an API error means: gone is ErrConflict, a flat no is ErrRefused, and a write whose answer did not
// come is ErrUnknown. Messages quote what others wrote, so they are cleaned and cut.
func apiError(op string, err error, write bool) error {
	if err == nil {
		return nil
	}
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return transportError(op, err, write)
	}
	text := op + ": " + detection.Clean(err.Error(), 300)
	code := status.Status().Code
	switch {
	case write && testFailed(err):
		return fmt.Errorf("%s: %w", text, errStale)
	case apierrors.IsNotFound(err), apierrors.IsGone(err), apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
		return fmt.Errorf("%s: %w", text, activities.ErrConflict)
	case apierrors.IsUnauthorized(err), apierrors.IsTooManyRequests(err), apierrors.IsServiceUnavailable(err):
		return errors.New(text) // not done; a new token or a little time may help
	case code >= 500 && write, apierrors.IsTimeout(err) && write:
		return fmt.Errorf("%s: %w", text, activities.ErrUnknown)
	case code >= 400 && code < 500:
		return fmt.Errorf("%s: %w", text, activities.ErrRefused)
	}
	return errors.New(text)
}

// testFailed reports whether a JSON patch was refused because one of its tests did not hold. The API server says so in
// a generic answer of status 422 only.
func testFailed(err error) bool {
	return apierrors.IsConflict(err) || (apierrors.IsInvalid(err) && strings.Contains(err.Error(), "rejected our request due to an error in our request"))
}

func transportError(op string, err error, write bool) error {
	var dial *net.OpError
	if errors.As(err, &dial) && dial.Op == "dial" {
		return fmt.Errorf("%s: no connection", op)
	}
	why := "the answer did not come"
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		why = "no answer in time"
	}
	if write {
		return fmt.Errorf("%s: %s: %w", op, why, activities.ErrUnknown)
	}
	return fmt.Errorf("%s: %s: %s", op, why, detection.Clean(err.Error(), 200))
}

// persist runs try until the object holds still. try reads, compares and writes; an unknown outcome is read back by
// trying once more, since every try starts with a read and ends at once where nothing is left to do.
func persist(ctx context.Context, try func(ctx context.Context) error) error {
	unknown := false
	for range attempts {
		err := try(ctx)
		switch {
		case errors.Is(err, errStale):
			continue
		case errors.Is(err, activities.ErrUnknown) && !unknown && ctx.Err() == nil:
			unknown = true
			continue
		}
		return err
	}
	return fmt.Errorf("kept changing: %w", activities.ErrConflict)
}
