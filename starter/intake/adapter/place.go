package adapter

import (
	"regexp"
	"strconv"
	"strings"

	"tourniquet.dev/tourniquet/internal/detection"
)

// Namespaces that no cluster can have, as a real one has no capitals: they say openly that a place is not a workload.
const (
	Unresolved = "UNRESOLVED" // some container or pod that could not be found out
	Host       = "HOST"       // the node itself, outside of containers
)

// EvidencePlace is the evidence that says how a third party's event came to its workload, or that it did not.
const EvidencePlace = "workload"

var nameForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:/@=+-]{0,126}$`)

// name returns s if it may stand in a workload. What detectors write for "there is none" is none.
func name(s string) string {
	switch s {
	case "<NA>", "null", "host", "none":
		return ""
	}
	if !nameForm.MatchString(s) {
		return ""
	}
	return s
}

var containerForm = regexp.MustCompile(`^[0-9a-f]{12,64}$`)

// container returns a container's id without its runtime's scheme. Detectors cut ids: 12 digits are the shortest.
func container(s string) string {
	if _, id, ok := strings.Cut(s, "://"); ok {
		s = id
	}
	if !containerForm.MatchString(s) {
		return ""
	}
	return s
}

// name takes a name that may stand in a workload; anything else stays where it is, and so gets to Unmapped.
func (d document) name(path ...string) string {
	s := name(d.read(path...))
	if s != "" {
		d.take(path...)
	}
	return s
}

// StandIn gives a place that could not be resolved a correlation key of its own, so that it still opens an incident, and
// says so. It reports whether it had to.
func StandIn(d *detection.Detection) bool {
	w := d.Workload
	if w == nil || w.PodUID != "" || w.OwnerUID != "" {
		return false
	}
	why := "unresolved: "
	switch {
	case w.ContainerID != "":
		w.OwnerKind, w.OwnerName, w.OwnerUID = "Container", short(w.ContainerID), "container:"+short(w.ContainerID)
		why += "no sensor has told of this container"
	case w.Pod != "" && w.Namespace != "":
		w.OwnerKind, w.OwnerName, w.OwnerUID = "Pod", w.Pod, "pod:"+w.Namespace+"/"+w.Pod
		why += "no sensor has told of this pod, and the event lacks its UID"
	case w.CgroupID != 0 && w.Node != "":
		id := strconv.FormatUint(w.CgroupID, 10)
		w.OwnerKind, w.OwnerName, w.OwnerUID = "Cgroup", id, "cgroup:"+w.Node+"/"+id
		why += "no sensor has told of this cgroup"
	case w.Namespace != "":
		w.OwnerKind, w.OwnerName, w.OwnerUID = "Namespace", w.Namespace, "namespace:"+w.Namespace
		why += "the event names a namespace only"
	case w.Node != "":
		w.Namespace, w.OwnerKind, w.OwnerName, w.OwnerUID = Host, "Node", w.Node, "node:"+w.Node
		why = "the node itself: the event names no container"
	default:
		w.OwnerKind, w.OwnerName, w.OwnerUID = "Source", d.Source.Name, "source:"+d.Source.Name
		why += "the event names no place at all"
	}
	if w.Namespace == "" {
		w.Namespace = Unresolved
	}
	if d.Evidence == nil {
		d.Evidence = map[string]string{}
	}
	d.Evidence[EvidencePlace] = why
	return true
}

// shortID is how much of a container's id every detector gives.
const shortID = 12

func short(id string) string { return id[:min(len(id), shortID)] }

// process is what an event says of a process. Numbers that no pid can be are left out.
func process(comm, exe, command string, pid, ppid, uid int64) detection.Process {
	number := func(n int64) uint32 {
		if n < 0 || n > 1<<31 {
			return 0
		}
		return uint32(n) // #nosec G115 -- checked above
	}
	return detection.Process{PID: number(pid), PPID: number(ppid), UID: number(uid), Comm: comm, Exe: exe, Args: strings.Fields(command)}
}
