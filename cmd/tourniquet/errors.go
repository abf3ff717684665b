package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"go.temporal.io/api/serviceerror"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/sys/bundle"
	"tourniquet.dev/tourniquet/internal/sys/keys"
	"tourniquet.dev/tourniquet/internal/sys/store"
	"tourniquet.dev/tourniquet/internal/sys/temporalclient"
)

// The exit codes. They are part of the command line's contract.
const (
	codeOK       = 0
	codeFailed   = 1
	codeUsage    = 2
	codeNotFound = 3
	codeRefused  = 4
)

const codesHelp = `Exit codes: 0 done; 1 failed; 2 bad usage or input; 3 not found; 4 refused, or verification failed.`

// What a failure is, where the wrapped error does not say so itself.
var (
	errUsage    = errors.New("bad usage or input")
	errNotFound = errors.New("not found")
	errRefused  = errors.New("refused")
)

// failure is an error with its kind and what the person can do next.
type failure struct {
	kind error // errUsage, errNotFound, errRefused, or nil
	what error
	hint string
}

func (f *failure) Error() string { return f.what.Error() }

func (f *failure) Unwrap() []error {
	if f.kind == nil {
		return []error{f.what}
	}
	return []error{f.what, f.kind}
}

func usage(what error, hint string) error    { return &failure{errUsage, what, hint} }
func notFound(what error, hint string) error { return &failure{errNotFound, what, hint} }
func refused(what error, hint string) error  { return &failure{errRefused, what, hint} }
func hinted(what error, hint string) error   { return &failure{nil, what, hint} }

// report prints an error for people and returns its exit code. It is the only place that does either.
func report(w io.Writer, err error) int {
	if err == nil {
		return codeOK
	}
	fmt.Fprintf(w, "tourniquet: %s\n", strings.ReplaceAll(printable(err.Error(), 4000), "\n", "\n  "))
	code, hint := classify(err)
	var f *failure
	if errors.As(err, &f) && f.hint != "" {
		hint = f.hint
	}
	if hint != "" {
		fmt.Fprintf(w, "hint: %s\n", hint)
	}
	return code
}

// classify maps an error to its exit code, with a hint for those that come from below.
func classify(err error) (code int, hint string) {
	var refusal *authz.Refusal
	var gone *serviceerror.NotFound
	var down *serviceerror.Unavailable
	switch {
	case errors.Is(err, errUsage):
		return codeUsage, ""
	case errors.Is(err, errNotFound):
		return codeNotFound, ""
	case errors.Is(err, errRefused):
		return codeRefused, ""
	case errors.As(err, &refusal):
		return codeRefused, "the enforcers would refuse it too: see the reason above"
	case errors.Is(err, authz.ErrSignature), errors.Is(err, authz.ErrPayloadType), errors.Is(err, bundle.ErrForm), errors.Is(err, bundle.ErrManifest):
		return codeRefused, "it is not what a trusted key signed"
	case errors.Is(err, keys.ErrMode), errors.Is(err, temporalclient.ErrRing):
		return codeUsage, "secrets want mode 0600, trusted files want to be writable by their owner only"
	case errors.Is(err, keys.ErrForm):
		return codeUsage, "a key file is one line of base64; make one with: tourniquet key new FILE"
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrExist), errors.Is(err, fs.ErrPermission):
		return codeUsage, "check the path"
	case errors.Is(err, store.ErrNotFound), errors.As(err, &gone):
		return codeNotFound, ""
	case errors.As(err, &down), errors.Is(err, context.DeadlineExceeded):
		return codeFailed, "is Temporal running at this address? tourniquet doctor tells"
	}
	return codeFailed, ""
}
