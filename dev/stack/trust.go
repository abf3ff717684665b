package stack

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/sys/keys"
	"tourniquet.dev/tourniquet/internal/sys/temporalclient"
	"tourniquet.dev/tourniquet/internal/trust"
)

// Person is one of the people whom the trust file knows. Their Slack ids are those of the stand-in's users.
type Person struct {
	ID, Slack string
	Groups    []string
}

// People are who may decide in the stack.
var People = []Person{
	{ID: "alice", Slack: "U0ALICE0000", Groups: []string{"oncall", "security-leads"}},
	{ID: "boris", Slack: "U0BORIS0000", Groups: []string{"oncall"}},
	{ID: "chloe", Slack: "U0CHLOE0000", Groups: []string{"security-leads"}},
}

// mentions are the stand-in's user groups for the groups above.
var mentions = map[string]string{"oncall": "S0ONCALL000", "security-leads": "S0LEADS0000"}

// roles each have a key of their own.
var roles = []trust.Role{trust.RoleNodeCA, trust.RoleIntake, trust.RoleDecide, trust.RoleInvestigate, trust.RoleContainAWS,
	trust.RoleContainKubernetes, trust.RolePlaybookSigner}

// ceilings are what no playbook may exceed.
const ceilings = `ceilings:
  pre_authorize: [node/cut-network, kubernetes/block-writes, aws/quarantine-principal]
  max_pre_authorized: 1h
  max_approved: 168h
  click: [node/cut-network, kubernetes/block-writes, kubernetes/isolate-pod, kubernetes/cut-rbac, aws/quarantine-principal, aws/deactivate-keys, aws/revoke-sessions]
  detection_max_age: 15m
  budget: {effects: 20, window: 1h}
  max_targets: 20
`

// ring is everything that signs, made afresh.
type ring struct {
	root    *authz.Signer
	signers map[trust.Role]*authz.Signer
	people  map[string]*authz.Signer
}

// key is the path of a key file.
func (s *Stack) key(name string) string { return filepath.Join(s.dir, "keys", name) }

// makeTrust makes every key, the trust file, the signed playbooks and the node's certificate.
func (s *Stack) makeTrust() error {
	r := ring{signers: map[trust.Role]*authz.Signer{}, people: map[string]*authz.Signer{}}
	var err error
	if r.root, err = keys.Generate(s.key("root.key")); err != nil {
		return err
	}
	if err := keys.WritePublic(s.path("root.pub"), public(r.root)); err != nil {
		return err
	}
	for _, role := range roles {
		if r.signers[role], err = keys.Generate(s.key(string(role) + ".key")); err != nil {
			return err
		}
	}
	for _, p := range People {
		if r.people[p.ID], err = keys.Generate(s.key("person-" + p.ID + ".key")); err != nil {
			return err
		}
	}
	if err := s.signTrust(r); err != nil {
		return err
	}
	if err := s.signPlaybooks(r.signers[trust.RolePlaybookSigner]); err != nil {
		return err
	}
	return s.certifyNode(r.signers[trust.RoleNodeCA])
}

func (s *Stack) signTrust(r ring) error {
	doc := s.trustFile(r)
	if _, err := trust.Decode([]byte(doc)); err != nil {
		return err
	}
	if err := os.WriteFile(s.path("trust.yaml"), []byte(doc), 0o600); err != nil {
		return fmt.Errorf("write trust file: %w", err)
	}
	e, err := r.root.SignBytes(authz.TypeTrust, []byte(doc))
	if err != nil {
		return err
	}
	return writeEnvelope(s.path("trust.json"), e)
}

func (s *Stack) trustFile(r ring) string {
	var b strings.Builder
	b.WriteString("trust: demo\nversion: 1\nkeys:\n")
	for _, role := range roles {
		k := r.signers[role]
		fmt.Fprintf(&b, "  - {id: %s, role: %s, public: %s}\n", k.KeyID(), role, base64.StdEncoding.EncodeToString(public(k)))
	}
	b.WriteString("people:\n")
	for _, p := range People {
		k := r.people[p.ID]
		fmt.Fprintf(&b, "  - {id: %s, subject: idp|%s, slack: %s, groups: [%s], keys: [{id: %s, public: %s}]}\n", p.ID, p.ID, p.Slack,
			strings.Join(p.Groups, ", "), k.KeyID(), base64.StdEncoding.EncodeToString(public(k)))
	}
	fmt.Fprintf(&b, "scope: {accounts: [%q], clusters: [%s]}\n", Account, Cluster)
	b.WriteString("protected: {namespaces: [payments], service_accounts: [], principals: [break-glass, investigate-reader, contain-writer]}\n")
	b.WriteString(ceilings)
	return b.String()
}

var nodeStep = regexp.MustCompile(`(?m)^ *- \{action: node/.*\n`)

// signPlaybooks signs the bundled playbooks as they stand in the repository, or those of the options.
func (s *Stack) signPlaybooks(signer *authz.Signer) error {
	paths, err := filepath.Glob(filepath.Join(s.opts.Playbooks, "*.yaml"))
	if err != nil || len(paths) == 0 {
		return fmt.Errorf("no playbooks in %s: %w", s.opts.Playbooks, os.ErrNotExist)
	}
	for _, path := range paths {
		doc, err := os.ReadFile(path) // #nosec G304 -- the repository's own
		if err != nil {
			return fmt.Errorf("read playbook: %w", err)
		}
		if s.opts.NoNodeCut {
			doc = nodeStep.ReplaceAll(doc, nil)
		}
		e, err := signer.SignBytes(authz.TypePlaybook, doc)
		if err != nil {
			return fmt.Errorf("playbook %s: %w", path, err)
		}
		name := strings.TrimSuffix(filepath.Base(path), ".yaml") + ".json"
		if err := writeEnvelope(s.path("playbooks", name), e); err != nil {
			return err
		}
	}
	return nil
}

func (s *Stack) certifyNode(ca *authz.Signer) error {
	node, err := keys.Generate(s.key("node.key"))
	if err != nil {
		return err
	}
	certificate, err := authz.CertifyNode(ca, Cluster, Node, public(node), time.Now().UTC().Truncate(time.Millisecond).Add(30*24*time.Hour))
	if err != nil {
		return err
	}
	return writeEnvelope(s.path("node.json"), certificate)
}

// makeSecrets makes what is shared between two parts, and only between these.
func (s *Stack) makeSecrets() error {
	if _, err := temporalclient.RotateKeyRing(s.key("codec.json"), time.Now()); err != nil {
		return err
	}
	if _, err := keys.GenerateSecret(s.key("card-token.key")); err != nil {
		return err
	}
	for _, name := range []string{"slack-bot-token", "slack-signing-secret", "sensor-token"} {
		if err := writeSecret(s.key(name), randomText()); err != nil {
			return err
		}
	}
	return nil
}

func public(s *authz.Signer) ed25519.PublicKey { return s.Key().Public().(ed25519.PublicKey) }

func writeEnvelope(path string, e authz.Envelope) error {
	data, err := e.Encode()
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, data, 0o644); err != nil { //nolint:gosec // it is signed, not secret
		return fmt.Errorf("write envelope: %w", err)
	}
	return nil
}

func writeSecret(path, text string) error {
	if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
		return fmt.Errorf("write secret: %w", err)
	}
	return nil
}
