package adapter

import (
	"strings"

	"tourniquet.dev/tourniquet/internal/detection"
)

// alertSeverities are the usual values of the label "severity"; anything else counts as medium.
var alertSeverities = map[string]detection.Severity{
	"critical": detection.Critical, "page": detection.Critical, "error": detection.High, "high": detection.High,
	"warning": detection.Medium, "medium": detection.Medium, "low": detection.Low, "info": detection.Informational, "none": detection.Informational,
}

// readAlert reads one alert of Alertmanager's webhook. Alerts are the operator's own, so there is no table of techniques:
// the source's configuration names them by "alertname".
func readAlert(r *reading) (Finding, error) {
	if r.doc.text("status") == "resolved" {
		return passedOver("resolved")
	}
	label := func(key string) string { return r.doc.text("labels", key) }
	alert := label("alertname")
	if alert == "" {
		return Finding{}, refuse(Invalid, "labels.alertname", "is missing")
	}
	began := r.doc.read("startsAt")
	at, err := r.when("startsAt")
	if err != nil {
		return Finding{}, err
	}
	attacks, err := r.from.attacks(alert, nil)
	if err != nil {
		return Finding{}, err
	}
	severity := alertSeverities[strings.ToLower(label("severity"))]
	if severity == "" {
		severity = detection.Medium
	}
	fingerprint := r.doc.text("fingerprint")
	if fingerprint == "" {
		return Finding{}, refuse(Invalid, "fingerprint", "is missing")
	}
	// An alert that fires on is sent again and again: it is one event for as long as it began at that time.
	d := r.begin("alertmanager/"+alert, first(r.doc.text("annotations", "summary"), alert), severity, at, "alertmanager", fingerprint, began)
	d.Attacks = attacks
	d.Evidence["description"] = first(r.doc.text("annotations", "description"), r.doc.text("annotations", "message"))
	w := &detection.Workload{Cluster: r.from.Cluster}
	w.Node, w.Namespace = r.doc.name("labels", "node"), r.doc.name("labels", "namespace")
	w.Pod, w.PodUID = r.doc.name("labels", "pod"), r.doc.name("labels", "uid")
	w.Container, w.ContainerID = r.doc.name("labels", "container"), container(label("container_id"))
	d.Workload = w
	return r.finish(d)
}
