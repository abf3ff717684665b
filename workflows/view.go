package workflows

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/internal/incident"
)

var (
	keySeverity = temporal.NewSearchAttributeKeyKeyword(AttrSeverity)
	keyState    = temporal.NewSearchAttributeKeyKeyword(AttrState)
	keyPlaybook = temporal.NewSearchAttributeKeyKeyword(AttrPlaybook)
	keyTier     = temporal.NewSearchAttributeKeyKeyword(AttrTier)
	keyIncident = temporal.NewSearchAttributeKeyKeyword(AttrIncident)
	keyWorkload = temporal.NewSearchAttributeKeyKeyword(AttrWorkload)
	keyExposure = temporal.NewSearchAttributeKeyInt64(AttrExposure)
)

func assessOptions(summary string) workflow.ActivityOptions {
	return workflow.ActivityOptions{TaskQueue: QueueOrchestrate, Summary: summary, StartToCloseTimeout: 20 * time.Second, ScheduleToCloseTimeout: 10 * time.Minute,
		RetryPolicy: &temporal.RetryPolicy{InitialInterval: 100 * time.Millisecond, MaximumInterval: 10 * time.Second, NonRetryableErrorTypes: []string{activities.TypeRefused, activities.TypeInput}}}
}

// investigateOptions give every look a deadline: what does not answer becomes a stated gap.
func investigateOptions(summary string) workflow.ActivityOptions {
	return workflow.ActivityOptions{TaskQueue: QueueInvestigate, Summary: summary, StartToCloseTimeout: 20 * time.Second, ScheduleToCloseTimeout: 45 * time.Second,
		RetryPolicy: &temporal.RetryPolicy{InitialInterval: 200 * time.Millisecond, MaximumAttempts: 4, NonRetryableErrorTypes: []string{activities.TypeRefused, activities.TypeConflict}}}
}

// notifyOptions let a channel that is down take its time, but never the incident's.
func notifyOptions(summary string) workflow.ActivityOptions {
	return workflow.ActivityOptions{TaskQueue: QueueNotify, Summary: summary, StartToCloseTimeout: 10 * time.Second, ScheduleToCloseTimeout: time.Minute,
		RetryPolicy: &temporal.RetryPolicy{InitialInterval: 500 * time.Millisecond, MaximumInterval: 15 * time.Second, NonRetryableErrorTypes: []string{activities.TypeRefused, activities.TypeInput}}}
}

func childOptions(id, summary string) workflow.ChildWorkflowOptions {
	return workflow.ChildWorkflowOptions{WorkflowID: id, TaskQueue: QueueOrchestrate, ParentClosePolicy: enums.PARENT_CLOSE_POLICY_ABANDON,
		WorkflowIDReusePolicy: enums.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE, StaticSummary: summary}
}

// say adds a line to the incident's story.
func (r *incidentRun) say(ctx workflow.Context, text string) {
	if len(r.view.Timeline) >= 500 {
		r.view.Timeline = append(r.view.Timeline[:20:20], r.view.Timeline[21:]...)
	}
	r.view.Timeline = append(r.view.Timeline, TimelineEntry{At: workflow.Now(ctx).UTC(), Text: text})
	workflow.SetCurrentDetails(ctx, r.markdown())
}

func (r *incidentRun) state(ctx workflow.Context, s incident.State) {
	r.view.State = string(s)
	r.attributes(ctx)
	workflow.SetCurrentDetails(ctx, r.markdown())
}

// attributes brings the search attributes up to date. All values are opaque or from fixed lists.
func (r *incidentRun) attributes(ctx workflow.Context) {
	updates := []temporal.SearchAttributeUpdate{keyState.ValueSet(r.view.State), keyWorkload.ValueSet(r.in.Key)}
	for _, kv := range []struct {
		key temporal.SearchAttributeKeyKeyword
		v   string
	}{{keySeverity, r.view.Severity}, {keyPlaybook, r.view.Playbook}, {keyIncident, r.view.IncidentID}} {
		if kv.v != "" {
			updates = append(updates, kv.key.ValueSet(kv.v))
		}
	}
	tier := r.view.Tier
	if tier == "" {
		tier = "none"
	}
	updates = append(updates, keyTier.ValueSet(tier))
	if r.assess.Assessment != "" {
		updates = append(updates, keyExposure.ValueSet(r.assess.Waiting.P50))
	}
	_ = workflow.UpsertTypedSearchAttributes(ctx, updates...) // an unregistered attribute must not stop an incident
}

