package authz

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"time"

	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/playbook"
	"tourniquet.dev/tourniquet/internal/trust"
)

// Skew is how far clocks may differ before a time in a signed statement is refused.
const Skew = 60 * time.Second

// DecisionKind is what a person decided.
type DecisionKind string

// The kinds of decision.
const (
	Approve DecisionKind = "approve"
	Deny    DecisionKind = "deny"
	Release DecisionKind = "release"
	Retire  DecisionKind = "retire"
	Extend  DecisionKind = "extend"
)

// Valid reports whether k is one of the known kinds.
func (k DecisionKind) Valid() bool {
	switch k {
	case Approve, Deny, Release, Retire, Extend:
		return true
	}
	return false
}

// Decision is a person's statement about one plan of one incident. Choosing another option is approving its digest.
type Decision struct {
	V          int             `json:"v"`
	Kind       DecisionKind    `json:"kind"`
	IncidentID string          `json:"incident_id"`
	PlanDigest string          `json:"plan_digest"`
	Person     string          `json:"person"`
	Assurance  trust.Assurance `json:"assurance"`
	// Slack is the immutable Slack user id of who clicked, when Assurance is click.
	Slack string `json:"slack,omitempty"`
	// Nonce is 128 random bits in hexadecimal; (nonce, person) counts once.
	Nonce     string    `json:"nonce"`
	IssuedAt  time.Time `json:"issued_at"`
	ExpiresAt time.Time `json:"expires_at"`
	Reason    string    `json:"reason,omitempty"`
	// ShownDigest is the digest of the text that the person was shown.
	ShownDigest string `json:"shown_digest,omitempty"`
	// RawBodyDigest is the digest of the request that carried the click.
	RawBodyDigest string `json:"raw_body_digest,omitempty"`
	// ExtendSeconds is by how much an extend moves the end.
	ExtendSeconds int64 `json:"extend_seconds,omitempty"`
}

var nonceForm = regexp.MustCompile(`^[0-9a-f]{32}$`)

func (d *Decision) validate() error {
	switch {
	case d.V != 1 || !d.Kind.Valid():
		return fmt.Errorf("decision: version %d, kind %.20q", d.V, d.Kind)
	case !nonceForm.MatchString(d.Nonce):
		return errors.New("decision.nonce: want 32 hexadecimal digits")
	case !plan.ValidDigest(d.PlanDigest):
		return errors.New("decision.plan_digest: is not a digest")
	case d.IssuedAt.IsZero() || !d.ExpiresAt.After(d.IssuedAt) || d.ExpiresAt.Sub(d.IssuedAt) > 24*time.Hour:
		return errors.New("decision.expires_at: must be after issued_at, by at most a day")
	case d.Kind == Extend && (d.ExtendSeconds <= 0 || d.ExtendSeconds > 30*24*3600):
		return errors.New("decision.extend_seconds: must be between a second and 30 days")
	case len(d.Reason) > 2000:
		return errors.New("decision.reason: is longer than 2000 bytes")
	}
	return nil
}

// OpenDecision verifies a decision: a click must be signed by decide's key and name the person that the trust file
// has for the Slack id; any higher assurance by one of the person's own keys.
func OpenDecision(t *trust.File, e Envelope) (Decision, error) {
	var d Decision
	signer := ""
	if len(e.Signatures) == 1 {
		signer = e.Signatures[0].KeyID
	}
	if keys := t.KeysOf(trust.RoleDecide); keys[signer] != nil {
		if _, err := open(e, TypeDecision, keys, &d); err != nil {
			return d, fmt.Errorf("decision: %w", err)
		}
		p, ok := t.PersonBySlack(d.Slack)
		if !ok || p.ID != d.Person || d.Assurance != trust.Click {
			return d, fmt.Errorf("decision: %w: decide may sign only clicks of people in the trust file", ErrSignature)
		}
		return d, d.validate()
	}
	for _, p := range t.People {
		keys := map[string]ed25519.PublicKey{}
		for _, k := range p.Keys {
			if pub, err := k.Ed25519(); err == nil {
				keys[k.ID] = pub
			}
		}
		if keys[signer] == nil {
			continue
		}
		if _, err := open(e, TypeDecision, keys, &d); err != nil {
			return d, fmt.Errorf("decision: %w", err)
		}
		if d.Person != p.ID || d.Assurance != trust.OwnKey {
			return d, fmt.Errorf("decision: %w: a person's key signs only that person's decisions", ErrSignature)
		}
		return d, d.validate()
	}
	return d, fmt.Errorf("decision: %w: key %.40q", ErrSignature, signer)
}

