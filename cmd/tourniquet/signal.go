package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.temporal.io/api/serviceerror"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/incident"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/workflows"
)

// choose finds the plans that a decision is about, and the incident's run where Temporal was asked for it.
func (k *desk) choose(ctx context.Context, d decision) ([]*plan.Plan, execution, error) {
	if plan.ValidDigest(d.plan) { // named in full: no worker has to answer
		p, err := k.load(ctx, d, d.plan)
		if err != nil {
			return nil, execution{}, err
		}
		return []*plan.Plan{p}, execution{id: workflows.IncidentWorkflowID(p.CorrelationKey)}, nil
	}
	at, err := find(ctx, k.temporal, d.incident)
	if err != nil {
		return nil, at, err
	}
	s, err := state(ctx, k.temporal, at)
	if err != nil {
		return nil, at, hinted(err, "with --plan and the whole digest no worker is needed")
	}
	digests, err := pick(d, s)
	if err != nil {
		return nil, at, err
	}
	var plans []*plan.Plan
	for _, digest := range digests {
		p, err := k.load(ctx, d, digest)
		if err != nil {
			return nil, at, err
		}
		plans = append(plans, p)
	}
	return plans, at, nil
}

// load reads a plan from the store, and refuses one of another incident.
func (k *desk) load(ctx context.Context, d decision, digest string) (*plan.Plan, error) {
	p, err := activities.LoadPlan(ctx, k.store, digest)
	if err != nil {
		return nil, err
	}
	if incident.ValidID(d.incident) && p.IncidentID != d.incident {
		return nil, refused(fmt.Errorf("plan %s is of incident %s, not of %s", short(digest), p.IncidentID, d.incident), "tourniquet incidents show "+d.incident)
	}
	if key := strings.TrimPrefix(d.incident, workflows.IncidentWorkflowID("")); keyForm.MatchString(key) && p.CorrelationKey != key {
		return nil, refused(fmt.Errorf("plan %s is of another workflow, incident/%s", short(digest), p.CorrelationKey), "")
	}
	return p, nil
}

// pick finds the digests of the plans that are on offer, or on, and that the person means.
func pick(d decision, s workflows.StateView) ([]string, error) {
	var offered []string
	offer := d.kind == authz.Approve || d.kind == authz.Deny
	for _, o := range s.Options {
		if offer && (d.option == "" || o.Option == d.option) && (d.option+d.plan != "" || o.Recommended) {
			offered = append(offered, o.Plan)
		}
	}
	for _, c := range s.Containments {
		if !offer && !c.Done {
			offered = append(offered, c.Plan)
		}
	}
	if d.plan != "" {
		digits := strings.TrimPrefix(d.plan, "sha256:")
		if len(digits) < 8 {
			return nil, usage(fmt.Errorf("--plan %q: want at least 8 digits of the digest", d.plan), "")
		}
		offered = slices.DeleteFunc(offered, func(p string) bool { return !strings.HasPrefix(p, "sha256:"+digits) })
	}
	switch {
	case len(offered) == 0 && offer:
		return nil, notFound(fmt.Errorf("incident %s offers no such plan (it is %s)", s.IncidentID, s.State), "tourniquet incidents show lists options and digests")
	case len(offered) == 0:
		return nil, notFound(fmt.Errorf("nothing of incident %s that this names is on (it is %s)", s.IncidentID, s.State), "tourniquet incidents show lists what is on")
	case len(offered) > 1 && (offer || d.plan != ""):
		return nil, usage(fmt.Errorf("%d plans fit", len(offered)), "name one by --plan and its whole digest")
	}
	return offered, nil
}

