package plan

import (
	"fmt"
	"regexp"
)

// What the Kubernetes actions write; activities/kubernetes has the same words; test/actions compares them.
const (
	keyQuarantine = "tourniquet.dev/quarantine"
	keyPod        = "tourniquet.dev/pod"
	keyIncident   = "tourniquet.dev/incident"
	keyIntent     = "tourniquet.dev/intent"
	keyPreImage   = "tourniquet.dev/pre-image"
	keyRemoved    = "tourniquet.dev/removed"

	systemNamespace = "tourniquet-system"
	blockedPods     = "tourniquet-blocked-pods"
	rbacGroup       = "rbac.authorization.k8s.io"
)

var podUIDForm = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// object is a Kubernetes object as far as views write one. Members are in the order in which people read them.
type object struct {
	APIVersion string            `yaml:"apiVersion"`
	Kind       string            `yaml:"kind"`
	Metadata   metadata          `yaml:"metadata"`
	Spec       any               `yaml:"spec,omitempty"`
	Data       map[string]string `yaml:"data,omitempty"`
}

type metadata struct {
	Name        string            `yaml:"name"`
	Namespace   string            `yaml:"namespace"`
	Labels      map[string]string `yaml:"labels,omitempty"`
	Annotations map[string]string `yaml:"annotations,omitempty"`
}

type networkPolicySpec struct {
	PodSelector struct {
		MatchLabels map[string]string `yaml:"matchLabels"`
	} `yaml:"podSelector"`
	PolicyTypes []string `yaml:"policyTypes"`
}

// operation is one of a JSON patch.
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

type subject struct {
	Kind      string `json:"kind"`
	APIGroup  string `json:"apiGroup,omitempty"`
	Name      string `json:"name"`
	Namespace string `json:"namespace,omitempty"`
}

// kubectl is a command in the step's cluster and namespace. Values hang on their option and names on their kind, so that
// none can be taken for an option.
func (d *drawing) kubectl(namespace string, words ...string) command {
	c := command{"kubectl", "--context=" + d.step.Target.Scope}
	if namespace != "" {
		c = append(c, "--namespace="+namespace)
	}
	return append(c, words...)
}

func drawIsolatePod(d *drawing) {
	t := d.step.Target
	spec := networkPolicySpec{PolicyTypes: []string{"Ingress", "Egress"}}
	spec.PodSelector.MatchLabels = map[string]string{keyQuarantine: d.plan.IncidentID}
	policy := object{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy", Spec: spec, Metadata: metadata{Name: d.object(), Namespace: t.Namespace,
		Labels:      map[string]string{keyIncident: d.plan.IncidentID, keyPod: t.UID},
		Annotations: map[string]string{keyIntent: "<intent>"}}}
	manifest, labels, inPlace := "policy.yaml", "labels.json", "label-in-place.json"
	d.document("A NetworkPolicy that lets nothing in or out of the quarantined pod", manifest, YAML, policy, nil,
		"A network plugin has to enforce it; established connections may live on, and a policy of others that allows adds to it.")
	same := operation{"test", "/metadata/uid", t.UID}
	d.document("The pod's labels swapped, so that Services and its controller let go of it", labels, JSON,
		[]operation{same, {"add", "/metadata/labels", map[string]string{keyQuarantine: d.plan.IncidentID}}},
		[]operation{same, {"add", "/metadata/labels", map[string]string{"<label before>": "<its value>"}}},
		"For a pod of a ReplicaSet or ReplicationController, or of no controller. The patch fails on any other pod of that name.")
	path := "/metadata/labels/tourniquet.dev~1quarantine"
	d.document("Instead, for a pod of any other controller: the label added in place", inPlace, JSON,
		[]operation{same, {"add", path, d.plan.IncidentID}}, []operation{same, {Op: "remove", Path: path}},
		"A controller whose pods have an identity, a volume or a node would make a second one that clashes with this one.")
	pod := "pod/" + t.Name
	d.commands("The commands", "isolate.sh", []command{
		d.kubectl(t.Namespace, "apply", "--filename="+d.file(manifest)),
		d.kubectl(t.Namespace, "annotate", pod, keyPreImage+"=<labels before>"),
		d.kubectl(t.Namespace, "patch", pod, "--type=json", "--patch-file="+d.file(labels)),
	}, []command{
		d.kubectl(t.Namespace, "patch", pod, "--type=json", "--patch-file="+undoName(d.file(labels))),
		d.kubectl(t.Namespace, "annotate", pod, keyPreImage+"-"),
		d.kubectl(t.Namespace, "delete", "networkpolicy/"+d.object()),
	}, d.ending()+" The signed hold that the enforcer leaves on the pod cannot be made by hand.")
}

