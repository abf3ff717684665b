package stack

import (
	"context"
	"fmt"
	"os"
	"time"

	"tourniquet.dev/tourniquet/deploy/kubernetes"
	"tourniquet.dev/tourniquet/dev/cluster"
)

// seedKubernetes installs what stands in a cluster in peacetime, and gives each part a kubeconfig with its own account's
// token.
func (s *Stack) seedKubernetes(ctx context.Context) error {
	config, err := s.Kubernetes.RESTConfig()
	if err != nil {
		return err
	}
	if err := kubernetes.Install(ctx, config, kubernetes.BindRole(s.opts.BindRoles, s.opts.BindClusterRoles)); err != nil {
		return err
	}
	for _, account := range []string{kubernetes.ContainAccount, kubernetes.InvestigateAccount, kubernetes.SensorAccount} {
		token, err := s.Kubernetes.ServiceAccountToken(ctx, cluster.TokenRequest{Namespace: kubernetes.Namespace, ServiceAccount: account, Lifetime: 24 * time.Hour})
		if err != nil {
			return err
		}
		file, err := s.Kubernetes.TokenKubeconfig(token)
		if err != nil {
			return err
		}
		if err := os.WriteFile(s.key(account+".kubeconfig"), file, 0o600); err != nil {
			return fmt.Errorf("write kubeconfig: %w", err)
		}
	}
	return nil
}
