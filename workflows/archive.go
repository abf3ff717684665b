package workflows

import (
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"tourniquet.dev/tourniquet/activities"
)

// ArchiveInput names the executions of one incident.
type ArchiveInput struct {
	IncidentID string                   `json:"incident_id"`
	Executions []activities.ExportInput `json:"executions"`
}

// ArchiveResult names the stored histories.
type ArchiveResult struct {
	Histories []activities.ExportOutput `json:"histories"`
}

var archiving *activities.Archiving

// Archive stores the histories of a closed incident, because Temporal's retention deletes what auditors ask for. It is
// an abandoned child: it runs after its incident has closed, and retries until the store has everything.
func Archive(ctx workflow.Context, in ArchiveInput) (ArchiveResult, error) {
	var out ArchiveResult
	// The parent closes right after it started this child; its last event must be in the export.
	if err := workflow.NewTimerWithOptions(ctx, 2*time.Second, workflow.TimerOptions{Summary: "let the incident close"}).Get(ctx, nil); err != nil {
		return out, err
	}
	actx := workflow.WithActivityOptions(ctx, workflow.ActivityOptions{TaskQueue: QueueOrchestrate, Summary: "export history", StartToCloseTimeout: time.Minute,
		ScheduleToCloseTimeout: 24 * time.Hour, RetryPolicy: &temporal.RetryPolicy{InitialInterval: time.Second, MaximumInterval: 10 * time.Minute}})
	for _, e := range in.Executions {
		var one activities.ExportOutput
		if err := workflow.ExecuteActivity(actx, archiving.ExportHistory, e).Get(ctx, &one); err != nil {
			return out, err
		}
		out.Histories = append(out.Histories, one)
	}
	return out, nil
}
