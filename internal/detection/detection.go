// Package detection is what detectors report, shaped after OCSF's Detection Finding (class 2004). It validates,
// bounds and redacts what comes from outside, and says under which key detections belong together. Everything in a
// Detection may be an attacker's text; it never becomes a message, a template or a query here.
package detection

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"time"
	"unicode/utf8"

	"tourniquet.dev/tourniquet/internal/identity"
)

// MaxBytes bounds an encoded detection; a larger one is refused.
const MaxBytes = 256 << 10

// Severity is how bad a finding is, in OCSF's words (severity_id 1 to 6).
type Severity string

// The severities, from the least to the worst.
const (
	Informational Severity = "informational"
	Low           Severity = "low"
	Medium        Severity = "medium"
	High          Severity = "high"
	Critical      Severity = "critical"
)

// Rank orders severities: 0 for an unknown one, 5 for critical.
func (s Severity) Rank() int {
	switch s {
	case Informational:
		return 1
	case Low:
		return 2
	case Medium:
		return 3
	case High:
		return 4
	case Critical:
		return 5
	}
	return 0
}

// Valid reports whether s is one of the known severities.
func (s Severity) Valid() bool { return s.Rank() > 0 }

// SourceKind says which sort of detector reported.
type SourceKind string

const (
	// Sensor is our own node agent, whose signature covers the detection.
	Sensor SourceKind = "sensor"
	// ThirdParty is another detector; the intake that took its event signed the detection.
	ThirdParty SourceKind = "third-party"
)

// Source is who reported.
type Source struct {
	Kind SourceKind `json:"kind"`
	// Name is the node of a sensor, or the configured name of a third-party source.
	Name string `json:"name"`
	// UID is the reporter's own id of the event: (boot id, sequence) for the sensor.
	UID string `json:"uid"`
}

// Workload is where it happened. OwnerUID is the UID of the object that owns the pod, or the pod's own.
type Workload struct {
	Cluster        string `json:"cluster"`
	Node           string `json:"node,omitempty"`
	Namespace      string `json:"namespace"`
	Pod            string `json:"pod,omitempty"`
	PodUID         string `json:"pod_uid,omitempty"`
	OwnerKind      string `json:"owner_kind,omitempty"`
	OwnerName      string `json:"owner_name,omitempty"`
	OwnerUID       string `json:"owner_uid,omitempty"`
	Container      string `json:"container,omitempty"`
	ContainerID    string `json:"container_id,omitempty"`
	ServiceAccount string `json:"service_account,omitempty"`
	CgroupID       uint64 `json:"cgroup_id,omitempty,string"`
}

// Process is one process of the ancestry, youngest first in Detection.Processes.
type Process struct {
	PID  uint32   `json:"pid"`
	PPID uint32   `json:"ppid,omitempty"`
	UID  uint32   `json:"uid"`
	Comm string   `json:"comm"`
	Exe  string   `json:"exe,omitempty"`
	Args []string `json:"args,omitempty"`
}

// Attack maps a finding to MITRE ATT&CK. Version is the matrix's, such as "19".
type Attack struct {
	TechniqueID string `json:"technique_id"`
	TacticID    string `json:"tactic,omitempty"`
	Version     string `json:"version"`
}

// Detection is one finding. Times are UTC; KernelNS is the monotonic time of the system call, for latency figures.
type Detection struct {
	V          int                 `json:"v"`
	UID        string              `json:"uid"`
	Time       time.Time           `json:"time"`
	KernelNS   uint64              `json:"kernel_ns,omitempty,string"`
	SeenNS     uint64              `json:"seen_ns,omitempty,string"`
	Source     Source              `json:"source"`
	Rule       string              `json:"rule"`
	Title      string              `json:"title"`
	Severity   Severity            `json:"severity"`
	Confidence int                 `json:"confidence"`
	Attacks    []Attack            `json:"attacks"`
	Workload   *Workload           `json:"workload,omitempty"`
	Processes  []Process           `json:"processes,omitempty"`
	Identities []identity.Identity `json:"identities,omitempty"`
	// Evidence is short facts of the finding: the path opened, the address connected to. Values are untrusted text.
	Evidence map[string]string `json:"evidence,omitempty"`
	// Unmapped keeps what a foreign format said and ours has no place for.
	Unmapped map[string]string `json:"unmapped,omitempty"`
}

// Version is the version of the Detection format that this code writes and reads.
const Version = 1

