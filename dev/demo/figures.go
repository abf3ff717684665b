package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/history/v1"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/sys/store"
	"tourniquet.dev/tourniquet/workflows"
)

// A figure is one measured number. Absent fields do not apply.
type figure struct {
	Name  string   `json:"name"`
	Value float64  `json:"value"`
	Unit  string   `json:"unit"`
	N     int      `json:"n,omitempty"`
	P50   *float64 `json:"p50,omitempty"`
	P99   *float64 `json:"p99,omitempty"`
	Note  string   `json:"note,omitempty"`
}

func (d *demo) figure(name string, value float64, unit, note string) {
	d.figures = append(d.figures, figure{Name: name, Value: value, Unit: unit, N: 1, Note: note})
}

func (d *demo) between(name string, from, to time.Time, note string) {
	if from.IsZero() || to.IsZero() {
		d.fail("figure %s could not be measured", name)
		return
	}
	d.figure(name, float64(to.Sub(from).Microseconds())/1000, "ms", note)
}

// measure prints the times of each stage and every figure, and writes them to a file.
func (d *demo) measure(ctx context.Context, held, closed workflows.StateView, clicked time.Time) error {
	first := closed.Detections[0]
	for _, o := range closed.Detections {
		if o.Time.Before(first.Time) {
			first = o
		}
	}
	stages, err := d.stages(ctx, closed)
	if err != nil {
		return err
	}
	if err := d.eyes(ctx, closed); err != nil {
		return err
	}
	const since = "from the kernel's time of the attack's first system call that a rule matched"
	d.between("detection_spooled", first.Time, first.SpoolAt, since+" to intake's disk")
	d.between("incident_running", first.Time, stages.started, since)
	d.between("first_stop_step_applied", first.Time, stages.applied[string(plan.Stop)], since+" to the answer of the first stop step")
	d.between("card_posted", first.Time, stages.card, since)
	d.between("decision_recorded", clicked, stages.decided, "from the modal's submission to the signal in the incident's history")
	d.between("first_approved_step_applied", clicked, stages.applied[string(plan.Full)], "from the modal's submission")
	d.between("all_verified", clicked, stages.verified, "from the modal's submission; IAM is given 10 s to settle before it is believed")
	wire, err := d.outside.Wire(ctx)
	if err != nil {
		return err
	}
	for _, g := range wire["beacon"].Gaps {
		d.between("last_packet_on_the_wire", first.Time, g.From, since+"; datagrams every 10 ms")
		break
	}
	d.figure("setup", d.setup.Seconds(), "s", "from make demo until all was ready, builds included; aim: 720 s with nothing cached, 30 s with everything")
	d.figure("temporal_events", float64(stages.events), "events", "of the incident and its containments")
	d.figure("temporal_history", float64(stages.bytes), "bytes", "of the incident and its containments")
	memory := d.stack.Memory()
	for _, name := range slices.Sorted(maps.Keys(memory)) {
		if memory[name] == 0 {
			d.fail("figure rss_%s could not be measured: the process is gone", name)
		}
		d.figure("rss_"+name, float64(memory[name]), "KiB", "VmHWM")
	}
	return d.printFigures(stages, first.Time, held)
}

// stages are the times that Temporal's own histories tell.
type stages struct {
	started, card, decided, verified time.Time
	applied                          map[string]time.Time // first one, by the plan's purpose
	events, bytes                    int64
}

