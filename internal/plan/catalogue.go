package plan

import "slices"

// An Action is the kind of a step, named <system>/<verb-object>.
type Action string

// The actions.
const (
	NodeCutNetwork         Action = "node/cut-network"
	NodeFreeze             Action = "node/freeze"
	NodeKillPod            Action = "node/kill-pod"
	KubernetesBlockWrites  Action = "kubernetes/block-writes"
	KubernetesCutRBAC      Action = "kubernetes/cut-rbac"
	KubernetesIsolatePod   Action = "kubernetes/isolate-pod"
	AWSQuarantinePrincipal Action = "aws/quarantine-principal"
	AWSDeactivateKeys      Action = "aws/deactivate-keys"
	AWSRevokeSessions      Action = "aws/revoke-sessions"
)

// Enforcer is the role whose process carries an action out.
type Enforcer string

// The enforcers; each is also the name of its task queue.
const (
	ContainAWS        Enforcer = "contain-aws"
	ContainKubernetes Enforcer = "contain-kubernetes"
)

// Entry is what is known of an action without touching any system.
type Entry struct {
	Action       Action
	Enforcer     Enforcer
	Title        string
	Does         string     // one plain sentence for a person who decides
	Collateral   string     // what else it may hit
	Targets      TargetKind // what a step of it names
	Closure      string     // what it may also touch, as a phrase with one %s for the target's name; empty: nothing else
	Reversible   bool
	Reviewable   bool // may stay on until people are asked again; otherwise it only knows release
	Observable   bool // something can observe its effect; otherwise it stays asserted and the card says so
	ATTACK       []string
	D3FEND       []string
	CSF          []string
	NHI          []string
	OCSFClass    int // OCSF class_uid of its remediation activity
	OCSFActivity int // OCSF activity_id: 1 Isolate, 2 Evict
}

