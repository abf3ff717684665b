package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/blast"
	"tourniquet.dev/tourniquet/internal/canonical"
	"tourniquet.dev/tourniquet/internal/identity"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/trust"
)

// InvestigationOptions are what the investigate role needs. Workloads or Identities may be nil: then their facts are
// stated gaps.
type InvestigationOptions struct {
	Trust      func() *trust.File
	Store      Blobs
	Workloads  Workloads
	Identities Identities
	Readers    map[plan.Action]Reader
}

// Investigation gathers facts with read-only rights.
type Investigation struct{ o InvestigationOptions }

// NewInvestigation returns the investigate role's activities.
func NewInvestigation(o InvestigationOptions) *Investigation { return &Investigation{o} }

// InvestigateInput names the signed detection to start from, and the key where an identity is meant.
type InvestigateInput struct {
	Detection string `json:"detection"`
	KeyID     string `json:"key_id,omitempty"`
}

// InvestigateOutput names the stored facts.
type InvestigateOutput struct {
	Facts   string `json:"facts"` // digest of canonical JSON in the store
	Summary string `json:"summary"`
	// KeyIDs are access keys that the workload's own specification names.
	KeyIDs []string `json:"key_ids,omitempty"`
	Gaps   []string `json:"gaps,omitempty"`
}

// InvestigateWorkload reads what Kubernetes knows of the detected pod and its service account.
func (i *Investigation) InvestigateWorkload(ctx context.Context, in InvestigateInput) (InvestigateOutput, error) {
	envs, err := LoadEnvelopes(ctx, i.o.Store, []string{in.Detection})
	if err != nil {
		return InvestigateOutput{}, asTemporal(err)
	}
	d, err := authz.OpenDetection(i.o.Trust(), envs[0])
	if err != nil {
		return InvestigateOutput{}, asTemporal(fmt.Errorf("%w: %w", err, ErrRefused))
	}
	if d.Workload == nil || d.Workload.PodUID == "" || i.o.Workloads == nil { // a node, or a container of no pod
		return InvestigateOutput{Gaps: []string{"no workload could be read"}, Summary: "no workload"}, nil
	}
	f, err := i.o.Workloads.Workload(ctx, d.Workload.Namespace, d.Workload.Pod, d.Workload.PodUID)
	if err != nil {
		return InvestigateOutput{}, asTemporal(fmt.Errorf("read workload: %w", err))
	}
	digest, err := putCanonical(ctx, i.o.Store, f)
	if err != nil {
		return InvestigateOutput{}, err
	}
	return InvestigateOutput{Facts: digest, KeyIDs: f.KeyIDs, Gaps: f.Gaps,
		Summary: fmt.Sprintf("%d rules by %d bindings, %d siblings", len(f.Rules), len(f.Bindings), len(f.Siblings))}, nil
}

// InvestigateIdentity reads what AWS knows of an access key.
func (i *Investigation) InvestigateIdentity(ctx context.Context, in InvestigateInput) (InvestigateOutput, error) {
	if !identity.ValidKeyID(in.KeyID) {
		return InvestigateOutput{}, asTemporal(fmt.Errorf("key_id: %.40q is not an access key id: %w", in.KeyID, ErrRefused))
	}
	if i.o.Identities == nil {
		return InvestigateOutput{Gaps: []string{"no AWS account is configured"}, Summary: "no AWS"}, nil
	}
	f, err := i.o.Identities.Identity(ctx, in.KeyID)
	if err != nil {
		return InvestigateOutput{}, asTemporal(fmt.Errorf("read identity: %w", err))
	}
	digest, err := putCanonical(ctx, i.o.Store, f)
	if err != nil {
		return InvestigateOutput{}, err
	}
	return InvestigateOutput{Facts: digest, Gaps: f.Gaps,
		Summary: fmt.Sprintf("%s %s, %d keys, %d sessions", f.Owner.Kind, f.Owner.Name, len(f.Owner.Keys), len(f.Sessions))}, nil
}

