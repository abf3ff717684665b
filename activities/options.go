package activities

import (
	"context"
	"fmt"
	"slices"
	"time"

	"tourniquet.dev/tourniquet/internal/blast"
	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/internal/incident"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/playbook"
	"tourniquet.dev/tourniquet/internal/risk"
)

// AssessInput names everything gathered.
type AssessInput struct {
	Key        string   `json:"key"`
	Detections []string `json:"detections"`
	Facts      []string `json:"facts"`
	Gaps       []string `json:"gaps"`
}

// Option is one way to contain, with what it leaves.
type Option struct {
	Draft    Draft         `json:"draft"`
	Residual blast.Radius  `json:"residual"`
	Exposure risk.Exposure `json:"exposure"`
}

// AssessmentRecord is the stored assessment: what can be reached now, what waiting costs, and each option.
type AssessmentRecord struct {
	V       int           `json:"v"`
	Facts   []string      `json:"facts"`
	Before  blast.Radius  `json:"before"`
	Waiting risk.Exposure `json:"waiting"`
	Options []Option      `json:"options"`
	Gaps    []string      `json:"gaps,omitempty"`
}

// AssessOutput names the stored assessment and carries the drafts to be captured.
type AssessOutput struct {
	Assessment string        `json:"assessment"`
	Drafts     []Draft       `json:"drafts"`
	Score      float64       `json:"score"`
	Admin      bool          `json:"admin"`
	Waiting    risk.Exposure `json:"waiting"`
	// Witness is the best path to the most valuable asset, in words.
	Witness []string `json:"witness,omitempty"`
}

// options are the ways to contain that a full plan offers: everything, only identities, only the workload.
var options = []struct {
	name string
	keep func(plan.Action) bool
}{
	{"everything", nil},
	{"identities-only", func(x plan.Action) bool {
		return x == plan.KubernetesCutRBAC || x == plan.AWSDeactivateKeys || x == plan.AWSQuarantinePrincipal || x == plan.AWSRevokeSessions
	}},
	{"workload-only", func(x plan.Action) bool {
		return x == plan.KubernetesIsolatePod || x == plan.KubernetesBlockWrites || x.Node()
	}},
}

// Assess computes blast radius and exposure, before and after each option. Same facts, same figures.
func (a *Assessment) Assess(ctx context.Context, in AssessInput) (AssessOutput, error) {
	out, err := a.assess(ctx, in)
	return out, asTemporal(err)
}

func (a *Assessment) assess(ctx context.Context, in AssessInput) (AssessOutput, error) {
	ds, err := a.detections(ctx, in.Detections)
	if err != nil {
		return AssessOutput{}, err
	}
	policy := a.o.Policy()
	book, ok := choose(policy.Books, ds)
	if !ok {
		return AssessOutput{}, fmt.Errorf("no playbook takes these detections: %w", ErrRefused)
	}
	facts, err := loadFacts(ctx, a.o.Store, in.Facts)
	if err != nil {
		return AssessOutput{}, err
	}
	subject := widen(policy, subjectOf(policy, ds, false), facts)
	rec := AssessmentRecord{V: 1, Facts: in.Facts, Gaps: in.Gaps, Before: blast.Compute(facts, blast.Cut{})}
	seed := seedOf(incident.ID(in.Key, in.Detections[0]))
	rec.Waiting = risk.Expose(risk.Inputs{Before: rec.Before.Score, After: rec.Before.Score, Admin: rec.Before.Admin}, seed)
	for i, o := range options {
		steps := book.Playbook.Draft(plan.Full, subject, o.keep)
		if len(steps) == 0 || (i > 0 && len(steps) == len(rec.Options[0].Draft.Steps)) {
			continue
		}
		after := blast.Compute(facts, cutOf(steps, facts))
		rec.Options = append(rec.Options, Option{Draft: Draft{Option: o.name, Recommended: i == 0, Steps: steps}, Residual: after,
			Exposure: risk.Expose(risk.Inputs{Before: rec.Before.Score, After: after.Score, Admin: after.Admin, Delay: [3]time.Duration{time.Minute, 5 * time.Minute, 20 * time.Minute}}, seed)})
		if i == 0 && len(rec.Options) == 0 {
			break
		}
	}
	if len(rec.Options) == 0 {
		return AssessOutput{}, fmt.Errorf("playbook %s has no step for what was found: %w", book.Playbook.Playbook, ErrRefused)
	}
	// What another minute costs is what the recommended option saves by starting a minute sooner: doing nothing costs the same
	// however long one waits to do it.
	rec.Waiting.WaitingPerMinute = rec.Options[0].Exposure.WaitingPerMinute
	digest, err := putCanonical(ctx, a.o.Store, rec)
	if err != nil {
		return AssessOutput{}, err
	}
	out := AssessOutput{Assessment: digest, Score: rec.Before.Score, Admin: rec.Before.Admin, Waiting: rec.Waiting}
	for _, o := range rec.Options {
		out.Drafts = append(out.Drafts, o.Draft)
	}
	if len(rec.Before.Assets) > 0 {
		out.Witness = rec.Before.Assets[0].Path
	}
	return out, nil
}