// Catalogue is the pure list of all actions: decide, check, Judge and the planner read it without any SDK.
var Catalogue = []Entry{
	{Action: NodeCutNetwork, Enforcer: ContainKubernetes, Title: "Cut the pod's network on its node", Targets: Pod, Reversible: true, Observable: true,
		Does:       "The node's kernel drops every packet of the pod, established connections too, until the time is over.",
		Collateral: "The pod answers nobody, its health checks included.",
		D3FEND:     []string{"D3-NI"}, CSF: []string{"RS.MI-01", "PR.IR-01"}, NHI: []string{"NHI8:2025"}, OCSFClass: 7004, OCSFActivity: 1},
	{Action: NodeFreeze, Enforcer: ContainKubernetes, Title: "Freeze the pod on its node", Targets: Pod, Reversible: true, Observable: true,
		Does:       "The node stops every process of the pod where it stands, memory and connections kept, until the time is over.",
		Collateral: "The pod answers nobody; its probes fail, and what restarts it then loses the evidence. A node whose agent is dead does not thaw.",
		D3FEND:     []string{"D3-PS"}, CSF: []string{"RS.MI-01", "RS.AN-06"}, NHI: []string{"NHI8:2025"}, OCSFClass: 7002, OCSFActivity: 1},
	{Action: NodeKillPod, Enforcer: ContainKubernetes, Title: "Kill the pod's processes on its node", Targets: Pod, Observable: true,
		Does:       "The node's kernel kills every process of the pod, once; this cannot be undone.",
		Collateral: "What is only in memory is lost, evidence too; the kubelet may start the containers again.",
		D3FEND:     []string{"D3-PT"}, CSF: []string{"RS.MI-01", "RS.MI-02"}, NHI: []string{"NHI8:2025"}, OCSFClass: 7002, OCSFActivity: 2},
	{Action: KubernetesBlockWrites, Enforcer: ContainKubernetes, Title: "Block the pod's writes to the API server", Targets: Pod, Reversible: true, Reviewable: true,
		Does:       "The API server refuses every write made with a token bound to this pod; its siblings go on.",
		Collateral: "Reads go on; a token that is bound to no pod is not stopped.",
		D3FEND:     []string{"D3-APA"}, CSF: []string{"RS.MI-01", "PR.AA-05"}, NHI: []string{"NHI5:2025"}, OCSFClass: 7001, OCSFActivity: 1},
	{Action: KubernetesCutRBAC, Enforcer: ContainKubernetes, Title: "Take the service account's rights away", Targets: ServiceAccount, Closure: "bindings of service account %s", Reversible: true, Reviewable: true, Observable: true,
		Does:       "Removes the service account from every role binding that names it; the rights come back by exact restore.",
		Collateral: "Every pod of the service account loses its rights; rights that come by group stay.",
		D3FEND:     []string{"D3-APA", "D3-UAP"}, CSF: []string{"RS.MI-01", "PR.AA-05"}, NHI: []string{"NHI5:2025", "NHI9:2025"}, OCSFClass: 7001, OCSFActivity: 1},
	{Action: KubernetesIsolatePod, Enforcer: ContainKubernetes, Title: "Isolate the pod", Targets: Pod, Reversible: true, Reviewable: true,
		Does:       "Swaps the pod's labels, so that Services and its controller let go of it, and a deny-all NetworkPolicy selects it.",
		Collateral: "The pod serves nobody; its controller starts a replacement. Established connections live on.",
		D3FEND:     []string{"D3-NI"}, CSF: []string{"RS.MI-01", "PR.IR-01"}, NHI: []string{"NHI8:2025"}, OCSFClass: 7004, OCSFActivity: 1},
	{Action: AWSQuarantinePrincipal, Enforcer: ContainAWS, Title: "Quarantine the IAM principal", Targets: AccessKey, Closure: "the user that owns access key %s", Reversible: true, Reviewable: true, Observable: true,
		Does:       "Attaches the managed deny-all policy TourniquetQuarantine to the user that owns the key.",
		Collateral: "Every key, console and session of that user stops.",
		D3FEND:     []string{"D3-AL"}, CSF: []string{"RS.MI-01", "PR.AA-05"}, NHI: []string{"NHI2:2025"}, OCSFClass: 7001, OCSFActivity: 2},
	{Action: AWSDeactivateKeys, Enforcer: ContainAWS, Title: "Deactivate the access keys", Targets: AccessKey, Closure: "access keys of the user that owns %s", Reversible: true, Reviewable: true, Observable: true,
		Does:       "Sets every access key of the owning user to Inactive; none is deleted.",
		Collateral: "Everything that uses one of these keys stops.",
		D3FEND:     []string{"D3-CR"}, CSF: []string{"RS.MI-01", "PR.AA-05"}, NHI: []string{"NHI2:2025", "NHI7:2025"}, OCSFClass: 7001, OCSFActivity: 2},
	{Action: AWSRevokeSessions, Enforcer: ContainAWS, Title: "Revoke the role's sessions", Targets: AWSRole, Closure: "sessions of role %s", Reversible: true, Reviewable: true, Observable: true,
		Does:       "Denies every session of the role; in leashed mode by attaching TourniquetQuarantine, so healthy sessions too.",
		Collateral: "Every holder of the role is denied until it is released.",
		D3FEND:     []string{"D3-ST"}, CSF: []string{"RS.MI-01", "PR.AA-05"}, NHI: []string{"NHI2:2025"}, OCSFClass: 7001, OCSFActivity: 2},
}

// Lookup returns the catalogue's entry for a.
func Lookup(a Action) (Entry, bool) {
	if i := slices.IndexFunc(Catalogue, func(e Entry) bool { return e.Action == a }); i >= 0 {
		return Catalogue[i], true
	}
	return Entry{}, false
}

// Node reports whether the action is carried out by a node, on a signed order.
func (a Action) Node() bool {
	return a == NodeCutNetwork || a == NodeFreeze || a == NodeKillPod || a == NodeKillProcess
}

// NodeKillProcess is an order that a node knows; no plan has a step of it yet, so it stands in no catalogue.
const NodeKillProcess Action = "node/kill-process"

// Once reports whether the action happens at a moment and does not stay on.
func (a Action) Once() bool { return a == NodeKillPod || a == NodeKillProcess }
