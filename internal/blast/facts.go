// Package blast works out what a compromised identity can reach: a graph with a witness path for every asset, before
// and after each containment option. It is pure: facts go in, a graph and numbers come out. The facts are gathered by
// the investigate role; what could not be read is a stated gap, never "no reach".
package blast

import "time"

// Object names one Kubernetes object.
type Object struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	UID       string `json:"uid,omitempty"`
}

// Rule is one RBAC rule that a service account holds. Namespace is empty for the whole cluster.
type Rule struct {
	Namespace     string   `json:"namespace,omitempty"`
	Binding       string   `json:"binding"`
	Role          string   `json:"role"`
	Verbs         []string `json:"verbs"`
	APIGroups     []string `json:"api_groups,omitempty"`
	Resources     []string `json:"resources,omitempty"`
	ResourceNames []string `json:"resource_names,omitempty"`
}

// KubernetesFacts are what the investigation read about a pod and its service account. No secret's content is read.
type KubernetesFacts struct {
	Cluster        string            `json:"cluster"`
	Namespace      string            `json:"namespace"`
	Pod            string            `json:"pod"`
	PodUID         string            `json:"pod_uid"`
	Node           string            `json:"node"`
	ServiceAccount string            `json:"service_account"`
	AccountUID     string            `json:"account_uid"`
	Owner          Object            `json:"owner"`
	Labels         map[string]string `json:"labels"`
	Images         []string          `json:"images"`
	HostNetwork    bool              `json:"host_network"`
	Privileged     bool              `json:"privileged"`
	HostPath       bool              `json:"host_path"`
	TokenMounted   bool              `json:"token_mounted"`
	// RoleARN is the service account's IRSA role; KeyIDs are access key ids in the pod's environment.
	RoleARN  string   `json:"role_arn,omitempty"`
	KeyIDs   []string `json:"key_ids,omitempty"`
	Rules    []Rule   `json:"rules"`
	Bindings []Object `json:"bindings"`
	Secrets  []Object `json:"secrets"`  // names of secrets in namespaces the rules reach
	Siblings []Object `json:"siblings"` // other pods of the same service account
	Services []Object `json:"services"` // services that select the pod
	Policies []Object `json:"policies"` // network policies that select the pod
	Gaps     []string `json:"gaps,omitempty"`
}

// Document is one IAM policy document, with where it hangs.
type Document struct {
	Name     string `json:"name"`
	ARN      string `json:"arn,omitempty"`
	Document string `json:"document"`
}

// Key is one access key of a user; its secret is never known here.
type Key struct {
	ID     string `json:"id"`
	Status string `json:"status"`
}

// Principal is an IAM user or role with everything that decides what it may do.
type Principal struct {
	Kind     string     `json:"kind"` // user or role
	Name     string     `json:"name"`
	ARN      string     `json:"arn"`
	ID       string     `json:"id"`
	Policies []Document `json:"policies"`
	Boundary *Document  `json:"boundary,omitempty"`
	Trust    string     `json:"trust,omitempty"`
	Keys     []Key      `json:"keys,omitempty"`
}

// Session is a set of temporary credentials that CloudTrail saw minted.
type Session struct {
	KeyID     string    `json:"key_id"`
	RoleARN   string    `json:"role_arn,omitempty"`
	IssuedAt  time.Time `json:"issued_at"`
	SourceIP  string    `json:"source_ip"`
	ParentKey string    `json:"parent_key"`
}

// Event is one CloudTrail event of the identity.
type Event struct {
	Name     string    `json:"name"`
	Time     time.Time `json:"time"`
	KeyID    string    `json:"key_id"`
	SourceIP string    `json:"source_ip"`
	Error    string    `json:"error,omitempty"`
}

// AWSFacts are what the investigation read about an access key and what hangs on it.
type AWSFacts struct {
	Account  string      `json:"account"`
	KeyID    string      `json:"key_id"`
	Owner    Principal   `json:"owner"`
	Roles    []Principal `json:"roles"` // of the account; the evaluator decides which ones are reached
	Sessions []Session   `json:"sessions"`
	Events   []Event     `json:"events"`
	Gaps     []string    `json:"gaps,omitempty"`
}

// Facts are everything an assessment starts from.
type Facts struct {
	Kubernetes *KubernetesFacts `json:"kubernetes,omitempty"`
	AWS        []AWSFacts       `json:"aws,omitempty"`
	Gaps       []string         `json:"gaps,omitempty"`
}
