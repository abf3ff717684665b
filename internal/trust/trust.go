// Package trust is the trust file: the one document, signed by an offline root key, that says whose word counts. It
// holds the public keys of every process, the people who may decide, the playbook signers, the protected set, the
// accounts and clusters in scope, and the ceilings that no playbook may exceed. It is data: signatures over it are
// checked in package authz.
package trust

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"tourniquet.dev/tourniquet/internal/strictyaml"
)

// Role is what a key may sign as.
type Role string

// The roles of keys in the trust file.
const (
	RoleNodeCA            Role = "node-ca"
	RoleIntake            Role = "intake"
	RoleDecide            Role = "decide"
	RoleInvestigate       Role = "investigate"
	RoleContainAWS        Role = "contain-aws"
	RoleContainKubernetes Role = "contain-kubernetes"
	RolePlaybookSigner    Role = "playbook-signer"
)

var roles = []Role{RoleNodeCA, RoleIntake, RoleDecide, RoleInvestigate, RoleContainAWS, RoleContainKubernetes, RolePlaybookSigner}

// Assurance is how a person proved a decision, from the weakest.
type Assurance string

// The assurances.
const (
	Click    Assurance = "click"
	OwnKey   Assurance = "key"
	WebAuthn Assurance = "webauthn"
)

// Rank orders assurances; 0 is unknown.
func (a Assurance) Rank() int { return slices.Index([]Assurance{"", Click, OwnKey, WebAuthn}, a) }

// Key is one public key with the role it signs as.
type Key struct {
	ID     string `yaml:"id" json:"id"`
	Role   Role   `yaml:"role" json:"role"`
	Public string `yaml:"public" json:"public"` // base64 of an Ed25519 public key
}

// Person may be asked. Subject is the identity provider's subject: one for each human being, whatever their accounts.
type Person struct {
	ID      string   `yaml:"id" json:"id"`
	Subject string   `yaml:"subject" json:"subject"`
	Slack   string   `yaml:"slack,omitempty" json:"slack,omitempty"`
	Groups  []string `yaml:"groups" json:"groups"`
	Keys    []Key    `yaml:"keys,omitempty" json:"keys,omitempty"` // role is empty
}

// Protected is what no step may touch. Patterns use path.Match over lower-case text.
type Protected struct {
	Namespaces      []string `yaml:"namespaces" json:"namespaces"`
	ServiceAccounts []string `yaml:"service_accounts" json:"service_accounts"` // namespace/name
	Principals      []string `yaml:"principals" json:"principals"`             // IAM user or role names and ARNs
}

// Budget bounds how many effects may be made without a person inside a sliding window.
type Budget struct {
	Effects int           `yaml:"effects" json:"effects"`
	Window  time.Duration `yaml:"window" json:"window"`
}

// Ceilings are limits that a playbook can only narrow.
type Ceilings struct {
	PreAuthorize     []string      `yaml:"pre_authorize" json:"pre_authorize"` // actions that may ever be pre-authorized
	MaxPreAuthorized time.Duration `yaml:"max_pre_authorized" json:"max_pre_authorized"`
	MaxApproved      time.Duration `yaml:"max_approved" json:"max_approved"`
	Click            []string      `yaml:"click" json:"click"` // actions that a Slack click may decide
	DetectionMaxAge  time.Duration `yaml:"detection_max_age" json:"detection_max_age"`
	Budget           Budget        `yaml:"budget" json:"budget"`
	MaxTargets       int           `yaml:"max_targets" json:"max_targets"` // of one plan
	Reflex           ReflexCeiling `yaml:"reflex,omitempty" json:"reflex,omitempty"`
}

// Source is a third-party detector and how far its word goes.
type Source struct {
	Name         string `yaml:"name" json:"name"`
	PreAuthorize bool   `yaml:"pre_authorize" json:"pre_authorize"`
}

// Scope is what Tourniquet may act on at all.
type Scope struct {
	Accounts []string `yaml:"accounts" json:"accounts"`
	Clusters []string `yaml:"clusters" json:"clusters"`
}

// File is the trust file.
type File struct {
	Trust     string    `yaml:"trust" json:"trust"`
	Version   int       `yaml:"version" json:"version"`
	Keys      []Key     `yaml:"keys" json:"keys"`
	People    []Person  `yaml:"people" json:"people"`
	Sources   []Source  `yaml:"sources,omitempty" json:"sources,omitempty"`
	Scope     Scope     `yaml:"scope" json:"scope"`
	Protected Protected `yaml:"protected" json:"protected"`
	Ceilings  Ceilings  `yaml:"ceilings" json:"ceilings"`
}

// KeyID is the id of a public key: the first 16 hexadecimal digits of its SHA-256.
func KeyID(pub ed25519.PublicKey) string {
	sum := sha256.Sum256(pub)
	return hex.EncodeToString(sum[:8])
}

