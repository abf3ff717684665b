package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"
	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"

	"tourniquet.dev/tourniquet/internal/incident"
	"tourniquet.dev/tourniquet/workflows"
)

// askWithin bounds how long a workflow may take to answer a query: a worker has to be there for it.
const askWithin = 10 * time.Second

var keyForm = regexp.MustCompile(`^[0-9a-f]{20}$`)

// execution is one run of a workflow.
type execution struct{ id, run string }

func (a *app) incidentsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "incidents", Short: "List and show incidents", Args: cobra.NoArgs, RunE: a.do(helpOnly)}
	var f filter
	list := &cobra.Command{
		Use: "list", Short: "List incidents, the newest first",
		Long: "Lists incidents, the newest first, from Temporal's search attributes: no worker has to be running.\n\n" + codesHelp,
		Args: cobra.NoArgs,
		RunE: a.do(func(cmd *cobra.Command, _ []string) error { return a.listIncidents(cmd.Context(), f) }),
	}
	list.Flags().StringVar(&f.state, "state", "", "only in this `STATE`, such as escalated")
	list.Flags().BoolVar(&f.open, "open", false, "only those that are not closed")
	list.Flags().IntVar(&f.limit, "limit", 50, "at most `N`")
	var views bool
	show := &cobra.Command{
		Use:   "show INCIDENT",
		Short: "Show where an incident stands, and its story",
		Long: `Shows an incident: detections, options with the digests that decisions name, steps with their end, timeline. INCIDENT is
its id (i…), or its workflow key. It is the workflow that answers, so an orchestrate worker has to be running.

` + codesHelp,
		Args: cobra.ExactArgs(1),
		RunE: a.do(func(cmd *cobra.Command, args []string) error { return a.showIncident(cmd.Context(), args[0], views) }),
	}
	show.Flags().BoolVar(&views, "views", false, "show its plans as native files too, from the store")
	cmd.AddCommand(list, show, a.reportCommand())
	return cmd
}

type filter struct {
	state string
	open  bool
	limit int
}

// row is one incident of the list.
type row struct {
	Incident string    `json:"incident"`
	State    string    `json:"state"`
	Severity string    `json:"severity"`
	Playbook string    `json:"playbook"`
	Tier     string    `json:"tier"`
	Exposure int64     `json:"exposure_p50_minor,omitempty"`
	Opened   time.Time `json:"opened"`
	Status   string    `json:"status"` // of the workflow
	Key      string    `json:"key"`
}

func (a *app) listIncidents(ctx context.Context, f filter) error {
	if f.state != "" && !incident.State(f.state).Valid() {
		return usage(fmt.Errorf("--state %q is not a state", f.state), "such as triaged, escalated, contained, closed")
	}
	if f.limit < 1 || f.limit > 1000 {
		return usage(errors.New("--limit: must be between 1 and 1000"), "")
	}
	c, err := a.load()
	if err != nil {
		return err
	}
	temporal, err := c.dial(ctx)
	if err != nil {
		return err
	}
	defer temporal.Close()
	query := fmt.Sprintf("WorkflowType = '%s'", workflows.TypeIncident)
	if f.state != "" {
		query += fmt.Sprintf(" AND %s = '%s'", workflows.AttrState, f.state)
	}
	if f.open {
		query += " AND ExecutionStatus = 'Running'"
	}
	rows, err := list(ctx, temporal, query, f.limit)
	if err != nil {
		return err
	}
	return a.show(rows, func() {
		a.printf("%-14s %-12s %-9s %-28s %-16s %-20s %s\n", "INCIDENT", "STATE", "SEVERITY", "PLAYBOOK", "WAITS FOR", "OPENED (UTC)", "KEY")
		for _, r := range rows {
			a.printf("%-14s %-12s %-9s %-28s %-16s %-20s %s\n", plain(r.Incident), plain(r.State), plain(r.Severity), plain(r.Playbook), plain(r.Tier), stamp(r.Opened), r.Key)
		}
	})
}

func list(ctx context.Context, temporal client.Client, query string, limit int) ([]row, error) {
	rows := []row{}
	var token []byte
	for {
		page, err := temporal.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{Query: query, PageSize: int32(min(limit, 200)), NextPageToken: token}) // #nosec G115 -- at most 200
		if err != nil {
			return nil, fmt.Errorf("list incidents: %w", err)
		}
		for _, e := range page.GetExecutions() {
			fields := e.GetSearchAttributes().GetIndexedFields()
			r := row{Incident: word(fields[workflows.AttrIncident]), State: word(fields[workflows.AttrState]), Severity: word(fields[workflows.AttrSeverity]),
				Playbook: word(fields[workflows.AttrPlaybook]), Tier: word(fields[workflows.AttrTier]), Opened: e.GetStartTime().AsTime(),
				Status: strings.ToLower(e.GetStatus().String()), Key: strings.TrimPrefix(e.GetExecution().GetWorkflowId(), workflows.IncidentWorkflowID(""))}
			if p := fields[workflows.AttrExposure]; p != nil {
				_ = converter.GetDefaultDataConverter().FromPayload(p, &r.Exposure) // what is no number stays 0
			}
			if rows = append(rows, r); len(rows) >= limit {
				return rows, nil
			}
		}
		if token = page.GetNextPageToken(); len(token) == 0 {
			return rows, nil
		}
	}
}

// word reads a search attribute; "-" when there is none.
func word(p *commonpb.Payload) string {
	var s string
	if p == nil || converter.GetDefaultDataConverter().FromPayload(p, &s) != nil || s == "" {
		return "-"
	}
	return s
}

