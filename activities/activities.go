// Package activities holds the activity definitions, their payloads and the small interfaces they need. It knows no
// outside system: activities/<system> implement the interfaces. gate.go is the only caller of Apply and Undo.
package activities

import (
	"context"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/blast"
	"tourniquet.dev/tourniquet/internal/plan"
)

// A Reader observes one kind of change to one system. The investigate role gets Readers only. Its methods change
// nothing, may be called at any time and are safe for concurrent use.
type Reader interface {
	// Expand returns the step's own target as it is now, or what its closure finds now. A target that is gone is
	// ErrConflict.
	Expand(ctx context.Context, s plan.Step) ([]plan.Target, error)
	// Capture returns the state of the target that an undo restores, as canonical JSON with its digest.
	Capture(ctx context.Context, s plan.Step, t plan.Target) (plan.PreImage, error)
	// Verify observes the effect itself, not the API's answer to the change.
	Verify(ctx context.Context, in plan.Intent, r plan.Receipt) (plan.Observation, error)
}

// An Action makes and unmakes that change. Only the Gate calls it; both methods may be called again after a crash.
type Action interface {
	Reader
	// Apply makes the change. The same intent twice is one effect. Errors are ErrRefused, ErrConflict, ErrUnknown, or
	// anything else for "try again".
	Apply(ctx context.Context, in plan.Intent) (plan.Receipt, error)
	// Undo restores in.PreImages by compare-and-set against r.Effects' post states. It is safe if Apply never ran or
	// ran half-way. An object that someone else changed in between is ErrConflict.
	Undo(ctx context.Context, in plan.Intent, r plan.Receipt) error
}

// Blobs is the content-addressed store. Get refuses bytes that do not have the digest.
type Blobs interface {
	Put(ctx context.Context, data []byte) (digest string, err error)
	Get(ctx context.Context, digest string) ([]byte, error)
}

// Lookup is the read side of Blobs.
type Lookup interface {
	Get(ctx context.Context, digest string) ([]byte, error)
}

// Investigator gathers facts of one system, with read-only rights.
type (
	// Workloads reads what Kubernetes knows of a pod, by UID.
	Workloads interface {
		Workload(ctx context.Context, namespace, pod, podUID string) (*blast.KubernetesFacts, error)
	}
	// Identities reads what AWS knows of an access key.
	Identities interface {
		Identity(ctx context.Context, keyID string) (*blast.AWSFacts, error)
	}
)

// StepInput names one step of a stored plan. It carries no step and no target: one sent through Temporal would not be
// the plan's.
type StepInput struct {
	IncidentID string           `json:"incident_id"`
	Plan       string           `json:"plan"`
	Step       int              `json:"step"`
	Decisions  []authz.Envelope `json:"decisions,omitempty"`
}

// StepOutput is what became of a step.
type StepOutput struct {
	// Receipt is the enforcer's signed word.
	Receipt authz.Envelope `json:"receipt"`
	// Intent is what was fixed before the effect; its pre-images bear digests only.
	Intent plan.Intent `json:"intent"`
	Phase  plan.Phase  `json:"phase"`
	// Summary is a short line for the timeline.
	Summary string `json:"summary"`
}

// VerifyInput names an applied step to observe.
type VerifyInput struct {
	Intent  plan.Intent    `json:"intent"`
	Receipt authz.Envelope `json:"receipt"`
	// NodeReceipts are signed receipts of nodes that came by intake.
	NodeReceipts []authz.Envelope `json:"node_receipts,omitempty"`
}

// VerifyOutput is the read-only role's signed word.
type VerifyOutput struct {
	Observation authz.Envelope `json:"observation"`
	Finding     plan.Finding   `json:"finding"`
	Witnesses   []string       `json:"witnesses"`
}
