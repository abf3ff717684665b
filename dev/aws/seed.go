package aws

import (
	"fmt"
	"time"

	"tourniquet.dev/tourniquet/internal/blast/iampolicy"
)

// awsPolicies is how the ARNs of AWS's own managed policies begin.
const awsPolicies = "arn:aws:iam::aws:policy/"

// AdministratorAccess and DenyAll are the two of AWS's managed policies that every account of the stand-in has.
const (
	AdministratorAccess = awsPolicies + "AdministratorAccess"
	DenyAll             = awsPolicies + "AWSDenyAll"
)

func (s *Server) seedManagedPolicies() {
	for name, raw := range map[string]string{
		"AdministratorAccess": `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`,
		"AWSDenyAll":          `{"Version":"2012-10-17","Statement":[{"Sid":"DenyAll","Effect":"Deny","Action":["*"],"Resource":"*"}]}`,
	} {
		d, err := identityDocument(raw)
		if err != nil {
			panic(err) // a constant above is wrong
		}
		now := s.now()
		s.state.policies.put(awsPolicies+name, &managed{name: name, path: "/", id: newUniqueID("ANPA"), arn: awsPolicies + name,
			created: now, updated: now, versions: []version{{"v1", now, d}}, current: "v1", made: 1}, now)
	}
	s.state.settle(s.now())
}

// An AccessKey is a long-term key.
type AccessKey struct {
	ID     string `json:"accessKeyId"`
	Secret string `json:"secretAccessKey"`
}

// SeedAdmin makes a user with AdministratorAccess and this key, known to authorization at once: the hand that sets up everything
// else through the API. An empty key is drawn.
func (s *Server) SeedAdmin(name string, key AccessKey) (AccessKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if key.ID == "" {
		key = AccessKey{ID: newKeyID("AKIA", s.options.Account), Secret: newSecret()}
	}
	switch {
	case !namePattern.MatchString(name):
		return key, fmt.Errorf("seed admin: user name %q is not valid", name)
	case len(key.ID) < 16 || len(key.Secret) < 16:
		return key, fmt.Errorf("seed admin %s: key id and secret need at least 16 characters", name)
	case s.state.keys.live[key.ID] != nil || s.state.entities.live[string(userKind)+"/"+name] != nil:
		return key, fmt.Errorf("seed admin %s: user or key is there already", name)
	}
	now := s.now()
	e := &entity{kind: userKind, name: name, path: "/", id: newUniqueID("AIDA"), arn: s.arn(userKind, "/", name), created: now,
		inline: map[string]document{}, attached: []string{AdministratorAccess}}
	s.state.entities.put(e.key(), e, now)
	s.state.keys.put(key.ID, &accessKey{id: key.ID, secret: key.Secret, owner: e.key(), active: true, created: now}, now)
	s.state.settle(now)
	return key, nil
}

// SeedRootKey makes an access key of the root user.
func (s *Server) SeedRootKey() AccessKey {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := AccessKey{ID: newKeyID("AKIA", s.options.Account), Secret: newSecret()}
	s.state.keys.put(key.ID, &accessKey{id: key.ID, secret: key.Secret, owner: string(iampolicy.Root), active: true, created: s.now()}, s.now())
	s.state.settle(s.now())
	return key
}

// SeedBucket adds a bucket to what ListBuckets shows.
func (s *Server) SeedBucket(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.buckets = append(s.buckets, bucket{name, s.now()})
}

// SeedMFADevice gives a user a device that shows the same six digits for ever.
func (s *Server) SeedMFADevice(user, serial, code string) error {
	return s.seed(userKind, user, func(e *entity) { e.mfa = append(e.mfa, mfaDevice{serial, code, s.now()}) })
}

// SeedInstanceProfile puts a role into an instance profile.
func (s *Server) SeedInstanceProfile(role, profile string) error {
	return s.seed(roleKind, role, func(e *entity) { e.profiles = append(e.profiles, profile) })
}

// SeedServiceRole makes a role that only AWS may change: one that is linked to a service, or one of IAM Identity Center. The path
// is /aws-service-role/… or /aws-reserved/….
func (s *Server) SeedServiceRole(name, path, trust string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, err := trustDocument(trust)
	if err != nil {
		return fmt.Errorf("seed service role %s: %w", name, err)
	}
	e := &entity{kind: roleKind, name: name, path: path, id: newUniqueID("AROA"), arn: s.arn(roleKind, path, name), created: s.now(),
		inline: map[string]document{}, trust: d, maxSession: time.Hour}
	if !e.protected() {
		return fmt.Errorf("seed service role %s: path %s is not AWS's own", name, path)
	}
	s.state.entities.put(e.key(), e, s.now())
	s.state.settle(s.now())
	return nil
}

// seed changes a live entity, known to authorization at once.
func (s *Server) seed(k kind, name string, edit func(*entity)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.state.entities.live[string(k)+"/"+name]
	if !ok {
		return fmt.Errorf("seed %s %s: there is none", k, name)
	}
	s.change(e, edit)
	s.state.settle(s.now().Add(24 * time.Hour))
	return nil
}

// SetServiceControlPolicies sets the organization's policies, one list of documents for each level from the root down to the
// account; nil takes them all away. They reach authorization after the lag, like everything else.
func (s *Server) SetServiceControlPolicies(levels [][]string) error {
	var limit serviceLimit
	for i, level := range levels {
		var policies []iampolicy.Policy
		for j, raw := range level {
			name := fmt.Sprintf("level %d, policy %d", i, j)
			d, err := identityDocument(raw)
			if err != nil {
				return fmt.Errorf("set service control policies: %s: %w", name, err)
			}
			policies = append(policies, iampolicy.Policy{Name: name, Document: d.parsed})
		}
		limit.levels = append(limit.levels, policies)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.control.put(controlKey, &limit, s.visibleAt())
	return nil
}