func (d *demo) stages(ctx context.Context, v workflows.StateView) (*stages, error) {
	s := &stages{applied: map[string]time.Time{}}
	if err := d.history(ctx, d.show.id, s, func(e *history.HistoryEvent, activity string) {
		at := e.GetEventTime().AsTime()
		switch {
		case e.GetEventType() == enums.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED:
			s.started = at
		case activity == "PostCard" && s.card.IsZero():
			s.card = at
		case e.GetWorkflowExecutionSignaledEventAttributes().GetSignalName() == workflows.SignalDecisionMade && s.decided.IsZero():
			s.decided = at
		}
	}); err != nil {
		return nil, err
	}
	for _, c := range v.Containments {
		if err := d.history(ctx, workflows.ContainmentWorkflowID(v.IncidentID, c.Plan), s, func(e *history.HistoryEvent, activity string) {
			at := e.GetEventTime().AsTime()
			if activity == "ApplyStep" && (s.applied[c.Purpose].IsZero() || at.Before(s.applied[c.Purpose])) {
				s.applied[c.Purpose] = at
			}
			if activity == "VerifyStep" && at.After(s.verified) {
				s.verified = at
			}
		}); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// history visits each event; activity is the type of the one that an event completes.
func (d *demo) history(ctx context.Context, id string, s *stages, visit func(e *history.HistoryEvent, activity string)) error {
	about, err := d.show.temporal.DescribeWorkflowExecution(ctx, id, "")
	if err != nil {
		return fmt.Errorf("describe %s: %w", id, err)
	}
	s.events += about.GetWorkflowExecutionInfo().GetHistoryLength()
	s.bytes += about.GetWorkflowExecutionInfo().GetHistorySizeBytes()
	kinds := map[int64]string{}
	all := d.show.temporal.GetWorkflowHistory(ctx, id, "", false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for all.HasNext() {
		e, err := all.Next()
		if err != nil {
			return fmt.Errorf("history of %s: %w", id, err)
		}
		if a := e.GetActivityTaskScheduledEventAttributes(); a != nil {
			kinds[e.GetEventId()] = a.GetActivityType().GetName()
		}
		visit(e, kinds[e.GetActivityTaskCompletedEventAttributes().GetScheduledEventId()])
	}
	return nil
}

// eyes measures from the kernel's time of each event to its arrival in user space, by the signed detections.
func (d *demo) eyes(ctx context.Context, v workflows.StateView) error {
	blobs, err := store.OpenReader(store.Options{Dir: d.stack.Path("store")})
	if err != nil {
		return err
	}
	var all []float64
	for _, o := range v.Detections {
		data, err := blobs.Get(ctx, o.Digest)
		if err != nil {
			return fmt.Errorf("read detection: %w", err)
		}
		e, err := authz.DecodeEnvelope(data)
		if err != nil {
			return err
		}
		raw, err := e.Raw()
		if err != nil {
			return err
		}
		var seen detection.Detection
		if err := json.Unmarshal(raw, &seen); err != nil {
			return err
		}
		if seen.SeenNS > seen.KernelNS {
			all = append(all, float64(seen.SeenNS-seen.KernelNS)/1e6)
		}
	}
	if len(all) == 0 {
		if d.machine.whole() {
			d.fail("figure event_in_user_space could not be measured")
		}
		return nil // a recording's events have no kernel's time of now
	}
	first := all[0]
	slices.Sort(all)
	p50, p99 := all[len(all)/2], all[len(all)-1]
	d.figures = append(d.figures, figure{Name: "event_in_user_space", Value: first, Unit: "ms", N: len(all), P50: &p50, P99: &p99,
		Note: "from the kernel's time of a system call to the sensor, by the signed detections; p99 of few is the worst"})
	return nil
}

func (d *demo) printFigures(s *stages, first time.Time, held workflows.StateView) error {
	d.say("what happened when, after the attack's first system call:")
	for _, line := range []struct {
		what string
		at   time.Time
	}{{"the incident's workflow runs", s.started}, {"the first stop step is applied", s.applied[string(plan.Stop)]}, {"the card is posted", s.card},
		{"the decision is recorded", s.decided}, {"the first approved step is applied", s.applied[string(plan.Full)]}, {"the last step is verified", s.verified}} {
		fmt.Fprintf(d.out, "  %9.3f s  %s\n", line.at.Sub(first).Seconds(), line.what)
	}
	f, err := os.Create(filepath.Join(d.stack.Path(), "figures.jsonl"))
	if err != nil {
		return fmt.Errorf("write figures: %w", err)
	}
	defer f.Close()
	for _, fig := range d.figures {
		text, err := json.Marshal(fig)
		if err != nil {
			return err
		}
		fmt.Fprintln(d.out, string(text))
		if _, err := fmt.Fprintln(f, string(text)); err != nil {
			return fmt.Errorf("write figures: %w", err)
		}
	}
	return nil
}