// close writes the report, starts the archive and ends the incident.
func (r *incidentRun) close(ctx workflow.Context, outcome string) IncidentResult {
	r.view.Tier = ""
	r.say(ctx, "closed: "+outcome)
	r.state(ctx, incident.Closed)
	res := IncidentResult{IncidentID: r.triage.IncidentID, Outcome: outcome}
	report := func(state []byte) activities.ReportInput {
		now := workflow.Now(ctx).UTC()
		return activities.ReportInput{IncidentID: orElse(r.triage.IncidentID, r.in.Key), Outcome: outcome, At: now, State: state, Evidence: r.gathered(now)}
	}
	if raw, err := json.Marshal(r.view); err == nil {
		var out activities.ReportOutput
		actx := workflow.WithActivityOptions(ctx, assessOptions("report"))
		if err := workflow.ExecuteActivity(actx, archiving.WriteReport, report(raw)).Get(ctx, &out); err == nil {
			res.Report, r.view.Report, r.view.Evidence = out.Digest, out.Digest, out.Evidence
		} else {
			workflow.GetLogger(ctx).Error("report not written", "incident_id", r.triage.IncidentID, "err", err)
		}
	}
	r.updateCard(ctx)
	info := workflow.GetInfo(ctx)
	in := ArchiveInput{IncidentID: r.triage.IncidentID, Executions: []activities.ExportInput{{WorkflowID: info.WorkflowExecution.ID, RunID: info.WorkflowExecution.RunID}}}
	for _, c := range r.view.Containments {
		in.Executions = append(in.Executions, activities.ExportInput{WorkflowID: ContainmentWorkflowID(r.triage.IncidentID, c.Plan)})
	}
	if r.triage.IncidentID != "" {
		cctx := workflow.WithChildOptions(ctx, childOptions(ArchiveWorkflowID(r.triage.IncidentID), "archive of "+r.triage.IncidentID))
		if err := workflow.ExecuteChildWorkflow(cctx, Archive, in).GetChildWorkflowExecution().Get(ctx, nil); err != nil {
			workflow.GetLogger(ctx).Error("archive not started", "incident_id", r.triage.IncidentID, "err", err)
		}
	}
	return res
}

// markdown is what the Web UI shows of the incident: where it stands, by itself.
func (r *incidentRun) markdown() string {
	v := r.view
	var b strings.Builder
	fmt.Fprintf(&b, "### %s · %s · %s\n\n", orElse(v.IncidentID, "new incident"), orElse(v.Severity, "unknown severity"), v.State)
	if r.triage.Subject != "" {
		fmt.Fprintf(&b, "%s, playbook **%s**\n\n", code(r.triage.Subject), orElse(v.Playbook, "none"))
	}
	if v.Tier != "" {
		fmt.Fprintf(&b, "**Waiting for %s until %s UTC**\n\n", v.Tier, r.card.Deadline.UTC().Format("15:04:05"))
	}
	for _, c := range v.Containments {
		b.WriteString(stepsMarkdown(c))
	}
	for _, g := range v.Gaps {
		fmt.Fprintf(&b, "- gap: %s\n", code(g))
	}
	b.WriteString("\n| time (UTC) | what |\n| --- | --- |\n")
	for _, t := range v.Timeline[max(0, len(v.Timeline)-25):] {
		fmt.Fprintf(&b, "| %s | %s |\n", t.At.UTC().Format("15:04:05.000"), code(t.Text))
	}
	return b.String()
}

func stepsMarkdown(c ContainmentChanged) string {
	var b strings.Builder
	fmt.Fprintf(&b, "**%s plan %s**", c.Purpose, short(c.Plan))
	if c.Done {
		b.WriteString(" (nothing of it is on any more)")
	}
	b.WriteString("\n\n")
	if len(c.Steps) > 0 {
		b.WriteString("| step | target | state | ends (UTC) |\n| --- | --- | --- | --- |\n")
	}
	for _, s := range c.Steps {
		ends := ""
		if !s.Ends.IsZero() {
			ends = s.Ends.UTC().Format("15:04:05") + " " + s.Expiry
		}
		fmt.Fprintf(&b, "| %s | %s | **%s** %s | %s |\n", s.Action, code(s.Target), s.State, code(s.Note), ends)
	}
	b.WriteString("\n")
	return b.String()
}

// code makes untrusted text a code span: nothing in it is markup.
func code(s string) string {
	if s == "" {
		return ""
	}
	s = strings.NewReplacer("`", "'", "|", "/", "\n", " ", "\r", " ").Replace(s)
	if len(s) > 300 {
		s = strings.ToValidUTF8(s[:300], "") + "…"
	}
	return "`" + s + "`"
}

func short(digest string) string {
	d := strings.TrimPrefix(digest, "sha256:")
	return d[:min(12, len(d))]
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
