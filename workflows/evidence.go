package workflows

import (
	"fmt"
	"slices"
	"time"

	"go.temporal.io/sdk/workflow"

	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/internal/evidence"
)

// keep lists a piece of evidence; what it says stands in the store.
func (r *incidentRun) keep(ctx workflow.Context, digest string, kind evidence.Kind, source, collector string) {
	if len(r.evidence) < evidence.MaxItems/2 {
		r.evidence = append(r.evidence, evidence.Item{Digest: digest, Kind: kind, Source: source, Collector: collector, At: workflow.Now(ctx).UTC()})
	}
}

// gathered is all evidence: the detections as intake took them, and what came after.
func (r *incidentRun) gathered(now time.Time) []evidence.Item {
	out := slices.Clone(r.evidence)
	for _, d := range r.view.Detections {
		at := d.SpoolAt
		if at.IsZero() || at.After(now) {
			at = now // another machine's clock
		}
		out = append(out, evidence.Item{Digest: d.Digest, Kind: evidence.Detection, Source: "rule " + d.Rule, Collector: "intake", At: at})
	}
	return out
}

// dropForged forgets what is no signed detection. It stays in the story, and counts as seen.
func (r *incidentRun) dropForged(ctx workflow.Context, forged []string) {
	if len(forged) == 0 {
		return
	}
	r.view.Detections = slices.DeleteFunc(slices.Clone(r.view.Detections), func(o Observed) bool { return slices.Contains(forged, o.Digest) })
	r.view.Severity = ""
	for _, o := range r.view.Detections {
		if o.Severity.Rank() > detection.Severity(r.view.Severity).Rank() {
			r.view.Severity = string(o.Severity)
		}
	}
	line := fmt.Sprintf("%d detections had no effect: nobody who may has signed them", len(forged))
	r.view.Refused = append(r.view.Refused, line)
	r.say(ctx, line)
}