var (
	techniqueID = regexp.MustCompile(`^T[0-9]{4}(\.[0-9]{3})?$`)
	token       = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:/@=+-]{0,252}$`)
)

// Validate reports every field that is not what it must be, with its path.
func (d *Detection) Validate() error {
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %s", field, fmt.Sprintf(format, args...)))
	}
	if d.V != Version {
		bad("v", "is %d, want %d", d.V, Version)
	}
	if !token.MatchString(d.UID) {
		bad("uid", "%.40q is not a plain id of at most 253 characters", d.UID)
	}
	if d.Time.IsZero() {
		bad("time", "is missing")
	}
	if d.Source.Kind != Sensor && d.Source.Kind != ThirdParty {
		bad("source.kind", "%.40q is neither sensor nor third-party", d.Source.Kind)
	}
	if !token.MatchString(d.Source.Name) {
		bad("source.name", "%.40q is not a plain name", d.Source.Name)
	}
	if !token.MatchString(d.Rule) {
		bad("rule", "%.40q is not a plain name", d.Rule)
	}
	if d.Title == "" || len(d.Title) > 200 || !utf8.ValidString(d.Title) {
		bad("title", "must be 1 to 200 bytes of UTF-8")
	}
	if !d.Severity.Valid() {
		bad("severity", "%.40q is not informational, low, medium, high or critical", d.Severity)
	}
	if d.Confidence < 0 || d.Confidence > 100 {
		bad("confidence", "%d is not between 0 and 100", d.Confidence)
	}
	if len(d.Attacks) == 0 || len(d.Attacks) > 16 {
		bad("attacks", "has %d entries, want 1 to 16", len(d.Attacks))
	}
	for i, a := range d.Attacks {
		if !techniqueID.MatchString(a.TechniqueID) || a.Version == "" || len(a.Version) > 8 {
			bad(fmt.Sprintf("attacks[%d]", i), "want a technique such as T1552.005 with the matrix version")
		}
	}
	errs = append(errs, d.validateSubject()...)
	return errors.Join(errs...)
}

func (d *Detection) validateSubject() []error {
	var errs []error
	if d.Workload == nil && len(d.Identities) == 0 {
		errs = append(errs, errors.New("workload, identities: one of them is needed"))
	}
	if w := d.Workload; w != nil {
		if !token.MatchString(w.Cluster) || !token.MatchString(w.Namespace) {
			errs = append(errs, errors.New("workload.cluster, workload.namespace: plain names are needed"))
		}
		if w.OwnerUID == "" && w.PodUID == "" {
			errs = append(errs, errors.New("workload.owner_uid: the owner's or the pod's UID is needed"))
		}
		for name, v := range map[string]string{"pod": w.Pod, "pod_uid": w.PodUID, "owner_uid": w.OwnerUID, "node": w.Node,
			"service_account": w.ServiceAccount, "container_id": w.ContainerID, "container": w.Container,
			"owner_kind": w.OwnerKind, "owner_name": w.OwnerName} {
			if v != "" && !token.MatchString(v) {
				errs = append(errs, fmt.Errorf("workload.%s: %.40q is not a plain name", name, v))
			}
		}
	}
	if len(d.Identities) > 16 || len(d.Processes) > 32 || len(d.Evidence) > 32 || len(d.Unmapped) > 256 {
		errs = append(errs, errors.New("identities, processes, evidence, unmapped: at most 16, 32, 32 and 256 entries"))
	}
	for i, id := range d.Identities {
		if err := id.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("identities[%d]: %w", i, err))
		}
	}
	return errs
}

// Key is the correlation key: cluster and workload (its owner's UID), or account and identity where there is no
// workload. It is opaque: a hash, so that it can stand in a workflow id.
func (d *Detection) Key() string {
	var raw string
	switch {
	case d.Workload != nil && d.Workload.OwnerUID != "":
		raw = "workload\x00" + d.Workload.Cluster + "\x00" + d.Workload.OwnerUID
	case d.Workload != nil:
		raw = "workload\x00" + d.Workload.Cluster + "\x00" + d.Workload.PodUID
	case len(d.Identities) > 0:
		raw = "identity\x00" + d.Identities[0].Key()
	default:
		raw = "none\x00" + d.UID
	}
	sum := sha256.Sum256([]byte(raw))
	return hex.EncodeToString(sum[:10])
}