// Node is what a node's certificate says.
type Node struct {
	V        int       `json:"v"`
	Node     string    `json:"node"`
	Cluster  string    `json:"cluster"`
	Public   string    `json:"public"` // base64 of the node's Ed25519 public key
	NotAfter time.Time `json:"not_after"`
}

// CertifyNode signs a node's certificate with the node CA's key.
func CertifyNode(ca *Signer, cluster, node string, pub ed25519.PublicKey, notAfter time.Time) (Envelope, error) {
	return ca.Sign(TypeNode, Node{V: 1, Node: node, Cluster: cluster, Public: base64.StdEncoding.EncodeToString(pub), NotAfter: notAfter})
}

func openNode(t *trust.File, c *Certificate) (Node, map[string]ed25519.PublicKey, error) {
	var n Node
	if c == nil {
		return n, nil, fmt.Errorf("%w: no node certificate", ErrSignature)
	}
	e := Envelope{PayloadType: c.PayloadType, Payload: c.Payload, Signatures: c.Signatures}
	if _, err := open(e, TypeNode, t.KeysOf(trust.RoleNodeCA), &n); err != nil {
		return n, nil, fmt.Errorf("node certificate: %w", err)
	}
	pub, err := trust.Key{Public: n.Public}.Ed25519()
	if err != nil || n.V != 1 {
		return n, nil, fmt.Errorf("node certificate: %w", errors.Join(err, ErrSignature))
	}
	return n, map[string]ed25519.PublicKey{trust.KeyID(pub): pub}, nil
}

// OpenDetection verifies a detection: a sensor's by its node key and certificate, where the detection's node and
// cluster must be the certificate's; a third party's by an intake key.
func OpenDetection(t *trust.File, e Envelope) (*detection.Detection, error) {
	d := &detection.Detection{}
	if e.Certificate != nil {
		n, keys, err := openNode(t, e.Certificate)
		if err != nil {
			return nil, fmt.Errorf("detection: %w", err)
		}
		if _, err := open(e, TypeDetection, keys, d); err != nil {
			return nil, fmt.Errorf("detection: %w", err)
		}
		w := d.Workload
		if d.Source.Kind != detection.Sensor || d.Source.Name != n.Node || (w != nil && (w.Node != n.Node || w.Cluster != n.Cluster)) {
			return nil, fmt.Errorf("detection: %w: node %q may not speak for another", ErrSignature, n.Node)
		}
		if d.Time.After(n.NotAfter) {
			return nil, fmt.Errorf("detection: %w: certificate of node %q ended %s", ErrSignature, n.Node, n.NotAfter.Format(time.RFC3339))
		}
		return d, d.Validate()
	}
	if _, err := open(e, TypeDetection, t.KeysOf(trust.RoleIntake), d); err != nil {
		return nil, fmt.Errorf("detection: %w", err)
	}
	if d.Source.Kind != detection.ThirdParty {
		return nil, fmt.Errorf("detection: %w: intake signs third parties' detections only", ErrSignature)
	}
	return d, d.Validate()
}

// OpenReceipt verifies a receipt: an enforcer's by its role's key, a node's by its certificate. The receipt's By must
// be who signed.
func OpenReceipt(t *trust.File, e Envelope) (plan.Receipt, error) {
	var r plan.Receipt
	if e.Certificate != nil {
		n, keys, err := openNode(t, e.Certificate)
		if err != nil {
			return r, fmt.Errorf("receipt: %w", err)
		}
		if _, err := open(e, TypeReceipt, keys, &r); err != nil {
			return r, fmt.Errorf("receipt: %w", err)
		}
		if r.By != "node/"+n.Node || r.At.After(n.NotAfter.Add(Skew)) {
			return r, fmt.Errorf("receipt: %w: signed by node %q as %q", ErrSignature, n.Node, r.By)
		}
		return r, nil
	}
	for _, role := range []trust.Role{trust.RoleContainAWS, trust.RoleContainKubernetes} {
		if keys := t.KeysOf(role); len(e.Signatures) == 1 && keys[e.Signatures[0].KeyID] != nil {
			if _, err := open(e, TypeReceipt, keys, &r); err != nil {
				return r, fmt.Errorf("receipt: %w", err)
			}
			if r.By != string(role) {
				return r, fmt.Errorf("receipt: %w: signed by %s as %q", ErrSignature, role, r.By)
			}
			return r, nil
		}
	}
	return r, fmt.Errorf("receipt: %w", ErrSignature)
}

