// Package identity names the non-human principals that an incident is about: Kubernetes service accounts, AWS
// access keys, users, roles and sessions. It only describes them; it never looks one up and never holds a secret.
// Every other domain package builds on it.
package identity

import (
	"errors"
	"fmt"
	"regexp"
)

// A Kind says which sort of principal an Identity is.
type Kind string

// The kinds of identity that Tourniquet knows.
const (
	ServiceAccount Kind = "kubernetes-service-account"
	AccessKey      Kind = "aws-access-key"
	User           Kind = "aws-user"
	Role           Kind = "aws-role"
)

// Valid reports whether k is one of the known kinds.
func (k Kind) Valid() bool {
	switch k {
	case ServiceAccount, AccessKey, User, Role:
		return true
	}
	return false
}

// A Link says how sure it is that a workload really holds an identity.
type Link string

const (
	// Attested means that something the workload cannot write ties the identity to it: its pod's specification,
	// an IRSA or Pod Identity binding, or the environment its container was started with.
	Attested Link = "attested"
	// Claimed means that the identity was only found in a file or environment that an attacker may have planted.
	Claimed Link = "claimed"
)

// Valid reports whether l is one of the known links.
func (l Link) Valid() bool { return l == Attested || l == Claimed }

// Identity is one non-human principal. Scope is the AWS account (12 digits) or the cluster name. Name is the access
// key id, the user or role name, or the service account's name.
type Identity struct {
	Kind      Kind   `json:"kind"`
	Scope     string `json:"scope"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	UID       string `json:"uid,omitempty"`
	Link      Link   `json:"link"`
	// Evidence says in a few fixed words what the link rests on, such as "pod specification".
	Evidence string `json:"evidence,omitempty"`
}

// Key is a stable text that two mentions of the same identity share.
func (i Identity) Key() string {
	if i.Kind == ServiceAccount {
		return fmt.Sprintf("%s/%s/%s/%s", i.Kind, i.Scope, i.Namespace, i.Name)
	}
	return fmt.Sprintf("%s/%s/%s", i.Kind, i.Scope, i.Name)
}

// AWS reports whether the identity lives in AWS.
func (i Identity) AWS() bool { return i.Kind == AccessKey || i.Kind == User || i.Kind == Role }

var (
	keyID   = regexp.MustCompile(`^(AKIA|ASIA)[A-Z0-9]{12,124}$`)
	account = regexp.MustCompile(`^[0-9]{12}$`)
	awsName = regexp.MustCompile(`^[\w+=,.@-]{1,128}$`)
	dnsName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)
)

// ValidKeyID reports whether s has the form of an AWS access key id (AKIA… long-term, ASIA… temporary).
func ValidKeyID(s string) bool { return keyID.MatchString(s) }

// ValidAccount reports whether s has the form of an AWS account id.
func ValidAccount(s string) bool { return account.MatchString(s) }

// Validate reports every field that is not what it must be.
func (i Identity) Validate() error {
	var errs []error
	if !i.Kind.Valid() {
		errs = append(errs, fmt.Errorf("kind: %q is not a known kind of identity", i.Kind))
	}
	if !i.Link.Valid() {
		errs = append(errs, fmt.Errorf("link: %q is neither attested nor claimed", i.Link))
	}
	if len(i.Evidence) > 200 || len(i.UID) > 200 {
		errs = append(errs, errors.New("evidence, uid: longer than 200 bytes"))
	}
	switch i.Kind {
	case AccessKey:
		if !ValidKeyID(i.Name) {
			errs = append(errs, fmt.Errorf("name: %.40q is not an access key id", i.Name))
		}
		if i.Scope != "" && !ValidAccount(i.Scope) {
			errs = append(errs, fmt.Errorf("scope: %.40q is not an account id of 12 digits", i.Scope))
		}
	case User, Role:
		if !awsName.MatchString(i.Name) {
			errs = append(errs, fmt.Errorf("name: %.40q is not an IAM name", i.Name))
		}
		if !ValidAccount(i.Scope) {
			errs = append(errs, fmt.Errorf("scope: %.40q is not an account id of 12 digits", i.Scope))
		}
	case ServiceAccount:
		if !dnsName.MatchString(i.Namespace) || !dnsName.MatchString(i.Name) || !dnsName.MatchString(i.Scope) {
			errs = append(errs, errors.New("scope, namespace, name: must be a cluster and two Kubernetes names"))
		}
	}
	return errors.Join(errs...)
}
