package node

import (
	"slices"
	"strings"

	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/internal/identity"
	"tourniquet.dev/tourniquet/sensor/process"
)

// What the link of an identity to its workload rests on.
const (
	fromSpecification = "pod specification"
	fromStart         = "container start"
	fromEnvironment   = "process environment"
)

// unknownNamespace stands where no pod is known: it is no namespace, so no step can ever name it.
const unknownNamespace = "unknown"

// locate completes the workload with what the API server says of the pod.
func locate(w *detection.Workload, c process.Container, pod process.Pod, known bool) {
	if !known {
		w.Namespace = unknownNamespace
		if w.PodUID == "" { // a container of no pod
			w.OwnerKind, w.OwnerUID = "container", c.ID
		}
		return
	}
	w.Namespace, w.Pod, w.PodUID, w.ServiceAccount = pod.Namespace, pod.Name, pod.UID, pod.ServiceAccount
	w.OwnerKind, w.OwnerName, w.OwnerUID = pod.Owner.Kind, pod.Owner.Name, pod.Owner.UID
	if container, ok := pod.Container(c.ID); ok {
		w.Container = container.Name
	}
}

// identities says whose credentials are at stake. The pod's specification cannot be written by the workload, and the
// environment of its container's start could not be yet: both attest. Anything else is only claimed.
func (n *Node) identities(f found, pod process.Pod, known bool) []identity.Identity {
	var out []identity.Identity
	e := evidence{into: f.detection}
	add := func(id identity.Identity) {
		same := func(o identity.Identity) bool { return o.Key() == id.Key() }
		if id.Validate() == nil && len(out) < 16 && !slices.ContainsFunc(out, same) {
			out = append(out, id)
		}
	}
	aws := func(h process.Hints, link identity.Link, evidence string) {
		e.held(h, evidence)
		if h.AccessKeyID != "" {
			add(identity.Identity{Kind: identity.AccessKey, Scope: n.o.Account, Name: h.AccessKeyID, Link: link, Evidence: evidence})
		}
		if account, role, ok := parseRole(h.RoleARN); ok {
			add(identity.Identity{Kind: identity.Role, Scope: account, Name: role, Link: link, Evidence: evidence})
		}
	}
	for _, h := range declared(pod, f.detection.Workload.Container) { // the strongest first: add keeps the first of each
		aws(h, identity.Attested, fromSpecification)
	}
	if f.first.fresh {
		aws(f.first.hints, identity.Attested, fromStart)
	} else {
		aws(f.first.hints, identity.Claimed, fromEnvironment)
	}
	aws(n.actorHints(f), identity.Claimed, fromEnvironment)
	e.files(f.files)
	if known && pod.ServiceAccount != "" {
		add(identity.Identity{Kind: identity.ServiceAccount, Scope: n.o.Cluster, Namespace: pod.Namespace, Name: pod.ServiceAccount,
			Link: identity.Attested, Evidence: fromSpecification})
	}
	return out
}

// declared returns what the specification says of one container, or of all where it is not known which one it is.
func declared(pod process.Pod, container string) []process.Hints {
	if h, ok := pod.Declared[container]; ok || container != "" {
		return []process.Hints{h}
	}
	names := make([]string, 0, len(pod.Declared))
	for name := range pod.Declared {
		names = append(names, name)
	}
	slices.Sort(names)
	var all []process.Hints
	for _, name := range names {
		all = append(all, pod.Declared[name])
	}
	return all
}

// actorHints reads the environment of the process that did it. It may have ended since: then nothing is claimed.
func (n *Node) actorHints(f found) process.Hints {
	if n.o.Hints == nil || f.actor == f.first.id {
		return process.Hints{}
	}
	h, err := n.o.Hints(f.actor.TGID)
	if err != nil {
		return process.Hints{}
	}
	if p, ok := n.o.Tree.Get(f.actor); !ok || p.Exited != 0 { // its id may be another's by now
		return process.Hints{}
	}
	return h
}

// parseRole takes account and name out of a role's ARN. A name's path does not belong to it.
func parseRole(arn string) (account, name string, ok bool) {
	parts := strings.SplitN(arn, ":", 6)
	if len(parts) != 6 || parts[2] != "iam" || !strings.HasPrefix(parts[5], "role/") {
		return "", "", false
	}
	return parts[4], parts[5][strings.LastIndexByte(parts[5], '/')+1:], true
}
