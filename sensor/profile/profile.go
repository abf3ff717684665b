// Package profile learns what each workload's image does while it runs (executables, credential files, destinations) and
// says, once that is learned, what it never did before. The core is pure: the same events at the same times make the same
// profile and the same drifts. A Book keeps a bounded number of profiles and brings them to disk through its Store. It
// signs nothing, asks no clock and no API server; sensor/node calls it, and cmd/tourniquet reads its files.
package profile

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"tourniquet.dev/tourniquet/internal/canonical"
)

// Version is the version of the profile format that this code writes and reads.
const Version = 1

// The bounds of one profile. A set that reached its bound in the learning time is Full: in alert mode it says so for what
// it does not know, rather than take it for learned.
const (
	MaxExecutables  = 256
	MaxCredentials  = 128
	MaxDestinations = 256
	MaxPerPort      = 64 // destinations of one port and protocol
	maxText         = 512
)

// Key names what a profile is of. Two namespaces that run one image are two workloads: who may write into the one must
// not teach the profile of the other.
type Key struct {
	Namespace string `json:"namespace"`
	Container string `json:"container"`
	Image     string `json:"image,omitempty"` // the digest that the runtime resolved
	// OwnerKind and OwnerName stand where no digest is known.
	OwnerKind string `json:"owner_kind,omitempty"`
	OwnerName string `json:"owner_name,omitempty"`
}

// NewKey makes the key of a container. imageID is as the runtime resolved it; false where neither it nor the owner says
// what runs there.
func NewKey(namespace, container, imageID, ownerKind, ownerName string) (Key, bool) {
	k := Key{Namespace: namespace, Container: container}
	if at := strings.LastIndex(imageID, canonical.DigestPrefix); at >= 0 && canonical.ValidDigest(imageID[at:]) {
		k.Image = imageID[at:]
	} else {
		k.OwnerKind, k.OwnerName = ownerKind, ownerName
	}
	return k, k.valid()
}

func (k Key) valid() bool {
	for _, s := range []string{k.Namespace, k.Container, k.Image, k.OwnerKind, k.OwnerName} {
		if len(s) > 253 {
			return false
		}
	}
	return k.Namespace != "" && k.Container != "" && (k.Image != "" || k.OwnerName != "")
}

// ID is the key as a file's name can have it.
func (k Key) ID() string {
	sum := canonical.DigestOf([]byte(strings.Join([]string{k.Namespace, k.Container, k.Image, k.OwnerKind, k.OwnerName}, "\x00")))
	return strings.TrimPrefix(sum, canonical.DigestPrefix)[:32]
}

// Kind says which of a profile's sets an item belongs to.
type Kind string

// The kinds of what is learned.
const (
	Executable  Kind = "executable"
	Credential  Kind = "credential"
	Destination Kind = "destination"
)

// Item is one thing that a workload does. Which fields it has follows from its kind.
type Item struct {
	Path     string `json:"path,omitempty"`    // of an executable or credential file
	Written  bool   `json:"written,omitempty"` // the executable was not in the image
	By       string `json:"by,omitempty"`      // who opened the credential file; empty: the main program
	Net      string `json:"net,omitempty"`     // of a destination: its address or the range it lies in, as a prefix
	Port     uint16 `json:"port,omitempty"`
	Protocol string `json:"protocol,omitempty"` // TCP, UDP or SCTP
}

func (i Item) String() string {
	switch {
	case i.Net != "":
		return fmt.Sprintf("%s %s port %d", i.Protocol, strings.TrimSuffix(strings.TrimSuffix(i.Net, "/32"), "/128"), i.Port)
	case i.By != "":
		return i.Path + " by " + i.By
	case i.Written:
		return i.Path + " (not from the image)"
	}
	return i.Path
}

func compare(a, b Item) int {
	flag := func(w bool) int {
		if w {
			return 1
		}
		return 0
	}
	return cmp.Or(strings.Compare(a.Path, b.Path), flag(a.Written)-flag(b.Written), strings.Compare(a.By, b.By),
		strings.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port), strings.Compare(a.Net, b.Net))
}

// Learned is an item with when it was first done, and how often.
type Learned struct {
	Item
	First time.Time `json:"first"`
	Count uint64    `json:"count"`
}

