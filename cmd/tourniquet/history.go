package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
)

// where is the place in a history at which something was said.
type where string

const (
	asInput    where = "input"           // of the workflow
	asSignal   where = "signal"          // anybody with access to Temporal may send one
	asRequest  where = "activity input"  // what the workflow asked for
	asResult   where = "activity result" // what a worker answered
	asChild    where = "child input"
	asOutgoing where = "outgoing signal"
	asEnd      where = "result" // of the workflow
)

// said is one decoded payload of a history.
type said struct {
	event int64
	at    time.Time
	where where
	name  string // of the signal, activity or child workflow
	// request is the event of the activity input that a result answers.
	request int64
	data    json.RawMessage
}

// parseHistory reads Temporal's own JSON.
func parseHistory(data []byte) (*historypb.History, error) {
	h, err := client.HistoryFromJSON(bytes.NewReader(data), client.HistoryJSONOptions{})
	if err != nil {
		return nil, fmt.Errorf("parse history: %w", err)
	}
	return h, nil
}

// decodeHistory decrypts what was said in a history, in order.
func decodeHistory(h *historypb.History, dc converter.DataConverter) ([]said, error) {
	r := historyReader{dc: dc, activities: map[int64]string{}}
	for _, e := range h.GetEvents() {
		if err := r.event(e); err != nil {
			return nil, fmt.Errorf("event %d: %w", e.GetEventId(), err)
		}
	}
	return r.out, nil
}

type historyReader struct {
	dc         converter.DataConverter
	activities map[int64]string // names by the event that scheduled them
	out        []said
}

func (r *historyReader) event(e *historypb.HistoryEvent) error {
	s := said{event: e.GetEventId(), at: e.GetEventTime().AsTime()}
	var payloads *commonpb.Payloads
	switch a := e.GetAttributes().(type) {
	case *historypb.HistoryEvent_WorkflowExecutionStartedEventAttributes:
		s.where, payloads = asInput, a.WorkflowExecutionStartedEventAttributes.GetInput()
	case *historypb.HistoryEvent_WorkflowExecutionSignaledEventAttributes:
		s.where, s.name, payloads = asSignal, a.WorkflowExecutionSignaledEventAttributes.GetSignalName(), a.WorkflowExecutionSignaledEventAttributes.GetInput()
	case *historypb.HistoryEvent_ActivityTaskScheduledEventAttributes:
		s.where, s.name, payloads = asRequest, a.ActivityTaskScheduledEventAttributes.GetActivityType().GetName(), a.ActivityTaskScheduledEventAttributes.GetInput()
		r.activities[e.GetEventId()] = s.name
	case *historypb.HistoryEvent_ActivityTaskCompletedEventAttributes:
		s.request = a.ActivityTaskCompletedEventAttributes.GetScheduledEventId()
		s.where, s.name, payloads = asResult, r.activities[s.request], a.ActivityTaskCompletedEventAttributes.GetResult()
	case *historypb.HistoryEvent_StartChildWorkflowExecutionInitiatedEventAttributes:
		s.where, s.name, payloads = asChild, a.StartChildWorkflowExecutionInitiatedEventAttributes.GetWorkflowId(), a.StartChildWorkflowExecutionInitiatedEventAttributes.GetInput()
	case *historypb.HistoryEvent_SignalExternalWorkflowExecutionInitiatedEventAttributes:
		s.where, s.name, payloads = asOutgoing, a.SignalExternalWorkflowExecutionInitiatedEventAttributes.GetSignalName(), a.SignalExternalWorkflowExecutionInitiatedEventAttributes.GetInput()
	case *historypb.HistoryEvent_WorkflowExecutionCompletedEventAttributes:
		s.where, payloads = asEnd, a.WorkflowExecutionCompletedEventAttributes.GetResult()
	}
	for _, p := range payloads.GetPayloads() {
		if err := r.dc.FromPayload(p, &s.data); err != nil {
			if s.where == asSignal { // anybody may have sent it, with any codec; the workflow could not read it either
				s.data = nil
				r.out = append(r.out, s)
				continue
			}
			return fmt.Errorf("decode %s %s: %w", s.where, s.name, err)
		}
		r.out = append(r.out, s)
	}
	return nil
}

// children are the runs that a history started, by workflow id, in order.
func children(h *historypb.History) []execution {
	var out []execution
	for _, e := range h.GetEvents() {
		if a := e.GetChildWorkflowExecutionStartedEventAttributes(); a != nil {
			out = append(out, execution{a.GetWorkflowExecution().GetWorkflowId(), a.GetWorkflowExecution().GetRunId()})
		}
	}
	return out
}

// collect calls f for every string and every object in a JSON document.
func collect(data json.RawMessage, str func(string), obj func(map[string]json.RawMessage, json.RawMessage)) {
	switch trimmed := bytes.TrimSpace(data); {
	case len(trimmed) == 0:
	case trimmed[0] == '{':
		var m map[string]json.RawMessage
		if json.Unmarshal(trimmed, &m) != nil {
			return
		}
		if obj != nil {
			obj(m, trimmed)
		}
		for _, v := range sortedValues(m) {
			collect(v, str, obj)
		}
	case trimmed[0] == '[':
		var list []json.RawMessage
		if json.Unmarshal(trimmed, &list) != nil {
			return
		}
		for _, v := range list {
			collect(v, str, obj)
		}
	case trimmed[0] == '"' && str != nil:
		var s string
		if json.Unmarshal(trimmed, &s) == nil {
			str(s)
		}
	}
}
