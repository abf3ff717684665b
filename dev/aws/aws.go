// Package aws is the AWS stand-in of the demo and the tests: an HTTP server that the unmodified AWS SDK for Go drives by its
// base endpoint. It speaks the Query protocol for IAM and STS, JSON for CloudTrail and SQS, and S3's ListBuckets as a probe.
//
// It checks every signature, judges every call by the policies it stores (with the product's own evaluator), and keeps AWS's
// trait that matters most in containment: control-plane reads show a change at once, authorization follows after a lag. It keeps
// all state in memory and forgets it at the end.
//
// It is not AWS: where AWS documents a behaviour it follows the documentation; it never talks to AWS, and reads no AWS_*
// environment variable, profile or credential file. dev/stack, dev/demo and the tests start it.
package aws

import (
	"cmp"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// Label is how the stand-in names itself wherever it shows.
const Label = "AWS stand-in: protocol and IAM semantics as documented; not AWS"

// Defaults of the program and of whoever wants AWS's pace. The lag is what OFFENSAI measured on AWS in December 2025 (3 to 4 s).
const (
	DefaultAccount       = "111122223333"
	DefaultLag           = 4 * time.Second
	DefaultJitter        = 500 * time.Millisecond
	DefaultDeliveryDelay = 20 * time.Second // AWS: about 5 min on average; shorter, so that a demo can watch it
	DefaultLookupRate    = 2                // LookupEvents a second, as AWS documents
)

// Options configures a Server. The zero value is a stand-in without delays on the machine's clock.
type Options struct {
	Account       string           // 12 digits; empty: DefaultAccount
	Lag           time.Duration    // from a change to its effect on authorization
	Jitter        time.Duration    // the lag varies by at most this, both ways
	DeliveryDelay time.Duration    // from a call to its CloudTrail event
	LookupRate    int              // LookupEvents a second and region; 0: no limit
	Clock         func() time.Time // nil: time.Now
	Seed          uint64           // of the jitter
	Issuers       []Issuer         // OIDC providers for AssumeRoleWithWebIdentity
}

// A Server is one AWS account. It is safe for concurrent use.
type Server struct {
	options    Options
	signer     *v4.Signer
	operations map[string]operation

	mu       sync.Mutex // guards all below; no handler blocks while it holds it
	random   *rand.Rand
	skew     time.Duration
	state    state
	sessions map[string]*session // by access key id
	lastUsed map[string]keyUse   // by access key id
	buckets  []bucket
	records  []Record
	events   []event
	lookups  map[string]*bucketRate // by region
	faults   []*Fault
	queues   map[string][]*message // of SQS, by name
	enqueued chan struct{}         // closed, and made anew, when a message is put into a queue
	served   int                   // requests so far, for ids
}

// New returns a stand-in for an empty account. It starts nothing: serve Handler, and AdminHandler where only the operator of
// the test reaches it.
func New(options Options) *Server {
	options.Account = cmp.Or(options.Account, DefaultAccount)
	if options.Clock == nil {
		options.Clock = time.Now
	}
	s := &Server{
		options:    options,
		signer:     v4.NewSigner(),
		operations: allOperations(),
		random:     rand.New(rand.NewPCG(options.Seed, 0)),
		sessions:   map[string]*session{},
		lastUsed:   map[string]keyUse{},
		lookups:    map[string]*bucketRate{},
		queues:     map[string][]*message{},
		enqueued:   make(chan struct{}),
	}
	s.state = newState()
	s.seedManagedPolicies()
	return s
}

// Account is the account's id.
func (s *Server) Account() string { return s.options.Account }

// Now is the stand-in's clock, with the skew that the admin endpoint may have set.
func (s *Server) Now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now()
}

func (s *Server) now() time.Time { return s.options.Clock().Add(s.skew).UTC() }

// Settle makes every change that still lags count at once.
func (s *Server) Settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.settle(s.now().Add(24 * time.Hour))
}

// visibleAt is when a change made now counts for authorization.
func (s *Server) visibleAt() time.Time {
	lag := s.options.Lag
	if jitter := int64(s.options.Jitter); jitter > 0 && lag > 0 {
		lag += time.Duration(s.random.Int64N(2*jitter+1) - jitter)
	}
	return s.now().Add(max(lag, 0))
}

// Handler serves the AWS protocols.
func (s *Server) Handler() http.Handler { return http.HandlerFunc(s.serve) }
