package adapter

import (
	"strings"

	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/internal/identity"
)

// auditRule is one thing in an audit log that is a finding whoever reads it.
type auditRule struct {
	name, title, technique string
	verbs, resource        string // verbs by space; resource with its subresource
	accounts               bool   // only when a workload's service account asks
	severity               detection.Severity
}

// auditRules are matched in order; the first one counts.
var auditRules = []auditRule{
	{"exec", "Command run in a pod through the API server", "T1609", "create get", "pods/exec", false, detection.Medium},
	{"attach", "Attached to a pod through the API server", "T1609", "create get", "pods/attach", false, detection.Medium},
	{"ephemeral-container", "Container added to a running pod", "T1609", "patch update", "pods/ephemeralcontainers", false, detection.High},
	{"secrets-listed", "A service account listed secrets", "T1552.007", "list watch", "secrets", true, detection.High},
	{"token-requested", "A service account asked for another token", "T1528", "create", "serviceaccounts/token", true, detection.High},
	{"cluster-role-bound", "A cluster role was bound", "T1098.006", "create update patch", "clusterrolebindings", false, detection.High},
	{"role-bound", "A role was bound by a service account", "T1098.006", "create update patch", "rolebindings", true, detection.High},
	{"own-rights-asked", "A service account asked what it may do", "T1613", "create", "selfsubjectrulesreviews", true, detection.Medium},
}

// auditMapping is auditRules by name, in the form of every source's table.
var auditMapping = func() map[string]string {
	out := map[string]string{}
	for _, rule := range auditRules {
		out[rule.name] = rule.technique
	}
	return out
}()

const (
	accountPrefix = "system:serviceaccount:"
	authPrefix    = "authentication.kubernetes.io/"
)

// readAudit reads one audit event. The API server authenticated who asked, and for a bound token the pod that holds it;
// that is what the identity's link rests on.
func readAudit(r *reading) (Finding, error) {
	if stage := r.doc.read("stage"); stage != "ResponseComplete" && stage != "ResponseStarted" {
		return passedOver("a stage before the answer")
	}
	id, user := r.doc.text("auditID"), r.doc.text("user", "username")
	if id == "" || user == "" {
		return Finding{}, refuse(Invalid, "auditID, user.username", "are needed")
	}
	rule, ok := auditRuleOf(r.doc, user)
	if !ok {
		return passedOver("no rule is about it")
	}
	at, err := r.when("requestReceivedTimestamp")
	if err != nil {
		return Finding{}, err
	}
	attacks, err := r.from.attacks(rule.name, auditMapping)
	if err != nil {
		return Finding{}, err
	}
	severity, code := rule.severity, r.doc.read("responseStatus", "code")
	if strings.HasPrefix(code, "4") || strings.HasPrefix(code, "5") {
		severity = detection.Low // it was refused: an attempt
	}
	d := r.begin("kubernetes-audit/"+rule.name, rule.title, severity, at, "audit", id)
	d.Attacks = attacks
	d.Evidence["user"], d.Evidence["answer"] = user, code
	d.Evidence["request"] = r.doc.read("verb") + " " + r.doc.read("requestURI")
	ips, _ := r.doc["sourceIPs"].([]any)
	if len(ips) > 0 {
		d.Evidence["address"] = spelling(ips[0])
	}
	r.auditPlace(d, user)
	return r.finish(d)
}

func auditRuleOf(doc document, user string) (auditRule, bool) {
	resource := doc.read("objectRef", "resource")
	if sub := doc.read("objectRef", "subresource"); sub != "" {
		resource += "/" + sub
	}
	// The control plane's own controllers do all of this all day, as accounts of kube-system.
	account := strings.HasPrefix(user, accountPrefix) && !strings.HasPrefix(user, accountPrefix+"kube-system:")
	for _, rule := range auditRules {
		verb := false
		for v := range strings.FieldsSeq(rule.verbs) {
			verb = verb || v == doc.read("verb")
		}
		if verb && rule.resource == resource && (account || !rule.accounts) {
			return rule, true
		}
	}
	return auditRule{}, false
}

// auditPlace: where the caller's token is bound to a pod, that pod did it; else it happened to the object.
func (r *reading) auditPlace(d *detection.Detection, user string) {
	w := &detection.Workload{Cluster: r.from.Cluster}
	d.Workload = w
	extra := func(key string) string {
		values, _ := r.doc.holder([]string{"user", "extra", ""})[authPrefix+key].([]any)
		if len(values) != 1 {
			return ""
		}
		return name(spelling(values[0]))
	}
	namespace, account, _ := strings.Cut(strings.TrimPrefix(user, accountPrefix), ":")
	if pod := extra("pod-uid"); pod != "" && strings.HasPrefix(user, accountPrefix) {
		w.Namespace, w.PodUID, w.Pod, w.Node, w.ServiceAccount = name(namespace), pod, extra("pod-name"), extra("node-name"), name(account)
		identityOf(d, identity.Identity{Kind: identity.ServiceAccount, Scope: r.from.Cluster, Namespace: namespace, Name: account,
			UID: name(r.doc.read("user", "uid")), Link: identity.Attested, Evidence: "API server: token bound to this pod"})
		d.Evidence["object"] = r.doc.read("objectRef", "namespace") + "/" + r.doc.read("objectRef", "name")
		return
	}
	w.Namespace = name(r.doc.read("objectRef", "namespace"))
	if r.doc.read("objectRef", "resource") == "pods" {
		w.Pod = name(r.doc.read("objectRef", "name"))
	} else if strings.HasPrefix(user, accountPrefix) {
		w.Namespace = name(namespace)
		identityOf(d, identity.Identity{Kind: identity.ServiceAccount, Scope: r.from.Cluster, Namespace: namespace, Name: account,
			UID: name(r.doc.read("user", "uid")), Link: identity.Claimed, Evidence: "API server: token bound to no pod"})
	}
}
