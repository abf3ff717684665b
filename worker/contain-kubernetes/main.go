// Command contain-kubernetes is the enforcer of one cluster: it judges each step itself, records it, and only then
// acts. It has no inbound port. The API server leashes its account; to nodes it speaks by signed orders on the pod.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"go.temporal.io/sdk/worker"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/activities/kubernetes"
	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/sys/keys"
	"tourniquet.dev/tourniquet/internal/trust"
	"tourniquet.dev/tourniquet/worker/role"
	"tourniquet.dev/tourniquet/workflows"
)

// config is the file given by --config.
type config struct {
	role.Config `yaml:",inline"`
	Key         string `yaml:"key"`
	Journal     string `yaml:"journal"`
	Kubernetes  struct {
		Kubeconfig string `yaml:"kubeconfig"`
		Cluster    string `yaml:"cluster"`
	} `yaml:"kubernetes"`
}

// Validate reports what of this role's own settings is not what it must be.
func (c *config) Validate() error {
	if c.Playbooks == "" || c.Key == "" || c.Journal == "" || c.Kubernetes.Kubeconfig == "" || c.Kubernetes.Cluster == "" {
		return errors.New("playbooks, key, journal, kubernetes.kubeconfig, kubernetes.cluster: are needed")
	}
	return nil
}

func main() {
	c := &config{}
	w := role.Worker{Name: "contain-kubernetes", Settings: c, Common: &c.Config, Start: c.start}
	os.Exit(w.Run(os.Args[1:], os.Stdout, os.Stderr))
}

func (c *config) start(ctx context.Context, e *role.Env) ([]worker.Worker, map[string]any, func() error, error) {
	signer, err := keys.LoadSigner(c.Key)
	if err != nil {
		return nil, nil, nil, err
	}
	system, err := kubernetes.New(kubernetes.Options{Kubeconfig: c.Kubernetes.Kubeconfig, Cluster: c.Kubernetes.Cluster, Signer: signer, Trust: e.Trust})
	if err != nil {
		return nil, nil, nil, fmt.Errorf("kubernetes: %w", err)
	}
	f := role.Enforcer{Role: trust.RoleContainKubernetes, Queue: workflows.QueueContainKubernetes, Key: c.Key, Journal: c.Journal, Standing: c.Kubernetes.Cluster,
		Prove: system.Prove, Actions: func(*authz.Signer) map[plan.Action]activities.Action { return system.Actions() }}
	workers, done, err := f.Start(ctx, e)
	return workers, map[string]any{"cluster": c.Kubernetes.Cluster}, done, err
}