// OpenObservation verifies an observation of the investigate role.
func OpenObservation(t *trust.File, e Envelope) (plan.Observation, error) {
	var o plan.Observation
	if _, err := open(e, TypeObservation, t.KeysOf(trust.RoleInvestigate), &o); err != nil {
		return o, fmt.Errorf("observation: %w", err)
	}
	return o, nil
}

// Order tells a node what to do to one pod until when. contain-kubernetes signs it and puts it on the pod.
type Order struct {
	V          int         `json:"v"`
	Key        string      `json:"key"` // the intent's
	IncidentID string      `json:"incident_id"`
	PlanDigest string      `json:"plan_digest"`
	Step       int         `json:"step"`
	Action     plan.Action `json:"action"`
	Cluster    string      `json:"cluster"`
	Namespace  string      `json:"namespace"`
	Pod        string      `json:"pod"`
	PodUID     string      `json:"pod_uid"`
	// Lift ends the hold of this key; otherwise the hold is put on.
	Lift bool `json:"lift,omitempty"`
	// PID and StartNS name the one process of node/kill-process: its number on the node, and when it began since boot.
	PID      uint32    `json:"pid,omitempty"`
	StartNS  uint64    `json:"start_ns,omitempty,string"`
	IssuedAt time.Time `json:"issued_at"`
	Until    time.Time `json:"until"`
}

// OpenOrder verifies an order for a pod of this cluster, by the verifier's own clock and protected set.
func OpenOrder(t *trust.File, e Envelope, cluster, namespace, podUID string, now time.Time) (Order, error) {
	var o Order
	if _, err := open(e, TypeOrder, t.KeysOf(trust.RoleContainKubernetes), &o); err != nil {
		return o, fmt.Errorf("order: %w", err)
	}
	switch {
	case o.V != 1 || !o.Action.Node() || (o.Action == plan.NodeKillProcess) != (o.PID > 1 && o.StartNS > 0):
		return o, fmt.Errorf("order: version %d, action %q: %w", o.V, o.Action, ErrRefusedOrder)
	case o.Cluster != cluster || o.Namespace != namespace || o.PodUID != podUID:
		return o, fmt.Errorf("order: is for pod %s of cluster %s: %w", o.PodUID, o.Cluster, ErrRefusedOrder)
	case o.IssuedAt.After(now.Add(Skew)):
		return o, fmt.Errorf("order: issued in the future: %w", ErrRefusedOrder)
	case !o.Until.After(now):
		return o, fmt.Errorf("order: ended %s: %w", o.Until.Format(time.RFC3339), ErrRefusedOrder)
	case o.Until.Sub(o.IssuedAt) > t.Ceilings.MaxApproved:
		return o, fmt.Errorf("order: longer than the trust file's ceiling: %w", ErrRefusedOrder)
	case t.ProtectsNamespace(o.Namespace):
		return o, fmt.Errorf("order: namespace %s is protected: %w", o.Namespace, ErrRefusedOrder)
	}
	return o, nil
}

// ErrRefusedOrder says that a well-signed order does not apply here or now.
var ErrRefusedOrder = errors.New("order refused")

// Book is a playbook whose signature was checked, with the digest of its signed envelope.
type Book struct {
	Playbook *playbook.Playbook
	Digest   string
	SignedBy string
}

// Ref is how a plan names the book.
func (b Book) Ref() plan.PlaybookRef {
	return plan.PlaybookRef{Name: b.Playbook.Playbook, Version: b.Playbook.Version, Digest: b.Digest}
}

// OpenPlaybook verifies and decodes a signed playbook. The digest is that of the signed document's bytes.
func OpenPlaybook(t *trust.File, e Envelope) (Book, error) {
	raw, keyID, err := Verify(e, TypePlaybook, t.KeysOf(trust.RolePlaybookSigner))
	if err != nil {
		return Book{}, fmt.Errorf("playbook: %w", err)
	}
	p, err := playbook.Decode(raw)
	if err != nil {
		return Book{}, err
	}
	return Book{Playbook: p, Digest: digestBytes(raw), SignedBy: keyID}, nil
}

// OpenTrust verifies and decodes a signed trust file by the root's public key.
func OpenTrust(e Envelope, root ed25519.PublicKey) (*trust.File, error) {
	raw, _, err := Verify(e, TypeTrust, map[string]ed25519.PublicKey{trust.KeyID(root): root})
	if err != nil {
		return nil, fmt.Errorf("trust file: %w", err)
	}
	return trust.Decode(raw)
}