// CaptureInput are the steps of drafted plans.
type CaptureInput struct {
	Drafts []Draft `json:"drafts"`
}

// Draft is one option before its pre-images are known.
type Draft struct {
	Option      string      `json:"option"`
	Recommended bool        `json:"recommended"`
	Steps       []plan.Step `json:"steps"`
}

// CaptureOutput are the drafts with pre-image digests, without the steps that no longer apply.
type CaptureOutput struct {
	Drafts []Draft  `json:"drafts"`
	Gaps   []string `json:"gaps,omitempty"`
}

// CapturePreImages reads the state that each step would change. A step whose target is gone falls out as a gap.
func (i *Investigation) CapturePreImages(ctx context.Context, in CaptureInput) (CaptureOutput, error) {
	var out CaptureOutput
	seen := map[string]string{}
	for _, d := range in.Drafts {
		kept := Draft{Option: d.Option, Recommended: d.Recommended}
		for _, s := range d.Steps {
			key := string(s.Action) + "\x00" + s.Target.UID
			digest, ok := seen[key]
			if !ok {
				var err error
				if digest, err = i.image(ctx, s); errors.Is(err, ErrConflict) || errors.Is(err, ErrRefused) {
					out.Gaps = append(out.Gaps, fmt.Sprintf("%s of %s left out: %s", s.Action, s.Target, clip(err.Error())))
				} else if err != nil {
					return out, asTemporal(err)
				}
				seen[key] = digest
			}
			if digest != "" {
				s.PreImage = digest
				kept.Steps = append(kept.Steps, s)
			}
		}
		if len(kept.Steps) > 0 {
			out.Drafts = append(out.Drafts, kept)
		}
	}
	return out, nil
}

func (i *Investigation) image(ctx context.Context, s plan.Step) (string, error) {
	r, ok := i.o.Readers[s.Action]
	if !ok {
		return "", fmt.Errorf("nothing reads %s: %w", s.Action, ErrRefused)
	}
	targets, err := r.Expand(ctx, s)
	if err != nil {
		return "", fmt.Errorf("find targets of %s: %w", s.Action, err)
	}
	var images []plan.PreImage
	for _, t := range targets {
		img, err := r.Capture(ctx, s, t)
		if err != nil {
			return "", fmt.Errorf("capture %s: %w", t, err)
		}
		images = append(images, img)
	}
	return ImagesDigest(images), nil
}

func putCanonical(ctx context.Context, store Blobs, v any) (string, error) {
	data, err := canonical.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("store: %w", err)
	}
	digest, err := store.Put(ctx, data)
	if err != nil {
		return "", fmt.Errorf("store: %w", err)
	}
	return digest, nil
}

// loadFacts reads stored facts back. Which kind a digest is, its shape says: only AWS facts have an owner.
func loadFacts(ctx context.Context, store Lookup, digests []string) (blast.Facts, error) {
	var f blast.Facts
	for _, d := range digests {
		data, err := store.Get(ctx, d)
		if err != nil {
			return f, fmt.Errorf("load facts: %w", err)
		}
		var shape struct {
			PodUID string `json:"pod_uid"`
		}
		if err := json.Unmarshal(data, &shape); err != nil {
			return f, fmt.Errorf("load facts: %w", err)
		}
		if shape.PodUID != "" {
			k := &blast.KubernetesFacts{}
			if err := json.Unmarshal(data, k); err != nil {
				return f, fmt.Errorf("load facts: %w", err)
			}
			f.Kubernetes = k
			continue
		}
		var a blast.AWSFacts
		if err := json.Unmarshal(data, &a); err != nil {
			return f, fmt.Errorf("load facts: %w", err)
		}
		f.AWS = append(f.AWS, a)
	}
	return f, nil
}

func loadCanonical(ctx context.Context, store Lookup, digest string, into any) error {
	data, err := store.Get(ctx, digest)
	if err != nil {
		return fmt.Errorf("load %.19s: %w", digest, err)
	}
	return canonical.Unmarshal(data, into, 4<<20)
}