// Set is what was learned of one kind, sorted.
type Set struct {
	Full  bool      `json:"full,omitempty"` // something found no room while it was learned
	Items []Learned `json:"items"`
}

func (s *Set) find(i Item) (int, bool) {
	return slices.BinarySearchFunc(s.Items, i, func(l Learned, i Item) int { return compare(l.Item, i) })
}

// learn takes an item in, within the bounds.
func (s *Set) learn(i Item, limit int, now time.Time) {
	at, known := s.find(i)
	switch {
	case known:
		s.Items[at].Count++
	case len(s.Items) >= limit || (i.Net != "" && s.onPort(i) >= MaxPerPort):
		s.Full = true
	default:
		s.Items = slices.Insert(s.Items, at, Learned{Item: i, First: now, Count: 1})
	}
}

func (s *Set) onPort(i Item) int {
	n := 0
	for _, l := range s.Items {
		if l.Port == i.Port && l.Protocol == i.Protocol {
			n++
		}
	}
	return n
}

// Profile is what was learned of one workload.
type Profile struct {
	V   int `json:"v"`
	Key Key `json:"key"`
	// Selector is labels of the workload's pods that tell it from others, for a policy; empty where none is known to do so.
	Selector     map[string]string `json:"selector,omitempty"`
	Since        time.Time         `json:"since"`              // of the first observation
	Alerting     time.Time         `json:"alerting"`           // since when it alarms; zero: it learns
	Observations uint64            `json:"observations"`       // learned from
	Withheld     uint64            `json:"withheld,omitempty"` // not learned, because a rule had told of it
	Executables  Set               `json:"executables"`
	Credentials  Set               `json:"credentials"`
	Destinations Set               `json:"destinations"`

	dirty bool
	told  told
}

// New is the profile of a workload of which nothing is known.
func New(key Key, labels map[string]string) *Profile {
	empty := func() Set { return Set{Items: []Learned{}} }
	return &Profile{V: Version, Key: key, Selector: selector(labels), Executables: empty(), Credentials: empty(), Destinations: empty()}
}

func (p *Profile) set(k Kind) (*Set, int) {
	switch k {
	case Executable:
		return &p.Executables, MaxExecutables
	case Credential:
		return &p.Credentials, MaxCredentials
	}
	return &p.Destinations, MaxDestinations
}

// Full reports whether one of the sets had no room for what was to be learned.
func (p *Profile) Full() bool { return p.Executables.Full || p.Credentials.Full || p.Destinations.Full }

// validate checks what a file said: also a whole one may be of another version, or not ours.
func (p *Profile) validate() error {
	if p.V != Version {
		return fmt.Errorf("v: is %d, want %d", p.V, Version)
	}
	if !p.Key.valid() {
		return fmt.Errorf("key: names no workload")
	}
	for _, k := range []Kind{Executable, Credential, Destination} {
		s, limit := p.set(k)
		if len(s.Items) > limit {
			return fmt.Errorf("%ss: %d items, at most %d", k, len(s.Items), limit)
		}
		for i, l := range s.Items {
			if i > 0 && compare(s.Items[i-1].Item, l.Item) >= 0 {
				return fmt.Errorf("%ss[%d]: not sorted", k, i)
			}
			if _, err := netip.ParsePrefix(l.Net); k == Destination && (err != nil || l.Port == 0 || !protocols[l.Protocol]) {
				return fmt.Errorf("%ss[%d]: want net, port and protocol", k, i)
			}
			if k != Destination && (l.Path == "" || l.Net != "") {
				return fmt.Errorf("%ss[%d]: want a path", k, i)
			}
		}
	}
	return nil
}

var protocols = map[string]bool{"TCP": true, "UDP": true, "SCTP": true}

// selectors are the labels that by convention name a workload, the best first. Others, such as a template's hash, change.
var selectors = [][]string{
	{"app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/component"}, {"k8s-app"}, {"app"},
}

func selector(labels map[string]string) map[string]string {
	for _, names := range selectors {
		out := map[string]string{}
		for _, name := range names {
			if v := labels[name]; v != "" {
				out[name] = v
			}
		}
		if out[names[0]] != "" {
			return out
		}
	}
	return nil
}