// Decode decodes and validates a trust file. It does not check its signature: see authz.OpenTrust.
func Decode(data []byte) (*File, error) {
	f := &File{}
	if err := strictyaml.Decode(data, f); err != nil {
		return nil, fmt.Errorf("decode trust file: %w", err)
	}
	if err := f.Validate(); err != nil {
		return nil, fmt.Errorf("trust file %q: %w", f.Trust, err)
	}
	return f, nil
}

var name = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{0,62}$`)

// Validate reports every problem at once, each with its path.
func (f *File) Validate() error {
	var errs []error
	bad := func(p, format string, args ...any) { errs = append(errs, fmt.Errorf(p+": "+format, args...)) }
	if !name.MatchString(f.Trust) {
		bad("trust", "%q is not a short lower-case name", f.Trust)
	}
	if f.Version < 1 {
		bad("version", "must be at least 1")
	}
	seen := map[string]bool{}
	checkKey := func(p string, k Key) {
		pub, err := k.Ed25519()
		if err != nil {
			bad(p, "%v", err)
		} else if k.ID != KeyID(pub) {
			bad(p, "id %q does not belong to the public key, want %q", k.ID, KeyID(pub))
		}
		if seen[k.ID] {
			bad(p, "key %q stands twice: one key, one role", k.ID)
		}
		seen[k.ID] = true
	}
	for i, k := range f.Keys {
		checkKey(fmt.Sprintf("keys[%d]", i), k)
		if !slices.Contains(roles, k.Role) {
			bad(fmt.Sprintf("keys[%d].role", i), "%q is not one of %v", k.Role, roles)
		}
	}
	subjects, ids, slacks := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for i, p := range f.People {
		at := fmt.Sprintf("people[%d]", i)
		if !name.MatchString(p.ID) || p.Subject == "" {
			bad(at, "id and subject are needed")
		}
		if ids[p.ID] || subjects[p.Subject] || (p.Slack != "" && slacks[p.Slack]) {
			bad(at, "id, subject and slack must each belong to one person only")
		}
		ids[p.ID], subjects[p.Subject], slacks[p.Slack] = true, true, true
		for j, k := range p.Keys {
			checkKey(fmt.Sprintf("%s.keys[%d]", at, j), k)
			if k.Role != "" {
				bad(fmt.Sprintf("%s.keys[%d].role", at, j), "a person's key has no role")
			}
		}
	}
	c := f.Ceilings
	if c.MaxPreAuthorized <= 0 || c.MaxApproved <= 0 || c.DetectionMaxAge <= 0 || c.Budget.Effects <= 0 || c.Budget.Window <= 0 || c.MaxTargets <= 0 {
		bad("ceilings", "max_pre_authorized, max_approved, detection_max_age, budget.effects, budget.window and max_targets must all be positive")
	}
	if err := c.Reflex.validate(); err != nil {
		errs = append(errs, err)
	}
	for _, list := range [][]string{f.Protected.Namespaces, f.Protected.ServiceAccounts, f.Protected.Principals} {
		for _, p := range list {
			if _, err := path.Match(strings.ToLower(p), "x"); err != nil {
				bad("protected", "%q is not a pattern", p)
			}
		}
	}
	return errors.Join(errs...)
}

// Ed25519 decodes the public key.
func (k Key) Ed25519() (ed25519.PublicKey, error) {
	b, err := base64.StdEncoding.DecodeString(k.Public)
	if err != nil || len(b) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("public: want base64 of %d bytes (Ed25519)", ed25519.PublicKeySize)
	}
	return ed25519.PublicKey(b), nil
}

// KeysOf returns the public keys that may sign as role, by key id.
func (f *File) KeysOf(role Role) map[string]ed25519.PublicKey {
	out := map[string]ed25519.PublicKey{}
	for _, k := range f.Keys {
		if k.Role == role {
			if pub, err := k.Ed25519(); err == nil {
				out[k.ID] = pub
			}
		}
	}
	return out
}

// PersonBySlack returns the person with this immutable Slack user id.
func (f *File) PersonBySlack(id string) (Person, bool) {
	return f.person(func(p Person) bool { return id != "" && p.Slack == id })
}

// PersonByID returns the person with this id.
func (f *File) PersonByID(id string) (Person, bool) {
	return f.person(func(p Person) bool { return id != "" && p.ID == id })
}

func (f *File) person(match func(Person) bool) (Person, bool) {
	if i := slices.IndexFunc(f.People, match); i >= 0 {
		return f.People[i], true
	}
	return Person{}, false
}

// In reports whether the person belongs to group. An empty group holds nobody.
func (p Person) In(group string) bool { return group != "" && slices.Contains(p.Groups, group) }

// ThirdParty returns the configured third-party source of this name.
func (f *File) ThirdParty(name string) (Source, bool) {
	if i := slices.IndexFunc(f.Sources, func(s Source) bool { return s.Name == name }); i >= 0 {
		return f.Sources[i], true
	}
	return Source{}, false
}
