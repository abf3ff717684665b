package aws

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"tourniquet.dev/tourniquet/internal/blast/iampolicy"
)

// maxBody bounds a request's body; the largest real one holds a few policy documents.
const maxBody = 1 << 20

// call is one request on its way.
type call struct {
	server  *Server
	request *http.Request
	body    []byte
	form    url.Values // Query protocol
	now     time.Time
	id      string

	service, action, region string
	caller                  *caller // nil: unsigned

	mintedKey string         // access key id of the credentials that the call made
	answer    map[string]any // responseElements of the CloudTrail event
	resources []resource     // of the CloudTrail event
	applied   bool           // the operation ran without an error
	found     int            // messages that were received
	enqueued  chan struct{}  // the server's, as it was when the call ran
}

// caller is who signed the request.
type caller struct {
	keyID   string
	who     iampolicy.Principal
	entity  *entity  // as authorization sees it; nil for the root user
	session *session // nil for a long-term key
}

// operation is one API action.
type operation struct {
	readOnly bool
	open     bool                         // the operation judges its caller itself
	target   func(*call) target           // what the caller's policies are asked about
	run      func(*call) (element, error) // the result element's children, under any name
	json     func(*call) (any, error)     // instead of run, in the JSON protocol
}

// target is the resource of an operation and the condition keys that come with it.
type target struct {
	resource string
	keys     map[string]string
	lists    map[string][]string // keys with several values
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		http.Error(w, Label+": "+err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	if r.Method == http.MethodGet && r.Header.Get("Authorization") == "" && r.URL.RawQuery == "" {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintf(w, "%s\naccount %s\n", Label, s.options.Account)
		return
	}
	began := time.Now()
	c := &call{server: s, request: r, body: body, form: url.Values{}}
	answer, fault := s.handle(c)
	for s.await(c, began) {
		c = &call{server: s, request: r, body: body, form: url.Values{}}
		answer, fault = s.handle(c)
	}
	s.send(w, r, c.id, answer, fault)
}

// handle does all that happens under the lock: it settles what has lagged long enough, judges, runs and records.
func (s *Server) handle(c *call) (reply, *Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.served++
	c.now, c.id, c.enqueued = s.now(), newUUID(), s.enqueued
	s.state.settle(c.now)
	failed := c.read()
	fault := s.nextFault(c)
	var answer reply
	if failed == nil {
		failed = fault.before()
	}
	if failed == nil {
		answer, failed = c.run()
	}
	if failed != nil {
		answer = c.failureReply(failed)
	}
	s.record(c, answer, failed, fault)
	return answer, fault
}

// read finds out what is asked for, before anybody is believed.
func (c *call) read() *failure {
	c.region, c.service = scope(c.request.Header.Get("Authorization"))
	if c.service == "s3" {
		c.action = "ListAllMyBuckets"
		if c.request.Method != http.MethodGet || c.request.URL.Path != "/" {
			c.action = "Other"
			return fail(http.StatusNotImplemented, "NotImplemented", "Only ListBuckets is offered. %s", Label)
		}
		return nil
	}
	if name := c.request.Header.Get("X-Amz-Target"); name != "" {
		c.action = name[strings.LastIndexByte(name, '.')+1:]
		return c.known()
	}
	form, err := url.ParseQuery(string(c.body))
	if err != nil {
		return fail(http.StatusBadRequest, "MalformedInput", "%s", err)
	}
	for key, values := range c.request.URL.Query() {
		form[key] = values
	}
	c.form, c.action = form, form.Get("Action")
	if c.service == "" && c.action == "AssumeRoleWithWebIdentity" {
		c.service, c.region = "sts", "us-east-1"
	}
	return c.known()
}

func (c *call) known() *failure {
	if c.service == "" {
		return errUnsigned
	}
	if _, ok := c.server.operations[c.service+":"+c.action]; !ok {
		return fail(http.StatusBadRequest, "InvalidAction", "Could not find operation %s of %s. %s", c.action, c.service, Label)
	}
	return nil
}

// run authenticates, authorizes and runs the operation.
func (c *call) run() (reply, *failure) {
	op := c.server.operations[c.service+":"+c.action]
	if c.service != "sts" || c.action != "AssumeRoleWithWebIdentity" {
		if failed := c.authenticate(); failed != nil {
			return reply{}, failed
		}
		c.server.lastUsed[c.caller.keyID] = keyUse{c.now, c.service, c.region}
	}
	if !op.open {
		at := op.target(c)
		if failed := c.authorize(c.service+":"+c.action, at, nil); failed != nil {
			return reply{}, failed
		}
	}
	answer, err := c.answerOf(op)
	if err != nil {
		var failed *failure
		if errors.As(err, &failed) {
			return reply{}, failed
		}
		return reply{}, fail(http.StatusInternalServerError, "InternalFailure", "%s", err)
	}
	c.applied = true
	return answer, nil
}

func (c *call) answerOf(op operation) (reply, error) {
	if op.json != nil {
		value, err := op.json(c)
		if err != nil {
			return reply{}, err
		}
		body, err := json.Marshal(value)
		return reply{http.StatusOK, "application/x-amz-json-1.1", body}, err
	}
	result, err := op.run(c)
	if err != nil {
		return reply{}, err
	}
	if c.service == "s3" {
		return reply{http.StatusOK, "application/xml", render(namespaces["s3"], result)}, nil
	}
	root := el(c.action + "Response")
	if len(result.children) > 0 {
		result.name = c.action + "Result"
		root.children = append(root.children, result)
	}
	root.children = append(root.children, el("ResponseMetadata", txt("RequestId", c.id)))
	return reply{http.StatusOK, "text/xml", render(namespaces[c.service], root)}, nil
}

// send puts the answer on the wire, or what a fault leaves of it.
func (s *Server) send(w http.ResponseWriter, r *http.Request, id string, answer reply, fault *Fault) {
	header := w.Header()
	header.Set("Content-Type", answer.contentType)
	header.Set("Server", Label)
	header.Set("X-Amzn-Requestid", id)
	header.Set("Date", s.Now().Format(http.TimeFormat))
	if fault != nil && fault.DelayMilliseconds > 0 {
		timer := time.NewTimer(time.Duration(fault.DelayMilliseconds) * time.Millisecond)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.Context().Done():
		}
	}
	if fault.cuts() {
		s.cut(w, answer, fault.AfterBytes)
		return
	}
	w.WriteHeader(answer.status)
	_, _ = w.Write(answer.body) // the client went away: its affair
}

// cut resets the connection after so many bytes of the answer.
func (s *Server) cut(w http.ResponseWriter, answer reply, after int) {
	hijacker, ok := w.(http.Hijacker)
	if !ok {
		panic(http.ErrAbortHandler) // net/http closes the connection without a word
	}
	connection, _, err := hijacker.Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s",
		answer.status, http.StatusText(answer.status), answer.contentType, len(answer.body), answer.body)
	_, _ = connection.Write(b.Bytes()[:min(max(after, 0), b.Len())])
	if tcp, ok := connection.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // close with a reset
	}
	_ = connection.Close()
}
