// Command investigate reads, and only reads: facts, pre-images, and whether an effect is really there. It signs what it
// saw. It has read-only credentials of its own for AWS and Kubernetes, and links neither's writes into anything.
package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"time"

	"go.temporal.io/sdk/worker"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/activities/aws"
	"tourniquet.dev/tourniquet/activities/kubernetes"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/sys/keys"
	"tourniquet.dev/tourniquet/internal/trust"
	"tourniquet.dev/tourniquet/worker/role"
	"tourniquet.dev/tourniquet/workflows"
)

func main() {
	c := &config{}
	w := role.Worker{Name: "investigate", Settings: c, Common: &c.Config, Start: c.start}
	os.Exit(w.Run(os.Args[1:], os.Stdout, os.Stderr))
}

func (c *config) start(ctx context.Context, e *role.Env) ([]worker.Worker, map[string]any, func() error, error) {
	signer, err := keys.LoadSigner(c.Key)
	if err != nil {
		return nil, nil, nil, err
	}
	if e.Trust().KeysOf(trust.RoleInvestigate)[signer.KeyID()] == nil {
		return nil, nil, nil, fmt.Errorf("key %s is not an investigate key of the trust file", signer.KeyID())
	}
	blobs, err := e.Store()
	if err != nil {
		return nil, nil, nil, err
	}
	o := activities.InvestigationOptions{Trust: e.Trust, Store: blobs, Readers: map[plan.Action]activities.Reader{}}
	if err := c.systems(ctx, e, &o); err != nil {
		return nil, nil, nil, err
	}
	w := e.Worker(workflows.QueueInvestigate)
	w.RegisterActivity(activities.NewInvestigation(o))
	w.RegisterActivity(activities.NewObserver(activities.ObserverOptions{Trust: e.Trust, Signer: signer, Readers: o.Readers, Now: time.Now}))
	return []worker.Worker{w}, nil, nil, nil
}

// systems opens what is configured; what is not becomes a stated gap of every incident.
func (c *config) systems(ctx context.Context, e *role.Env, o *activities.InvestigationOptions) error {
	if c.AWS != nil {
		s, err := aws.New(aws.Options{Endpoint: c.AWS.Endpoint, Region: c.AWS.Region, Credentials: c.AWS.Credentials, Account: c.AWS.Account,
			QuarantinePolicyARN: c.AWS.QuarantinePolicyARN, Mode: c.AWS.Mode})
		if err != nil {
			return fmt.Errorf("aws: %w", err)
		}
		if _, err := s.Prove(ctx); err != nil {
			return fmt.Errorf("aws: %w", err)
		}
		o.Identities = s
		maps.Copy(o.Readers, s.Readers())
	}
	if c.Kubernetes != nil {
		s, err := kubernetes.New(kubernetes.Options{Kubeconfig: c.Kubernetes.Kubeconfig, Cluster: c.Kubernetes.Cluster, Trust: e.Trust})
		if err != nil {
			return fmt.Errorf("kubernetes: %w", err)
		}
		o.Workloads = s
		maps.Copy(o.Readers, s.Readers())
	}
	if len(o.Readers) == 0 {
		return errors.New("aws, kubernetes: at least one is needed")
	}
	return nil
}
