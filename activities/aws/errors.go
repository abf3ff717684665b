package aws

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/internal/detection"
)

// The error codes that decide what becomes of a call. What stands in none of the lists is tried again.
var (
	gone    = []string{"NoSuchEntity", "NoSuchEntityException"}
	refused = []string{"AccessDenied", "AccessDeniedException", "UnmodifiableEntity", "UnmodifiableEntityException", "LimitExceeded",
		"LimitExceededException", "MalformedPolicyDocument", "MalformedPolicyDocumentException", "InvalidInput", "InvalidInputException",
		"ValidationError", "PolicyNotAttachable", "PolicyNotAttachableException", "InvalidAction"}
)

// callError says what an SDK's error means: gone is ErrConflict, a flat no is ErrRefused, and a write whose answer did
// not come is ErrUnknown. The SDK's own error is not wrapped: its text may hold what nobody should keep.
func callError(op string, err error, write bool) error {
	var api smithy.APIError
	if errors.As(err, &api) {
		text := fmt.Sprintf("%s: %s: %s%s", op, detection.Clean(api.ErrorCode(), 80), detection.Clean(api.ErrorMessage(), 300), requestOf(err))
		switch {
		case slices.Contains(gone, api.ErrorCode()):
			return fmt.Errorf("%s: %w", text, activities.ErrConflict)
		case slices.Contains(refused, api.ErrorCode()):
			return fmt.Errorf("%s: %w", text, activities.ErrRefused)
		case write && statusOf(err) >= 500:
			return fmt.Errorf("%s: %w", text, activities.ErrUnknown)
		}
		return errors.New(text)
	}
	why := transportReason(err)
	if write && !neverSent(err) {
		return fmt.Errorf("%s: %s: %w", op, why, activities.ErrUnknown)
	}
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("%s: %w", op, context.Canceled)
	}
	return fmt.Errorf("%s: %s", op, why)
}

// neverSent reports whether the request certainly did not leave: it failed before the transport, or no connection could
// be made.
func neverSent(err error) bool {
	var dial *net.OpError
	if errors.As(err, &dial) && dial.Op == "dial" {
		return true
	}
	var send *smithyhttp.RequestSendError
	var cancelled *sdk.RequestCanceledError
	var response *awshttp.ResponseError
	return !errors.As(err, &send) && !errors.As(err, &cancelled) && !errors.As(err, &response)
}

// transportReason words an error of the way there in our own words.
func transportReason(err error) string {
	var dial *net.OpError
	var timeout net.Error
	switch {
	case errors.As(err, &dial) && dial.Op == "dial":
		return "no connection"
	case errors.Is(err, context.Canceled):
		return "cancelled"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "no answer in time"
	}
	return "the answer did not come" + requestOf(err)
}

func statusOf(err error) int {
	var response *awshttp.ResponseError
	if errors.As(err, &response) && response.Response != nil {
		return response.HTTPStatusCode()
	}
	return 0
}

func requestOf(err error) string {
	var response *awshttp.ResponseError
	if errors.As(err, &response) && response.ServiceRequestID() != "" {
		return " (request " + detection.Clean(response.ServiceRequestID(), 64) + ")"
	}
	return ""
}
