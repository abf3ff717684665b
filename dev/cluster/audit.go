package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// An AuditEvent is one call as the API server saw it: who did what, and what it answered. Of audit.k8s.io/v1 it keeps
// what a test asks for.
type AuditEvent struct {
	AuditID        types.UID       `json:"auditID"`
	Stage          string          `json:"stage"`
	Verb           string          `json:"verb"`
	RequestURI     string          `json:"requestURI"`
	UserAgent      string          `json:"userAgent"`
	User           AuditUser       `json:"user"`
	Object         AuditObject     `json:"objectRef"`
	Response       AuditResponse   `json:"responseStatus"`
	RequestBody    json.RawMessage `json:"requestObject"`  // writes only
	ResponseBody   json.RawMessage `json:"responseObject"` // writes only
	StageTimestamp time.Time       `json:"stageTimestamp"`
}

// An AuditUser is who called.
type AuditUser struct {
	Username string              `json:"username"`
	Groups   []string            `json:"groups"`
	Extra    map[string][]string `json:"extra"`
}

// An AuditObject is what the call was about.
type AuditObject struct {
	APIGroup    string `json:"apiGroup"`
	Resource    string `json:"resource"`
	Subresource string `json:"subresource"`
	Namespace   string `json:"namespace"`
	Name        string `json:"name"`
}

// An AuditResponse is how the call was answered.
type AuditResponse struct {
	Code    int    `json:"code"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// AuditLog is the path of the API server's audit log, one JSON object a line. It goes on over restarts.
func (c *Cluster) AuditLog() string { return c.file("audit.log") }

// AuditEvents reads the audit log. A call may enter it a moment after its answer: AwaitAudit waits for one.
func (c *Cluster) AuditEvents() ([]AuditEvent, error) {
	b, err := os.ReadFile(c.AuditLog())
	if err != nil {
		return nil, fmt.Errorf("read audit log: %w", err)
	}
	b = b[:bytes.LastIndexByte(b, '\n')+1] // a line that is being written is for the next reader
	var events []AuditEvent
	for line := range bytes.Lines(b) {
		var e AuditEvent
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("read audit log, line %d: %w", len(events)+1, err)
		}
		events = append(events, e)
	}
	return events, nil
}

// AwaitAudit returns the first event in the audit log that matches, and waits for it until ctx ends.
func (c *Cluster) AwaitAudit(ctx context.Context, match func(AuditEvent) bool) (AuditEvent, error) {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		events, err := c.AuditEvents()
		if err != nil {
			return AuditEvent{}, err
		}
		if i := slices.IndexFunc(events, match); i >= 0 {
			return events[i], nil
		}
		select {
		case <-ctx.Done():
			return AuditEvent{}, fmt.Errorf("wait for a call in the audit log of %d: %w", len(events), context.Cause(ctx))
		case <-tick.C:
		}
	}
}
