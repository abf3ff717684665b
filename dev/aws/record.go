package aws

import (
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// A Record is the stand-in's own word on one call: what its operator checks an end state against. It holds no secret.
type Record struct {
	Seq         int               `json:"seq"`
	Time        time.Time         `json:"time"`
	RequestID   string            `json:"requestId"`
	Service     string            `json:"service"`
	Action      string            `json:"action"`
	Region      string            `json:"region,omitempty"`
	AccessKeyID string            `json:"accessKeyId,omitempty"` // as claimed, also where the signature was wrong
	Principal   string            `json:"principal,omitempty"`   // ARN; empty: not authenticated
	SourceIP    string            `json:"sourceIp"`
	Parameters  map[string]string `json:"parameters,omitempty"`
	Status      int               `json:"status"`
	Code        string            `json:"code,omitempty"` // of the error
	Message     string            `json:"message,omitempty"`
	Applied     bool              `json:"applied"`                     // it took effect, whatever the caller heard
	Minted      string            `json:"mintedAccessKeyId,omitempty"` // credentials that it made
	Fault       FaultKind         `json:"fault,omitempty"`
}

// maxRecords bounds the records and the events that are kept; the oldest go first.
const maxRecords = 100_000

// Records returns what was called so far, in order, from seq on.
func (s *Server) Records(from int) []Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, _ := slices.BinarySearchFunc(s.records, from, func(r Record, seq int) int { return r.Seq - seq })
	return slices.Clone(s.records[at:])
}

func (s *Server) record(c *call, answer reply, failed *failure, fault *Fault) {
	signed, _ := parseSignature(c.request.Header.Get("Authorization"))
	r := Record{
		Seq: s.served, Time: c.now, RequestID: c.id, Service: c.service, Action: c.action, Region: c.region,
		AccessKeyID: signed.keyID, SourceIP: c.sourceIP(), Parameters: c.parameters(), Status: answer.status,
		Applied: c.applied, Minted: c.mintedKey,
	}
	if c.caller != nil {
		r.Principal = c.caller.who.ARN
	}
	if failed != nil {
		r.Code, r.Message = failed.code, failed.message
	}
	if fault != nil {
		r.Fault = fault.Kind
	}
	s.records = kept(append(s.records, r))
	if c.caller != nil && c.service != "sqs" { // messages are no management events; AWS logs no call whose caller it could not make out
		s.events = kept(append(s.events, c.event(r)))
	}
}

// kept drops the oldest tenth of a list that has grown too long.
func kept[T any](list []T) []T {
	if len(list) <= maxRecords {
		return list
	}
	return slices.Clone(list[maxRecords/10:])
}

// parameters are the call's parameters under CloudTrail's names, without what must not be kept.
func (c *call) parameters() map[string]string {
	out := map[string]string{}
	for key, values := range c.form {
		switch key {
		case "Action", "Version":
		case "WebIdentityToken", "TokenCode", "Password":
			out[lowerFirst(key)] = "HIDDEN_DUE_TO_SECURITY_REASONS"
		default:
			out[lowerFirst(key)] = strings.ToValidUTF8(values[0], "\uFFFD")
		}
	}
	return out
}

func lowerFirst(s string) string {
	r, size := utf8.DecodeRuneInString(s)
	return string(unicode.ToLower(r)) + s[size:]
}
