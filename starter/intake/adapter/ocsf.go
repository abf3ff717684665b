package adapter

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"strings"
	"time"

	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/internal/identity"
)

// findingClass is OCSF's class_uid of a Detection Finding.
const findingClass = 2004

// reported is the evidence of every link that a third party tells of: its word, which is not ours.
const reported = "reported by a third party"

// severities by OCSF's severity_id; 0 (unknown), 99 (other) and anything else count as medium.
var severities = map[int64]detection.Severity{1: detection.Informational, 2: detection.Low, 3: detection.Medium, 4: detection.High, 5: detection.Critical, 6: detection.Critical}

// confidences by OCSF's confidence_id, where there is no score.
var confidences = map[int64]int{1: 25, 2: 50, 3: 85}

// readOCSF reads a Detection Finding that came by itself. A finding keeps its uid for life: its activity and time tell its
// states apart.
func readOCSF(r *reading) (Finding, error) {
	uid := r.doc.read("finding_info", "uid")
	if uid == "" || len(uid) > 1024 {
		return Finding{}, refuse(Invalid, "finding_info.uid", "must be 1 to 1024 bytes")
	}
	if activity := r.doc.read("activity_id"); activity == "3" {
		return passedOver("closed")
	}
	e := Event{ID: uid + "/" + r.doc.read("activity_id") + "/" + r.doc.read("time"), Type: "ocsf", data: r.doc, rest: document{}}
	e.Source = first(detection.Clean(r.doc.read("metadata", "product", "uid"), 200), detection.Clean(r.doc.read("metadata", "product", "name"), 200), "ocsf")
	d, err := e.Detection(r.from, r.window)
	return Finding{Detection: d}, err
}

// finding takes what OCSF says of the finding itself.
func (e Event) finding(d *detection.Detection, from ThirdParty, w Window) {
	d.Time = e.Time
	if ms, ok := e.data.whole("time"); ok && ms > 0 && ms < 1<<45 {
		d.Time = time.UnixMilli(ms)
	}
	if d.Time.IsZero() {
		d.Time = w.Now
	}
	d.Time = d.Time.UTC().Truncate(time.Millisecond)
	d.Title = first(e.data.text("finding_info", "title"), e.data.text("message"), e.Type)
	d.Rule = plain(first(e.data.text("finding_info", "analytic", "uid"), e.data.text("finding_info", "analytic", "name"), e.Type))
	d.Severity = detection.Medium
	if id, ok := e.data.whole("severity_id"); ok && severities[id] != "" {
		d.Severity = severities[id]
	}
	d.Confidence = 50
	if id, ok := e.data.whole("confidence_id"); ok && confidences[id] > 0 {
		d.Confidence = confidences[id]
	}
	if score, ok := e.data.whole("confidence_score"); ok && score >= 0 && score <= 100 {
		d.Confidence = int(score)
	}
	d.Attacks = attacks(append(e.data.list("finding_info", "attacks"), e.data.list("attacks")...))
	if len(d.Attacks) == 0 && from.Technique != "" {
		d.Attacks = []detection.Attack{{TechniqueID: from.Technique, Version: from.AttackVersion}}
	}
}

func attacks(list []document) []detection.Attack {
	var out []detection.Attack
	for _, a := range list {
		id := first(a.read("sub_technique", "uid"), a.read("technique", "uid"))
		version := a.read("version")
		if id == "" || version == "" || len(out) == 16 {
			continue
		}
		out = append(out, detection.Attack{TechniqueID: id, TacticID: detection.Clean(a.read("tactic", "uid"), 32), Version: version})
	}
	return out
}

// resources takes the workload and the identities. A third party's link is claimed, whatever it says.
func (e Event) resources(d *detection.Detection, from ThirdParty) {
	account := first(e.data.read("cloud", "account", "uid"), from.Account)
	w := detection.Workload{Cluster: from.Cluster}
	add := func(kind identity.Kind, scope, namespace, name, uid string) {
		id := identity.Identity{Kind: kind, Scope: scope, Namespace: namespace, Name: name, UID: uid, Link: identity.Claimed, Evidence: reported}
		if id.Validate() == nil && len(d.Identities) < 16 {
			d.Identities = append(d.Identities, id)
		}
	}
	for _, r := range e.data.list("resources") {
		kind, uid, name, namespace := r.read("type"), r.read("uid"), r.read("name"), r.read("namespace")
		w.Cluster = first(r.read("cluster"), w.Cluster)
		switch strings.ToLower(kind) {
		case "pod":
			w.Pod, w.PodUID, w.Namespace = name, uid, first(namespace, w.Namespace)
		case "replicaset", "deployment", "statefulset", "daemonset", "job", "cronjob":
			w.OwnerKind, w.OwnerName, w.OwnerUID, w.Namespace = kind, name, uid, first(namespace, w.Namespace)
		case "serviceaccount":
			add(identity.ServiceAccount, first(w.Cluster, from.Cluster), namespace, name, uid)
		case "awsiamaccesskey":
			add(identity.AccessKey, account, "", first(uid, name), "")
		case "awsiamuser":
			add(identity.User, account, "", name, uid)
		case "awsiamrole":
			add(identity.Role, account, "", name, uid)
		}
	}
	if key := e.data.read("actor", "user", "credential_uid"); key != "" {
		add(identity.AccessKey, first(e.data.read("actor", "user", "account", "uid"), account), "", key, "")
	}
	if w.PodUID != "" || w.OwnerUID != "" {
		d.Workload = &w
	}
}

var notPlain = regexp.MustCompile(`[^A-Za-z0-9._:/@=+-]+`)

// plain makes a name that a detection's rule may have of any text; of a text without one it makes a digest.
func plain(s string) string {
	p := strings.Trim(notPlain.ReplaceAllString(s, "-"), "._:/@=+-")
	if p == "" {
		sum := sha256.Sum256([]byte(s))
		return "unnamed-" + hex.EncodeToString(sum[:4])
	}
	return p[:min(len(p), 128)]
}

func first(all ...string) string {
	for _, s := range all {
		if s != "" {
			return s
		}
	}
	return ""
}
