// Package kubernetes cuts off and investigates workloads: the Actions and Readers of the kubernetes/* kinds and of
// the node/* kinds (as signed orders on the pod), and the facts of a pod. The contain-kubernetes worker builds a System
// under the leashed account and calls Actions through the gate; the investigate worker builds one under the read-only
// account and calls Readers and Workload. It never deletes a pod, reads a secret, edits a policy of others, or talks to
// a node.
package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	client "k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/trust"
)

// What we write on objects. Every key of ours begins with Prefix; the leash lets our account write no other.
const (
	Prefix = "tourniquet.dev/"
	// LabelQuarantine holds the incident's id on a quarantined pod, and is what our NetworkPolicies select.
	LabelQuarantine = Prefix + "quarantine"
	// LabelPod holds a pod's UID on the objects that we made for it, LabelIncident the incident's id.
	LabelPod      = Prefix + "pod"
	LabelIncident = Prefix + "incident"
	// AnnotationIntent holds the key of the intent that an object of ours was made for.
	AnnotationIntent = Prefix + "intent"
	// AnnotationPreImage holds the labels that were taken off a pod: k=v, sorted, with commas between.
	AnnotationPreImage = Prefix + "pre-image"
	// AnnotationRemoved holds the subjects that were taken off a binding: kind/namespace/name, with commas between.
	AnnotationRemoved = Prefix + "removed"
	// AnnotationHold holds the signed Hold.
	AnnotationHold = Prefix + "hold"
	// AnnotationOrder, with the intent's short key behind it, holds a signed authz.Order for the node.
	AnnotationOrder = Prefix + "order."
)

// What is installed in peacetime, see deploy/kubernetes.
const (
	DefaultNamespace = "tourniquet-system"
	BlockedPods      = "tourniquet-blocked-pods" // ConfigMap; also the name of the policy and of its binding
	blockedKey       = "pods"
)

// Options configures a System.
type Options struct {
	// Kubeconfig is the path of the file with our own account; no default place is looked at.
	Kubeconfig string
	// Cluster is the name under which the trust file knows this cluster. The kubeconfig's CA is what pins it.
	Cluster string
	// Namespace is where the peacetime objects stand; empty: DefaultNamespace.
	Namespace string
	// QPS and Burst limit our requests; 0: 50 and 100. client-go's own 5 and 10 would stall an incident.
	QPS   float32
	Burst int
	// Timeout bounds one request; 0: 20 s.
	Timeout time.Duration
	// Signer signs holds and orders; needed by Actions only.
	Signer *authz.Signer
	// Trust checks holds and orders that stand on objects; nil: they are read back, not checked.
	Trust func() *trust.File
	// Clock is nil for the machine's.
	Clock func() time.Time
}

// System is one cluster as one of our accounts sees it. It is safe for concurrent use.
type System struct {
	options  Options
	api      client.Interface
	metadata metadata.Interface
}

// New returns the System. It calls nothing.
func New(o Options) (*System, error) {
	if o.Cluster == "" || o.Kubeconfig == "" {
		return nil, errors.New("kubernetes options: cluster and kubeconfig are needed")
	}
	if o.Namespace == "" {
		o.Namespace = DefaultNamespace
	}
	if o.QPS == 0 {
		o.QPS, o.Burst = 50, 100
	}
	if o.Timeout == 0 {
		o.Timeout = 20 * time.Second
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	config, err := restConfig(o)
	if err != nil {
		return nil, err
	}
	api, err := client.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("kubernetes client: %w", err)
	}
	meta, err := metadata.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("kubernetes metadata client: %w", err)
	}
	return &System{options: o, api: api, metadata: meta}, nil
}

func restConfig(o Options) (*rest.Config, error) {
	file, err := clientcmd.LoadFromFile(o.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", o.Kubeconfig, err)
	}
	for name, user := range file.AuthInfos {
		if user.Exec != nil || user.AuthProvider != nil || user.Impersonate != "" {
			return nil, fmt.Errorf("kubeconfig %s: user %s runs a program or impersonates; want a token or a certificate", o.Kubeconfig, name)
		}
	}
	config, err := clientcmd.NewDefaultClientConfig(*file, &clientcmd.ConfigOverrides{}).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", o.Kubeconfig, err)
	}
	if !strings.HasPrefix(config.Host, "https://") || config.Insecure {
		return nil, fmt.Errorf("kubeconfig %s: want an https server and its CA", o.Kubeconfig)
	}
	config.QPS, config.Burst, config.Timeout = o.QPS, o.Burst, o.Timeout
	config.UserAgent, config.WarningHandler = "tourniquet", rest.NoWarnings{}
	return config, nil
}

// Prove returns the cluster's name after the API server of the kubeconfig's CA has answered us. There is no wider proof:
// a cluster has no name of its own.
func (s *System) Prove(ctx context.Context) (cluster string, err error) {
	if _, err := s.api.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{}); err != nil {
		return "", apiError("prove the cluster", err, false)
	}
	return s.options.Cluster, nil
}

// Readers returns the observers of every action here, for the investigate role. None of them can write.
func (s *System) Readers() map[plan.Action]activities.Reader {
	return map[plan.Action]activities.Reader{
		plan.KubernetesIsolatePod:  isolateReader{s},
		plan.KubernetesCutRBAC:     rbacReader{s},
		plan.KubernetesBlockWrites: writesReader{s},
		plan.NodeCutNetwork:        orderReader{s},
		plan.NodeFreeze:            orderReader{s},
		plan.NodeKillPod:           orderReader{s},
	}
}

// Actions returns the actions, for the gate of contain-kubernetes. They need a Signer.
func (s *System) Actions() map[plan.Action]activities.Action {
	return map[plan.Action]activities.Action{
		plan.KubernetesIsolatePod:  isolatePod{isolateReader{s}},
		plan.KubernetesCutRBAC:     cutRBAC{rbacReader{s}},
		plan.KubernetesBlockWrites: blockWrites{writesReader{s}},
		plan.NodeCutNetwork:        nodeOrder{orderReader{s}},
		plan.NodeFreeze:            nodeOrder{orderReader{s}},
		plan.NodeKillPod:           nodeOrder{orderReader{s}},
	}
}

func (s *System) now() time.Time { return s.options.Clock().UTC().Truncate(time.Millisecond) }

// receipt is the unsigned receipt of an intent; the gate signs it.
func (s *System) receipt(in plan.Intent) plan.Receipt {
	return plan.Receipt{V: 1, By: string(plan.ContainKubernetes), Key: in.Key, IncidentID: in.IncidentID, PlanDigest: in.PlanDigest,
		Step: in.Step.Index, Action: in.Step.Action, Phase: plan.Begun, Authority: in.Authority, At: s.now(), Ends: in.Ends,
		Detail: map[string]string{}}
}

// observation is an observation without a finding.
func (s *System) observation(in plan.Intent) plan.Observation {
	return plan.Observation{V: 1, Key: in.Key, IncidentID: in.IncidentID, PlanDigest: in.PlanDigest, Step: in.Step.Index,
		Action: in.Step.Action, Finding: plan.NotHolding, At: s.now()}
}
