package node

import (
	"container/list"
	"slices"
	"strings"

	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/sensor/process"
	"tourniquet.dev/tourniquet/sensor/rule"
)

// Evidence of the identities that a workload holds, beside those that can be named: names and paths, never a value that is
// secret. The first word on each is the strongest, as identities asks in that order.
const (
	evidenceRole    = "role_arn"
	evidencePod     = "pod_identity"
	evidenceToken   = "token_file"
	evidencePresent = "secrets_present"
	evidenceFiles   = "credential_files"
)

// podIdentity is where the agent of EKS Pod Identity answers. The association itself is known to AWS alone.
var podIdentity = []string{"http://169.254.170.23/", "http://[fd00:ec2::23]/"}

type evidence struct{ into *detection.Detection }

func (e evidence) say(name, value string) {
	if e.into.Evidence == nil {
		e.into.Evidence = map[string]string{}
	}
	if _, said := e.into.Evidence[name]; !said && value != "" {
		e.into.Evidence[name] = value
	}
}

// held says what an environment or a specification tells of identities, and what that rests on.
func (e evidence) held(h process.Hints, from string) {
	if h.RoleARN != "" {
		e.say(evidenceRole, h.RoleARN+" ("+from+")")
	}
	if slices.ContainsFunc(podIdentity, func(at string) bool { return strings.HasPrefix(h.FullURI, at) }) {
		e.say(evidencePod, "credentials by association ("+from+")")
	}
	if h.TokenFile != "" {
		e.say(evidenceToken, h.TokenFile+" ("+from+")")
	}
	if len(h.Present) > 0 {
		e.say(evidencePresent, strings.Join(h.Present, ", ")+" ("+from+")")
	}
}

func (e evidence) files(paths []string) { e.say(evidenceFiles, strings.Join(paths, ", ")) }

const (
	maxOpened     = 4096 // process trees
	maxOpenedEach = 8
)

// opened remembers which credential files a process tree opened: those that a rule told of. One goroutine uses it.
type opened struct {
	trees map[rule.Tree]*list.Element
	order *list.List // of *openedEntry, the one opened by longest ago in front
}

type openedEntry struct {
	tree    rule.Tree
	paths   []string
	suspect bool
}

func newOpened() *opened { return &opened{trees: map[rule.Tree]*list.Element{}, order: list.New()} }

// saw takes what rules told of an event.
func (o *opened) saw(e rule.Event, tree rule.Tree, told []*detection.Detection) {
	if len(told) == 0 {
		return
	}
	el, ok := o.trees[tree]
	if !ok {
		el = o.order.PushBack(&openedEntry{tree: tree})
		o.trees[tree] = el
	}
	o.order.MoveToBack(el)
	entry := el.Value.(*openedEntry)
	entry.suspect = true
	if e.Kind == rule.Open && len(entry.paths) < maxOpenedEach && !slices.Contains(entry.paths, e.Path) {
		entry.paths = append(slices.Clip(entry.paths), e.Path) // who was given the shorter list keeps it
	}
	for o.order.Len() > maxOpened {
		delete(o.trees, o.order.Remove(o.order.Front()).(*openedEntry).tree)
	}
}

// of returns the credential files that a process tree opened, as far as they are remembered.
func (o *opened) of(tree rule.Tree) []string {
	if el, ok := o.trees[tree]; ok {
		return el.Value.(*openedEntry).paths
	}
	return nil
}

// suspect reports whether a rule told of the process tree.
func (o *opened) suspect(tree rule.Tree) bool {
	el, ok := o.trees[tree]
	return ok && el.Value.(*openedEntry).suspect
}
