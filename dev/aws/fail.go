package aws

import (
	"encoding/json"
	"fmt"
	"net/http"
)

// failure is an error as AWS words it. The code is the Query protocol's; other protocols have their own names for the common ones.
type failure struct {
	code    string
	status  int
	message string
}

func (f *failure) Error() string { return f.code + ": " + f.message }

func fail(status int, code, format string, args ...any) *failure {
	return &failure{code: code, status: status, message: fmt.Sprintf(format, args...)}
}

func noSuchEntity(format string, args ...any) *failure {
	return fail(http.StatusNotFound, "NoSuchEntity", format, args...)
}

func limitExceeded(format string, args ...any) *failure {
	return fail(http.StatusConflict, "LimitExceeded", format, args...)
}

func alreadyExists(format string, args ...any) *failure {
	return fail(http.StatusConflict, "EntityAlreadyExists", format, args...)
}

func deleteConflict(format string, args ...any) *failure {
	return fail(http.StatusConflict, "DeleteConflict", format, args...)
}

func invalid(format string, args ...any) *failure {
	return fail(http.StatusBadRequest, "ValidationError", format, args...)
}

func accessDenied(format string, args ...any) *failure {
	return fail(http.StatusForbidden, "AccessDenied", format, args...)
}

var (
	errUnknownKey   = fail(http.StatusForbidden, "InvalidClientTokenId", "The security token included in the request is invalid.")
	errExpired      = fail(http.StatusForbidden, "ExpiredToken", "The security token included in the request is expired")
	errUnsigned     = fail(http.StatusForbidden, "MissingAuthenticationToken", "Request is missing Authentication Token")
	errThrottled    = fail(http.StatusBadRequest, "Throttling", "Rate exceeded")
	errInternal     = fail(http.StatusInternalServerError, "InternalFailure", "The request processing has failed because of an unknown error, exception or failure.")
	errBadSignature = fail(http.StatusForbidden, "SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.")
)

// jsonCodes are the JSON protocol's names for the common errors, all with status 400.
var jsonCodes = map[string]string{
	"AccessDenied":               "AccessDeniedException",
	"InvalidClientTokenId":       "UnrecognizedClientException",
	"SignatureDoesNotMatch":      "InvalidSignatureException",
	"ExpiredToken":               "ExpiredTokenException",
	"MissingAuthenticationToken": "MissingAuthenticationTokenException",
	"IncompleteSignature":        "IncompleteSignatureException",
	"Throttling":                 "ThrottlingException",
	"InvalidAction":              "UnknownOperationException",
}

// s3Codes are S3's names for them, with their statuses.
var s3Codes = map[string]failure{
	"InvalidClientTokenId": {code: "InvalidAccessKeyId", status: http.StatusForbidden, message: "The AWS Access Key Id you provided does not exist in our records."},
	"ExpiredToken":         {code: "ExpiredToken", status: http.StatusBadRequest, message: "The provided token has expired."},
	"Throttling":           {code: "SlowDown", status: http.StatusServiceUnavailable, message: "Please reduce your request rate."},
	"InternalFailure":      {code: "InternalError", status: http.StatusInternalServerError, message: "We encountered an internal error. Please try again."},
}

// reply is an answer before it goes onto the wire, where a fault may still befall it.
type reply struct {
	status      int
	contentType string
	body        []byte
}

// failureReply words an error in the protocol of the call.
func (c *call) failureReply(f *failure) reply {
	switch c.service {
	case "cloudtrail", "sqs":
		code, status := f.code, f.status
		if name, ok := jsonCodes[code]; ok {
			code = name
		}
		if status < 500 {
			status = http.StatusBadRequest
		}
		body, _ := json.Marshal(map[string]string{"__type": code, "message": f.message}) // strings always marshal
		return reply{status, "application/x-amz-json-1.1", body}
	case "s3":
		if named, ok := s3Codes[f.code]; ok {
			f = &named
		}
		return reply{f.status, "application/xml", render("", el("Error", txt("Code", f.code), txt("Message", f.message), txt("RequestId", c.id)))}
	}
	sort := "Sender"
	if f.status >= 500 {
		sort = "Receiver"
	}
	return reply{f.status, "text/xml", render(namespaces[c.service], el("ErrorResponse",
		el("Error", txt("Type", sort), txt("Code", f.code), txt("Message", f.message)),
		txt("RequestId", c.id)))}
}
