package activities

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"tourniquet.dev/tourniquet/internal/blast"
	"tourniquet.dev/tourniquet/internal/canonical"
	"tourniquet.dev/tourniquet/internal/evidence"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/risk"
)

// ReportInput is the incident's last state, as the workflow saw it, and what was gathered on the way.
type ReportInput struct {
	IncidentID string          `json:"incident_id"`
	Outcome    string          `json:"outcome,omitempty"`
	At         time.Time       `json:"at"`
	State      json.RawMessage `json:"state"`
	Evidence   []evidence.Item `json:"evidence,omitempty"`
}

// ReportOutput names the stored report and the sealed manifest of the evidence it rests on.
type ReportOutput struct {
	Digest   string `json:"digest"`
	Evidence string `json:"evidence,omitempty"`
}

// Report is the account of an incident: what happened, what could be reached before and after, what it would have cost,
// and what was done in the words of the standards.
type Report struct {
	V          int       `json:"v"`
	IncidentID string    `json:"incident_id"`
	Outcome    string    `json:"outcome,omitempty"`
	At         time.Time `json:"at"`
	// Evidence is the digest of the sealed evidence.Manifest.
	Evidence string        `json:"evidence"`
	Figures  *Figures      `json:"figures,omitempty"`
	Actions  []ActionTaken `json:"actions,omitempty"`
	// Techniques are ATT&CK ids of the detections; the envelopes in the evidence carry the matrix's version.
	Techniques []string `json:"techniques,omitempty"`
	// State is the incident's last state, with the whole timeline.
	State json.RawMessage `json:"state"`
}

// Figures compare what was in reach and at stake before with what each option leaves.
type Figures struct {
	Before  Reached                  `json:"before"`
	Waiting risk.Exposure            `json:"waiting"`
	Options map[string]OptionFigures `json:"options,omitempty"`
}

// Reached is a blast radius in short.
type Reached struct {
	Score float64  `json:"score"`
	Admin bool     `json:"admin"`
	Path  []string `json:"path,omitempty"` // to the most valuable asset
}

// OptionFigures is what one option leaves.
type OptionFigures struct {
	After    Reached       `json:"after"`
	Exposure risk.Exposure `json:"exposure"`
	Taken    bool          `json:"taken"`
}

// ActionTaken is one step that was put on, in the standards' words.
type ActionTaken struct {
	Action       string   `json:"action"`
	Target       string   `json:"target"`
	State        string   `json:"state"`
	D3FEND       []string `json:"d3fend"`
	CSF          []string `json:"csf"` // NIST CSF 2.0
	NHI          []string `json:"nhi"` // OWASP NHI Top 10
	OCSFClass    int      `json:"ocsf_class_uid"`
	OCSFActivity int      `json:"ocsf_activity_id"`
}

// reported is what the report reads of the incident's state.
type reported struct {
	Assessment string `json:"assessment"`
	Detections []struct {
		Attacks []string `json:"attacks"`
	} `json:"detections"`
	Containments []struct {
		Plan  string `json:"plan"`
		Steps []struct {
			Action string `json:"action"`
			Target string `json:"target"`
			State  string `json:"state"`
		} `json:"steps"`
	} `json:"containments"`
}

// WriteReport seals the evidence and stores the incident's report as canonical JSON.
func (a *Archiving) WriteReport(ctx context.Context, in ReportInput) (ReportOutput, error) {
	out, err := a.report(ctx, in)
	return out, asTemporal(err)
}

func (a *Archiving) report(ctx context.Context, in ReportInput) (ReportOutput, error) {
	state, err := canonical.Canonicalize(in.State)
	if err != nil {
		return ReportOutput{}, fmt.Errorf("report: %w: %w", err, ErrRefused)
	}
	var v reported
	if err := json.Unmarshal(state, &v); err != nil {
		return ReportOutput{}, fmt.Errorf("report: %w: %w", err, ErrRefused)
	}
	manifest, err := evidence.Seal(in.IncidentID, in.Evidence, in.At)
	if err != nil {
		return ReportOutput{}, fmt.Errorf("report: %w: %w", err, ErrRefused)
	}
	r := Report{V: 1, IncidentID: in.IncidentID, Outcome: in.Outcome, At: manifest.SealedAt, State: state}
	if r.Evidence, err = putCanonical(ctx, a.store, manifest); err != nil {
		return ReportOutput{}, fmt.Errorf("report: %w", err)
	}
	if r.Figures, err = a.figures(ctx, v); err != nil {
		return ReportOutput{}, fmt.Errorf("report: %w", err)
	}
	r.Actions, r.Techniques = v.actions(), v.techniques()
	digest, err := putCanonical(ctx, a.store, r)
	if err != nil {
		return ReportOutput{}, fmt.Errorf("report: %w", err)
	}
	return ReportOutput{Digest: digest, Evidence: r.Evidence}, nil
}

// figures are nil where nothing was assessed.
func (a *Archiving) figures(ctx context.Context, v reported) (*Figures, error) {
	if v.Assessment == "" {
		return nil, nil //nolint:nilnil // an incident that was never assessed has no figures
	}
	rec, err := LoadAssessment(ctx, a.store, v.Assessment)
	if err != nil {
		return nil, err
	}
	taken := map[string]bool{}
	for _, c := range v.Containments {
		p, err := LoadPlan(ctx, a.store, c.Plan)
		if err != nil {
			return nil, err
		}
		taken[p.Option] = taken[p.Option] || p.Purpose == plan.Full
	}
	f := &Figures{Before: reached(rec.Before), Waiting: rec.Waiting, Options: map[string]OptionFigures{}}
	for _, o := range rec.Options {
		f.Options[o.Draft.Option] = OptionFigures{After: reached(o.Residual), Exposure: o.Exposure, Taken: taken[o.Draft.Option]}
	}
	return f, nil
}

func reached(r blast.Radius) Reached {
	out := Reached{Score: r.Score, Admin: r.Admin}
	if len(r.Assets) > 0 {
		out.Path = r.Assets[0].Path
	}
	return out
}

func (v reported) actions() []ActionTaken {
	var out []ActionTaken
	for _, c := range v.Containments {
		for _, s := range c.Steps {
			e, known := plan.Lookup(plan.Action(s.Action))
			if !known || s.State == "intended" || s.State == "refused" {
				continue
			}
			out = append(out, ActionTaken{Action: s.Action, Target: s.Target, State: s.State, D3FEND: e.D3FEND, CSF: e.CSF, NHI: e.NHI, OCSFClass: e.OCSFClass, OCSFActivity: e.OCSFActivity})
		}
	}
	return out
}

func (v reported) techniques() []string {
	var out []string
	for _, d := range v.Detections {
		out = append(out, d.Attacks...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