// signal brings a decision to the incident and, for one on a plan that is on, to the plan's containment. It counts when
// one of them takes it.
func (k *desk) signal(ctx context.Context, d decision, m *made, at execution) error {
	to := []execution{at}
	if d.kind != authz.Approve && d.kind != authz.Deny {
		to = append(to, execution{id: workflows.ContainmentWorkflowID(m.p.IncidentID, m.Plan)})
	}
	var gone *serviceerror.NotFound
	taken := 0
	for _, e := range to {
		err := k.temporal.SignalWorkflow(ctx, e.id, e.run, workflows.SignalDecisionMade, workflows.DecisionMade{Decision: m.envelope})
		switch {
		case err == nil:
			taken++
		case !errors.As(err, &gone):
			return fmt.Errorf("signal %s: %w", e.id, err)
		}
	}
	if taken == 0 {
		return notFound(fmt.Errorf("incident %s: no workflow of it runs any more; nothing was decided", m.p.IncidentID), "tourniquet incidents show tells how it ended")
	}
	return nil
}

// before is when the incident last said something; false when nobody answers for it, or nobody wants to wait.
func (k *desk) before(ctx context.Context, d decision, at execution) (time.Time, bool) {
	if d.wait <= 0 {
		return time.Time{}, false
	}
	s, err := state(ctx, k.temporal, at)
	if err != nil || len(s.Timeline) == 0 {
		return time.Time{}, err == nil
	}
	return s.Timeline[len(s.Timeline)-1].At, true
}

// await waits until the incident has answered every decision, and for a release or retire until nothing is on.
func (a *app) await(ctx context.Context, k *desk, d decision, all []*made, at execution, since time.Time) error {
	end := a.now().Add(d.wait)
	var last workflows.StateView
	for open := true; open && a.now().Before(end) && ctx.Err() == nil; {
		s, err := state(ctx, k.temporal, at)
		if err != nil {
			break // it is signalled; the answer comes when somebody is there to give it
		}
		last, open = s, false
		for _, m := range all {
			m.Answer = answer(s, m, since)
			ends := d.kind == authz.Release || d.kind == authz.Retire
			open = open || m.Answer == "" || ends && !hadNoEffect(m.Answer) && !done(s, m.Plan)
		}
		if open {
			pause(ctx, 200*time.Millisecond)
		}
	}
	var errs []error
	for _, m := range all {
		line := "signed and signalled; no answer yet"
		if m.Answer != "" {
			line = m.Answer
		}
		if !a.asJSON {
			a.printf("decision %s: %s\n", short(m.Decision), plain(line))
		}
		if hadNoEffect(m.Answer) {
			errs = append(errs, refused(errors.New(plain(m.Answer)), ""))
		}
	}
	for _, c := range last.Containments {
		if !a.asJSON && slices.ContainsFunc(all, func(m *made) bool { return m.Plan == c.Plan }) {
			a.tellContainment(c)
		}
	}
	return errors.Join(errs...)
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// answer is the line of the incident's story, after a moment, that speaks of this decision.
func answer(s workflows.StateView, m *made, since time.Time) string {
	digest := short(m.Plan)
	says := map[authz.DecisionKind][]string{
		authz.Approve: {"plan " + digest, "approved", m.Person},
		authz.Deny:    {m.Person + " denied plan " + digest},
	}[authz.DecisionKind(m.Kind)]
	if says == nil {
		says = []string{fmt.Sprintf("%s of plan %s by %s", m.Kind, digest, m.Person)}
	}
	refusal := fmt.Sprintf("%s by %s had no effect", m.Kind, m.Person)
	for _, t := range s.Timeline {
		missing := func(word string) bool { return !strings.Contains(t.Text, word) }
		if t.At.After(since) && (strings.HasPrefix(t.Text, refusal) || !slices.ContainsFunc(says, missing)) {
			return t.Text
		}
	}
	return ""
}

func hadNoEffect(line string) bool { return strings.Contains(line, "had no effect") }

func done(s workflows.StateView, digest string) bool {
	return slices.ContainsFunc(s.Containments, func(c workflows.ContainmentChanged) bool { return c.Plan == digest && c.Done })
}