func drawCutRBAC(d *drawing) {
	t := d.step.Target
	named := []struct {
		title, kind string
		who         subject
	}{
		{"The account taken off a binding that names it as a service account", "subject.json", subject{Kind: "ServiceAccount", Name: t.Name, Namespace: t.Namespace}},
		{"The same, where the binding names it as a user", "user.json", subject{Kind: "User", APIGroup: rbacGroup, Name: "system:serviceaccount:" + t.Namespace + ":" + t.Name}},
	}
	for _, n := range named {
		same, at := operation{"test", "/metadata/uid", "<binding uid>"}, "/subjects/<index>"
		d.document(n.title, n.kind, JSON,
			[]operation{same, {"test", at, n.who}, {Op: "remove", Path: at}},
			[]operation{same, {"add", at, n.who}},
			"Once for each binding that names the account; <index> counts its subjects from 0. A binding left with none needs an empty list before its subject can come back.")
	}
	each := func(file string, annotation string) []command {
		return []command{
			d.kubectl(t.Namespace, "patch", "rolebinding/<binding>", "--type=json", "--patch-file="+file),
			d.kubectl(t.Namespace, "annotate", "rolebinding/<binding>", annotation),
			d.kubectl("", "patch", "clusterrolebinding/<binding>", "--type=json", "--patch-file="+file),
			d.kubectl("", "annotate", "clusterrolebinding/<binding>", annotation),
		}
	}
	subjects := d.file("subject.json")
	apply := append([]command{d.kubectl("", "get", "rolebindings,clusterrolebindings", "--all-namespaces", "--output=yaml")},
		each(subjects, keyRemoved+"=ServiceAccount/"+t.Namespace+"/"+t.Name)...)
	undo := each(undoName(subjects), keyRemoved+"-")
	limit := ""
	if d.step.Closure != nil {
		limit = fmt.Sprintf(" The plan allows at most %d bindings.", d.step.Closure.Max)
	}
	d.commands("The commands", "cut-rbac.sh", apply, undo,
		"The enforcer finds the bindings when it acts; a role binding may stand in another namespace."+limit+" Rights that come by group stay. "+d.ending())
}

func drawBlockWrites(d *drawing) {
	uid := d.step.Target.UID
	if !podUIDForm.MatchString(uid) {
		uid = "<pod uid>" // the enforcer refuses it too: a comma in it would list others
	}
	list := func(pods string) object {
		return object{APIVersion: "v1", Kind: "ConfigMap", Metadata: metadata{Name: blockedPods, Namespace: systemNamespace}, Data: map[string]string{"pods": pods}}
	}
	file := "blocked-pods.yaml"
	d.document("The pod on the list of the write block that was installed in peacetime", file, YAML, list("<uids on the list>,"+uid), list("<uids on the list>"),
		"Changes nothing but the list. Reads go on, and so does a token that is bound to no pod.")
	patch := func(file string) []command {
		return []command{
			d.kubectl(systemNamespace, "get", "configmap/"+blockedPods, "--output=yaml"),
			d.kubectl(systemNamespace, "patch", "configmap/"+blockedPods, "--type=merge", "--patch-file="+file),
		}
	}
	d.commands("The commands", "block-writes.sh", patch(d.file(file)), patch(undoName(d.file(file))), d.ending())
}

// order has the members of authz.Order, in its words.
type order struct {
	V          int    `yaml:"v"`
	Key        string `yaml:"key"`
	IncidentID string `yaml:"incident_id"`
	PlanDigest string `yaml:"plan_digest"`
	Step       int    `yaml:"step"`
	Action     Action `yaml:"action"`
	Cluster    string `yaml:"cluster"`
	Namespace  string `yaml:"namespace"`
	Pod        string `yaml:"pod"`
	PodUID     string `yaml:"pod_uid"`
	Lift       bool   `yaml:"lift,omitempty"`
	IssuedAt   string `yaml:"issued_at"`
	Until      string `yaml:"until"`
}

func drawOrder(d *drawing) {
	t, e := d.step.Target, d.entry
	o := order{V: 1, Key: "<intent>", IncidentID: d.plan.IncidentID, PlanDigest: d.digest, Step: d.step.Index, Action: d.step.Action,
		Cluster: t.Scope, Namespace: t.Namespace, Pod: t.Name, PodUID: t.UID, IssuedAt: "<now>", Until: "<now> + " + length(d.step.Duration())}
	var undo any
	if e.Reversible {
		lift := o
		lift.Lift, lift.Until = true, "<end of the order, at least 10m from now>"
		undo = lift
	}
	d.document("The order to the node: "+e.Title, "order.yaml", YAML, o, undo,
		"To read only: the node obeys it signed by contain-kubernetes, as the annotation tourniquet.dev/order.<intent> on the pod. "+e.Does+" "+e.Collateral+" The order is good for "+length(d.step.Duration())+".")
}
