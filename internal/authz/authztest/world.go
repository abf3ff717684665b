// Package authztest makes a small world for tests: a trust file with keys for every role, three people, two playbooks
// and one detected pod with an attested and a planted access key. It is for tests only; no program imports it.
package authztest

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/internal/identity"
	"tourniquet.dev/tourniquet/internal/incident"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/playbook"
	"tourniquet.dev/tourniquet/internal/trust"
)

// Names of the world.
const (
	Cluster   = "demo"
	Account   = "123456789012"
	NodeName  = "node-1"
	Namespace = "shop"
	PodUID    = "11111111-2222-3333-4444-555555555555"
	KeyID     = "AKIATESTATTESTED0001"
	Planted   = "AKIATESTPLANTED00002"
)

// Playbook is the world's playbook.
const Playbook = `playbook: stolen-credentials
version: 2
match: {techniques: [T1552.001, T1552.007], severity: [high, critical]}
stop:
  - {action: node/cut-network, for: 10m}
  - {action: kubernetes/block-writes, for: 30m}
  - {action: aws/quarantine-principal, for: 30m}
contain:
  - atomic:
      - {action: kubernetes/isolate-pod, review: 4h}
      - {action: kubernetes/cut-rbac, review: 4h}
  - {action: aws/deactivate-keys, review: 24h}
tiers:
  - {ask: oncall, timeout: 5m}
  - {ask: leads, quorum: 2, timeout: 15m}
fallback:
  - {action: kubernetes/block-writes, for: 1h}
`

// World is everything a test needs to sign and to judge.
type World struct {
	Now       time.Time
	Root      *authz.Signer
	Signers   map[trust.Role]*authz.Signer
	Own       map[string]*authz.Signer // people's own keys
	Node      *authz.Signer
	TrustFile *trust.File
	Book      authz.Book
	Detection *detection.Detection
	Envelope  authz.Envelope // of the detection
	Digest    string         // of the envelope
}

// Signer returns a signer whose key follows from the name.
func Signer(name string) *authz.Signer {
	seed := sha256.Sum256([]byte("test key " + name))
	return authz.NewSigner(ed25519.NewKeyFromSeed(seed[:]))
}

// Public is the base64 of a signer's public key.
func Public(s *authz.Signer) string {
	return base64.StdEncoding.EncodeToString(s.Key().Public().(ed25519.PublicKey))
}

// New makes the world as of now. It panics on a mistake: it is for tests.
func New(now time.Time) *World {
	w := &World{Now: now.UTC().Truncate(time.Millisecond), Root: Signer("root"), Signers: map[trust.Role]*authz.Signer{}, Own: map[string]*authz.Signer{}}
	var keys strings.Builder
	for _, r := range []trust.Role{trust.RoleNodeCA, trust.RoleIntake, trust.RoleDecide, trust.RoleInvestigate, trust.RoleContainAWS, trust.RoleContainKubernetes, trust.RolePlaybookSigner} {
		w.Signers[r] = Signer(string(r))
		fmt.Fprintf(&keys, "  - {id: %s, role: %s, public: %s}\n", w.Signers[r].KeyID(), r, Public(w.Signers[r]))
	}
	var people strings.Builder
	for i, p := range []struct{ id, group string }{{"ana", "oncall"}, {"ben", "leads"}, {"cleo", "leads"}} {
		w.Own[p.id] = Signer(p.id)
		fmt.Fprintf(&people, "  - {id: %s, subject: idp|%s, slack: U00%d, groups: [%s], keys: [{id: %s, public: %s}]}\n", p.id, p.id, i+1, p.group, w.Own[p.id].KeyID(), Public(w.Own[p.id]))
	}
	doc := fmt.Sprintf(`trust: test
version: 1
keys:
%speople:
%ssources:
  - {name: falco, pre_authorize: false}
scope: {accounts: ["%s"], clusters: [%s]}
protected: {namespaces: [payments], service_accounts: [shop/deployer], principals: [break-glass]}
ceilings:
  pre_authorize: [node/cut-network, kubernetes/block-writes, aws/quarantine-principal]
  max_pre_authorized: 1h
  max_approved: 168h
  click: [node/cut-network, kubernetes/block-writes, kubernetes/isolate-pod, kubernetes/cut-rbac, aws/deactivate-keys, aws/quarantine-principal, aws/revoke-sessions]
  detection_max_age: 15m
  budget: {effects: 20, window: 1h}
  max_targets: 20
`, keys.String(), people.String(), Account, Cluster)
	var err error
	w.TrustFile, err = trust.Decode([]byte(doc))
	must(err)
	w.Book = w.SignBook(Playbook)
	w.Node = w.NodeSigner(NodeName)
	w.Detection = w.Detect("d-1")
	w.Envelope, w.Digest = w.SignDetection(w.Node, w.Detection)
	return w
}

