package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path"
	"slices"
	"strings"

	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/sdk/interceptor"
	sdklog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"tourniquet.dev/tourniquet/internal/canonical"
	"tourniquet.dev/tourniquet/internal/sys/temporalclient"
	"tourniquet.dev/tourniquet/workflows"
)

// workflowTypes are the workflows by what their ids begin with.
var workflowTypes = map[string]string{"incident": workflows.TypeIncident, "containment": workflows.TypeContainment, "archive": workflows.TypeArchive}

// histories replays every history, then checks what was said in it.
func (v *verifier) histories(ctx context.Context) {
	names := v.bundle.Under(folderHistories)
	if len(names) == 0 {
		v.note("no history is in the bundle: what workflows did is not verified")
		return
	}
	l := newListener(v)
	incidents := 0
	for _, name := range names {
		at := execution{path.Dir(strings.TrimPrefix(name, folderHistories+"/")), strings.TrimSuffix(path.Base(name), ".json")}
		h, err := v.history(name, at)
		if err != nil {
			v.fail("replay", "%s: %v", at.id, err)
			continue
		}
		if strings.HasPrefix(at.id, workflows.IncidentWorkflowID("")) {
			incidents++
		}
		all, err := decodeHistory(h, v.dc)
		if err != nil {
			v.fail("replay", "%s: %v", at.id, err)
			continue
		}
		if err := v.replay(at, h, all); err != nil {
			v.fail("replay", "%s: %v", at.id, err)
		} else {
			v.ok("replay", "%s: %d events, each input and the result as the code computes them", at.id, len(h.GetEvents()))
		}
		l.listen(ctx, at, all)
	}
	if incidents == 0 {
		v.fail("replay", "the incident's own history is missing")
	}
	l.conclude()
}

// history reads a history and checks that it is the one that its name says.
func (v *verifier) history(name string, at execution) (*historypb.History, error) {
	h, err := parseHistory(v.bundle.Files[name])
	if err != nil {
		return nil, err
	}
	if len(h.GetEvents()) == 0 {
		return nil, errors.New("it is empty")
	}
	start := h.GetEvents()[0].GetWorkflowExecutionStartedEventAttributes()
	kind, _, _ := strings.Cut(at.id, "/")
	if start.GetWorkflowId() != at.id || start.GetWorkflowType().GetName() != workflowTypes[kind] || workflowTypes[kind] == "" {
		return nil, fmt.Errorf("it is of workflow %.100q, type %.40q", start.GetWorkflowId(), start.GetWorkflowType().GetName())
	}
	for i, e := range h.GetEvents() {
		if e.GetEventId() != int64(i)+1 {
			return nil, fmt.Errorf("event %d has the number %d", i+1, e.GetEventId())
		}
	}
	return h, nil
}

// replay runs this program's workflow code over a history: the same commands must come out, with the same inputs, and
// the same result.
func (v *verifier) replay(at execution, h *historypb.History, all []said) (err error) {
	defer func() { // the SDK panics on some histories that no server writes
		if r := recover(); r != nil {
			err = fmt.Errorf("cannot be replayed: %v", r)
		}
	}()
	heard := newWitness()
	r, err := worker.NewWorkflowReplayerWithOptions(worker.WorkflowReplayerOptions{DataConverter: v.dc, FailureConverter: temporalclient.FailureConverter(v.ring),
		Interceptors: []interceptor.WorkerInterceptor{heard}, DisableDeadlockDetection: true})
	if err != nil {
		return fmt.Errorf("make a replayer: %w", err)
	}
	r.RegisterWorkflow(workflows.Incident)
	r.RegisterWorkflow(workflows.Containment)
	r.RegisterWorkflow(workflows.Archive)
	logger := sdklog.NewStructuredLogger(slog.New(slog.DiscardHandler))
	if err := r.ReplayWorkflowHistoryWithOptions(logger, h, worker.ReplayWorkflowHistoryOptions{OriginalExecution: workflow.Execution{ID: at.id, RunID: at.run}}); err != nil {
		return err
	}
	if err := heard.compare(all); err != nil {
		return err
	}
	return sameResult(r, at, all)
}

// sameResult compares what the code returned with the result that stands in a history that has one.
func sameResult(r worker.WorkflowReplayer, at execution, all []said) error {
	last := len(all) - 1
	results, ok := r.(interface{ GetWorkflowResult(string, any) error })
	if last < 0 || all[last].where != asEnd || !ok {
		return nil
	}
	var got json.RawMessage
	if err := results.GetWorkflowResult(at.id, &got); err != nil {
		return fmt.Errorf("result: %w", err)
	}
	if !equalJSON(got, all[last].data) {
		return errors.New("the code returns another result")
	}
	return nil
}

// equalJSON says whether two values are the same document.
func equalJSON(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	if errX != nil || errY != nil {
		return false
	}
	x, errX = canonical.Canonicalize(x)
	y, errY = canonical.Canonicalize(y)
	return errX == nil && errY == nil && string(x) == string(y)
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