// find returns the run of an incident by its id, or the latest one by its workflow key.
func find(ctx context.Context, temporal client.Client, name string) (execution, error) {
	key := strings.TrimPrefix(name, workflows.IncidentWorkflowID(""))
	if keyForm.MatchString(key) {
		return execution{id: workflows.IncidentWorkflowID(key)}, nil
	}
	if !incident.ValidID(name) {
		return execution{}, usage(fmt.Errorf("%.80q is neither an incident's id nor a workflow key", name), "tourniquet incidents list shows both")
	}
	page, err := temporal.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{PageSize: 1,
		Query: fmt.Sprintf("WorkflowType = '%s' AND %s = '%s'", workflows.TypeIncident, workflows.AttrIncident, name)})
	if err != nil {
		return execution{}, fmt.Errorf("find incident %s: %w", name, err)
	}
	if len(page.GetExecutions()) == 0 {
		return execution{}, notFound(fmt.Errorf("no incident %s in this namespace", name), "tourniquet incidents list shows those that Temporal still holds")
	}
	e := page.GetExecutions()[0].GetExecution()
	return execution{e.GetWorkflowId(), e.GetRunId()}, nil
}

// state asks an incident where it stands.
func state(ctx context.Context, temporal client.Client, at execution) (workflows.StateView, error) {
	var s workflows.StateView
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	v, err := temporal.QueryWorkflow(ctx, at.id, at.run, workflows.QueryState)
	var gone *serviceerror.NotFound
	switch {
	case errors.As(err, &gone):
		return s, notFound(fmt.Errorf("%s: %w", at.id, err), "tourniquet incidents list shows those that Temporal still holds")
	case err != nil:
		return s, hinted(fmt.Errorf("ask %s for its state: %w", at.id, err), "the workflow answers by an orchestrate worker: is one running?")
	}
	if err := v.Get(&s); err != nil {
		return s, hinted(fmt.Errorf("state of %s: %w", at.id, err), "is --key-ring the one that the workers have?")
	}
	return s, nil
}

func (a *app) showIncident(ctx context.Context, name string, views bool) error {
	c, err := a.load()
	if err != nil {
		return err
	}
	temporal, err := c.dial(ctx)
	if err != nil {
		return err
	}
	defer temporal.Close()
	at, err := find(ctx, temporal, name)
	if err != nil {
		return err
	}
	s, err := state(ctx, temporal, at)
	if err != nil {
		return err
	}
	if !views {
		return a.show(s, func() { a.tell(s) })
	}
	plans, err := a.viewsOf(ctx, s)
	if err != nil {
		return err
	}
	return a.show(map[string]any{"state": s, "plans": plans}, func() {
		a.tell(s)
		for _, p := range plans {
			a.tellPlan(p)
		}
	})
}

// tell prints an incident for people.
func (a *app) tell(s workflows.StateView) {
	a.printf("incident %s  %s  %s\n", orDash(s.IncidentID), orDash(s.Severity), orDash(s.State))
	a.printf("key      %s\nplaybook %s\n", s.Key, orDash(s.Playbook))
	if s.Tier != "" {
		a.printf("waits for %s\n", plain(s.Tier))
	}
	if s.Assessment != "" {
		a.printf("assessed %s\n", s.Assessment)
	}
	if s.Report != "" {
		a.printf("report   %s\n", s.Report)
	}
	a.printf("\ndetections\n")
	for _, d := range s.Detections {
		a.printf("  %s  %-8s %s (%s, %s)\n           %s\n", stamp(d.Time), d.Severity, plain(d.Title), plain(d.Rule), plain(strings.Join(d.Attacks, " ")), d.Digest)
	}
	if len(s.Options) > 0 {
		a.printf("\noptions\n")
	}
	for _, o := range s.Options {
		mark := ""
		if o.Recommended {
			mark = ", recommended"
		}
		a.printf("  %s (leaves %.0f of 100 in reach%s)\n           plan %s\n", plain(o.Option), o.Residual, mark, o.Plan)
		for _, action := range o.Actions {
			a.printf("           - %s\n", plain(action))
		}
	}
	for _, held := range s.Containments {
		a.tellContainment(held)
	}
	for _, g := range s.Gaps {
		a.printf("gap: %s\n", plain(g))
	}
	for _, r := range s.Refused {
		a.printf("refused: %s\n", plain(r))
	}
	a.printf("\ntimeline (UTC)\n")
	for _, t := range s.Timeline {
		a.printf("  %s  %s\n", t.At.UTC().Format("2006-01-02 15:04:05.000"), plain(t.Text))
	}
}

func (a *app) tellContainment(c workflows.ContainmentChanged) {
	on := "on"
	if c.Done {
		on = "nothing of it is on any more"
	}
	a.printf("\n%s plan %s (%s)\n", plain(c.Purpose), c.Plan, on)
	for _, s := range c.Steps {
		ends := ""
		if !s.Ends.IsZero() {
			ends = fmt.Sprintf("%s at %s", s.Expiry, stamp(s.Ends))
		}
		a.printf("  %d  %-26s %-10s %s  %s\n", s.Index, plain(s.Action), plain(s.State), plain(s.Target), ends)
		for _, note := range append(nonEmpty(s.Note), s.Witnesses...) {
			a.printf("     %s\n", plain(note))
		}
	}
	if c.Note != "" {
		a.printf("  %s\n", plain(c.Note))
	}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return plain(s)
}
