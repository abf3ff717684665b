package main

import (
	"encoding/json"
	"fmt"

	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/workflow"
)

// A witness listens to workflow code while it is replayed and writes down what it asks for. Temporal's own replay compares
// kinds and names of commands only: whether the inputs in a history are those that the code computed, nobody else checks.
type witness struct {
	interceptor.WorkerInterceptorBase
	asked map[where][]said
	err   error
}

func newWitness() *witness { return &witness{asked: map[where][]said{}} }

func (w *witness) note(at where, name string, args []any) {
	s := said{where: at, name: name}
	if len(args) > 0 { // all of ours take one struct
		data, err := json.Marshal(args[0])
		if err != nil {
			w.err = fmt.Errorf("%s %s: %w", at, name, err)
		}
		s.data = data
	}
	w.asked[at] = append(w.asked[at], s)
}

// compare says how what the code asked for differs from what the history says it did. A history may be shorter: it ends
// where it was read.
func (w *witness) compare(all []said) error {
	if w.err != nil {
		return w.err
	}
	seen := map[where]int{}
	for _, s := range all {
		if s.where != asRequest && s.where != asChild && s.where != asOutgoing {
			continue
		}
		i := seen[s.where]
		seen[s.where]++
		if i >= len(w.asked[s.where]) {
			return fmt.Errorf("event %d: the code asks for no %s of %s", s.event, s.where, s.name)
		}
		if asked := w.asked[s.where][i]; asked.name != s.name || !equalJSON(asked.data, s.data) {
			return fmt.Errorf("event %d: the %s of %s is not what the code computes for %s", s.event, s.where, s.name, asked.name)
		}
	}
	return nil
}

func (w *witness) InterceptWorkflow(_ workflow.Context, next interceptor.WorkflowInboundInterceptor) interceptor.WorkflowInboundInterceptor {
	return &inbound{interceptor.WorkflowInboundInterceptorBase{Next: next}, w}
}

type inbound struct {
	interceptor.WorkflowInboundInterceptorBase
	w *witness
}

func (i *inbound) Init(out interceptor.WorkflowOutboundInterceptor) error {
	return i.Next.Init(&outbound{interceptor.WorkflowOutboundInterceptorBase{Next: out}, i.w})
}

type outbound struct {
	interceptor.WorkflowOutboundInterceptorBase
	w *witness
}

func (o *outbound) ExecuteActivity(ctx workflow.Context, name string, args ...any) workflow.Future {
	o.w.note(asRequest, name, args)
	return o.Next.ExecuteActivity(ctx, name, args...)
}

func (o *outbound) ExecuteChildWorkflow(ctx workflow.Context, name string, args ...any) workflow.ChildWorkflowFuture {
	o.w.note(asChild, workflow.GetChildWorkflowOptions(ctx).WorkflowID, args)
	return o.Next.ExecuteChildWorkflow(ctx, name, args...)
}

func (o *outbound) SignalExternalWorkflow(ctx workflow.Context, id, run, signal string, arg any) workflow.Future {
	o.w.note(asOutgoing, signal, []any{arg})
	return o.Next.SignalExternalWorkflow(ctx, id, run, signal, arg)
}