// SignBook signs and opens a playbook.
func (w *World) SignBook(doc string) authz.Book {
	e, err := w.Signers[trust.RolePlaybookSigner].SignBytes(authz.TypePlaybook, []byte(doc))
	must(err)
	b, err := authz.OpenPlaybook(w.TrustFile, e)
	must(err)
	return b
}

// NodeSigner certifies a node.
func (w *World) NodeSigner(name string) *authz.Signer {
	s := Signer("node " + name)
	cert, err := authz.CertifyNode(w.Signers[trust.RoleNodeCA], Cluster, name, s.Key().Public().(ed25519.PublicKey), w.Now.Add(24*time.Hour))
	must(err)
	return authz.NewNodeSigner(s.Key(), cert)
}

// Detect is a detection of the world's pod, with an attested and a planted key.
func (w *World) Detect(uid string) *detection.Detection {
	return &detection.Detection{V: 1, UID: uid, Time: w.Now, Source: detection.Source{Kind: detection.Sensor, Name: NodeName, UID: uid},
		Rule: "credential-file-read", Title: "Credential file read by an unexpected process", Severity: detection.High, Confidence: 90,
		Attacks: []detection.Attack{{TechniqueID: "T1552.001", TacticID: "credential-access", Version: "19"}},
		Workload: &detection.Workload{Cluster: Cluster, Node: NodeName, Namespace: Namespace, Pod: "cart-7", PodUID: PodUID, OwnerKind: "ReplicaSet",
			OwnerName: "cart", OwnerUID: "99999999-2222-3333-4444-555555555555", ServiceAccount: "cart"},
		Identities: []identity.Identity{
			{Kind: identity.AccessKey, Scope: Account, Name: KeyID, Link: identity.Attested, Evidence: "pod specification"},
			{Kind: identity.AccessKey, Scope: Account, Name: Planted, Link: identity.Claimed, Evidence: "file"},
			{Kind: identity.ServiceAccount, Scope: Cluster, Namespace: Namespace, Name: "cart", Link: identity.Attested},
		}}
}

// SignDetection signs a detection and names the envelope.
func (w *World) SignDetection(s *authz.Signer, d *detection.Detection) (authz.Envelope, string) {
	e, err := s.Sign(authz.TypeDetection, d)
	must(err)
	digest, err := e.Digest()
	must(err)
	return e, digest
}

// Pod is the detected pod as a target.
func (w *World) Pod() plan.Target {
	return plan.Target{Kind: plan.Pod, Scope: Cluster, Namespace: Namespace, Name: "cart-7", UID: PodUID}
}

// Key is an access key as a target.
func (w *World) Key(id string) plan.Target {
	return plan.Target{Kind: plan.AccessKey, Scope: Account, Name: id, UID: id}
}

// Account of the world's service account as a target.
func (w *World) ServiceAccount() plan.Target {
	return plan.Target{Kind: plan.ServiceAccount, Scope: Cluster, Namespace: Namespace, Name: "cart", UID: "sa-uid"}
}

// Plan lays the playbook's steps out for the purpose on the world's targets.
func (w *World) Plan(purpose plan.Purpose) *plan.Plan {
	pod, sa := w.Pod(), w.ServiceAccount()
	s := playbook.Subject{Pod: &pod, ServiceAccount: &sa, Keys: []plan.Target{w.Key(KeyID)}}
	return &plan.Plan{APIVersion: plan.APIVersion, Kind: plan.Kind, IncidentID: incident.ID(w.Detection.Key(), w.Digest), CorrelationKey: w.Detection.Key(),
		Purpose: purpose, Option: "everything", Playbook: w.Book.Ref(), Detections: []string{w.Digest}, Steps: w.Book.Playbook.Draft(purpose, s, nil)}
}

// Decide signs a decision: a click through decide's key, or with the person's own key.
func (w *World) Decide(kind authz.DecisionKind, p *plan.Plan, person string, a trust.Assurance) authz.Envelope {
	return w.Sign(w.Decision(kind, p, person, a))
}

// Decision is an unsigned decision that a test may change.
func (w *World) Decision(kind authz.DecisionKind, p *plan.Plan, person string, a trust.Assurance) authz.Decision {
	digest, err := p.Digest()
	must(err)
	who, ok := w.TrustFile.PersonByID(person)
	if !ok {
		panic("no person " + person)
	}
	nonce := sha256.Sum256([]byte(person + string(kind) + digest))
	d := authz.Decision{V: 1, Kind: kind, IncidentID: p.IncidentID, PlanDigest: digest, Person: person, Assurance: a,
		Nonce: fmt.Sprintf("%x", nonce[:16]), IssuedAt: w.Now, ExpiresAt: w.Now.Add(time.Hour), Reason: "test"}
	if a == trust.Click {
		d.Slack = who.Slack
	}
	return d
}

// Sign signs a decision by whom its assurance says.
func (w *World) Sign(d authz.Decision) authz.Envelope {
	s := w.Signers[trust.RoleDecide]
	if d.Assurance != trust.Click {
		s = w.Own[d.Person]
	}
	e, err := s.Sign(authz.TypeDecision, d)
	must(err)
	return e
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