// widen adds what the investigation found. It widens only what a person decides on, never a stop plan.
func widen(policy Policy, s playbook.Subject, f blast.Facts) playbook.Subject {
	s.Collateral = map[plan.Action][]string{}
	if k := f.Kubernetes; k != nil {
		s.ServiceAccount = &plan.Target{Kind: plan.ServiceAccount, Scope: k.Cluster, Namespace: k.Namespace, Name: k.ServiceAccount, UID: k.AccountUID}
		if n := len(k.Siblings); n > 0 {
			s.Collateral[plan.KubernetesCutRBAC] = []string{fmt.Sprintf("%d other pods of the service account lose its rights", n)}
		}
		for _, svc := range k.Services {
			s.Collateral[plan.KubernetesIsolatePod] = append(s.Collateral[plan.KubernetesIsolatePod], "service "+detection.Clean(svc.Name, 60)+" loses this pod")
		}
		for _, id := range k.KeyIDs {
			s.Keys = addKey(s.Keys, policy, "", id)
		}
	}
	for _, aws := range f.AWS {
		for _, session := range aws.Sessions {
			i := slices.IndexFunc(aws.Roles, func(r blast.Principal) bool { return r.ARN == session.RoleARN })
			if i < 0 || slices.ContainsFunc(s.Roles, func(t plan.Target) bool { return t.UID == aws.Roles[i].ID }) {
				continue
			}
			s.Roles = append(s.Roles, plan.Target{Kind: plan.AWSRole, Scope: aws.Account, Name: aws.Roles[i].Name, UID: aws.Roles[i].ID})
		}
	}
	return s
}

// cutOf says in the graph's terms what the steps take away.
func cutOf(steps []plan.Step, f blast.Facts) blast.Cut {
	var c blast.Cut
	for _, s := range steps {
		switch s.Action {
		case plan.NodeCutNetwork, plan.NodeFreeze, plan.NodeKillPod, plan.KubernetesIsolatePod:
			c.PodNetwork = true
		case plan.KubernetesBlockWrites:
			c.PodWrites = true
		case plan.KubernetesCutRBAC:
			c.ServiceAccount = true
		case plan.AWSDeactivateKeys, plan.AWSQuarantinePrincipal:
			for _, aws := range f.AWS {
				if aws.KeyID != s.Target.Name {
					continue
				}
				for _, k := range aws.Owner.Keys {
					c.Keys = append(c.Keys, k.ID)
				}
				if s.Action == plan.AWSQuarantinePrincipal {
					c.Principals = append(c.Principals, aws.Owner.ARN)
				}
			}
		case plan.AWSRevokeSessions:
			for _, aws := range f.AWS {
				for _, r := range aws.Roles {
					if r.ID == s.Target.UID {
						c.Sessions = append(c.Sessions, r.ARN)
					}
				}
			}
		}
	}
	return c
}

func seedOf(incidentID string) uint64 {
	var s uint64 = 14695981039346656037
	for i := range len(incidentID) {
		s = (s ^ uint64(incidentID[i])) * 1099511628211
	}
	return s
}

// LoadAssessment reads a stored assessment.
func LoadAssessment(ctx context.Context, store Lookup, digest string) (*AssessmentRecord, error) {
	rec := &AssessmentRecord{}
	return rec, loadCanonical(ctx, store, digest, rec)
}
