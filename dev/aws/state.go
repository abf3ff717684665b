package aws

import (
	"maps"
	"slices"
	"strings"
	"time"

	"tourniquet.dev/tourniquet/internal/blast/iampolicy"
)

// replica holds things of one kind twice: live is what the control plane shows, seen is what authorization has learnt so far.
// Values are never changed in place: a change is a new value.
type replica[T any] struct {
	live, seen map[string]*T
	pending    map[string][]change[T] // by key, in the order they were made
}

type change[T any] struct {
	at    time.Time
	value *T // nil: deleted
}

func newReplica[T any]() replica[T] {
	return replica[T]{live: map[string]*T{}, seen: map[string]*T{}, pending: map[string][]change[T]{}}
}

// put stores value under key, or deletes the key with nil. Authorization learns it at the given time; settle keeps the order of
// one key's changes, so that none overtakes an earlier one.
func (r *replica[T]) put(key string, value *T, at time.Time) {
	if value == nil {
		delete(r.live, key)
	} else {
		r.live[key] = value
	}
	r.pending[key] = append(r.pending[key], change[T]{at, value})
}

func (r *replica[T]) settle(now time.Time) {
	for key, queue := range r.pending {
		for len(queue) > 0 && !queue[0].at.After(now) {
			if queue[0].value == nil {
				delete(r.seen, key)
			} else {
				r.seen[key] = queue[0].value
			}
			queue = queue[1:]
		}
		if len(queue) == 0 {
			delete(r.pending, key)
		} else {
			r.pending[key] = queue
		}
	}
}

// sorted lists the live values in the order of their keys.
func (r *replica[T]) sorted() []*T {
	var out []*T
	for _, key := range slices.Sorted(maps.Keys(r.live)) {
		out = append(out, r.live[key])
	}
	return out
}

type state struct {
	entities replica[entity]       // by kind and name: "user/alice"
	policies replica[managed]      // by ARN
	keys     replica[accessKey]    // by id
	control  replica[serviceLimit] // the account's service control policies, under one key
}

func newState() state {
	return state{newReplica[entity](), newReplica[managed](), newReplica[accessKey](), newReplica[serviceLimit]()}
}

func (s *state) settle(now time.Time) {
	s.entities.settle(now)
	s.policies.settle(now)
	s.keys.settle(now)
	s.control.settle(now)
}

// kind is what sort of IAM entity holds policies.
type kind string

const (
	userKind  kind = "user"
	roleKind  kind = "role"
	groupKind kind = "group"
)

// title is the kind as it stands in the names of operations and parameters: User in PutUserPolicy and UserName.
func (k kind) title() string { return strings.ToUpper(string(k[:1])) + string(k[1:]) }

// entity is a user, a role or a group.
type entity struct {
	kind       kind
	name, path string
	id, arn    string
	created    time.Time
	tags       map[string]string
	boundary   string // policy ARN
	inline     map[string]document
	attached   []string // policy ARNs

	groups      []string // user: in order of joining
	login       time.Time
	mfa         []mfaDevice
	credentials []serviceCredential

	trust       document // role
	description string
	maxSession  time.Duration
	profiles    []string // role: names of instance profiles
}

type document struct {
	raw    string
	parsed iampolicy.Document
}

type mfaDevice struct {
	serial, code string // the stand-in's devices show one code for ever
	enabled      time.Time
}

type serviceCredential struct {
	id, service, userName, status string
	created                       time.Time
}

type managed struct {
	name, path, id, arn string
	created, updated    time.Time
	description         string
	versions            []version
	current             string // id of the default version
	made                int    // versions made so far: ids are never used again
}

type version struct {
	id      string
	created time.Time
	document
}

func (m *managed) version(id string) (version, bool) {
	for _, v := range m.versions {
		if v.id == id {
			return v, true
		}
	}
	return version{}, false
}

type accessKey struct {
	id, secret string
	owner      string // key of the entity; "root" for the root user
	active     bool
	created    time.Time
}

func (k *accessKey) status() string {
	if k.active {
		return "Active"
	}
	return "Inactive"
}

type keyUse struct {
	at              time.Time
	service, region string
}

type serviceLimit struct{ levels [][]iampolicy.Policy }

type bucket struct {
	name    string
	created time.Time
}

// change copies the entity of that key, lets edit work on the copy and stores it.
func (s *Server) change(e *entity, edit func(*entity)) {
	next := *e
	next.tags = maps.Clone(e.tags)
	next.inline = maps.Clone(e.inline)
	next.attached = slices.Clone(e.attached)
	next.groups = slices.Clone(e.groups)
	next.mfa = slices.Clone(e.mfa)
	next.credentials = slices.Clone(e.credentials)
	next.profiles = slices.Clone(e.profiles)
	edit(&next)
	s.state.entities.put(next.key(), &next, s.visibleAt())
}

func (e *entity) key() string { return string(e.kind) + "/" + e.name }

// protected reports whether only AWS may change the role.
func (e *entity) protected() bool {
	return e.kind == roleKind && (strings.HasPrefix(e.path, "/aws-service-role/") || strings.HasPrefix(e.path, "/aws-reserved/"))
}

// keysOf lists the live access keys of an entity, oldest first.
func (s *Server) keysOf(owner string) []*accessKey {
	var keys []*accessKey
	for _, key := range s.state.keys.sorted() {
		if key.owner == owner {
			keys = append(keys, key)
		}
	}
	slices.SortStableFunc(keys, func(a, b *accessKey) int { return a.created.Compare(b.created) })
	return keys
}

// settled reports whether authorization has learnt everything.
func (s *state) settled() bool {
	return len(s.entities.pending)+len(s.policies.pending)+len(s.keys.pending)+len(s.control.pending) == 0
}
