// Package intaketest makes a trust file, a node and what it signs, for the tests of intake. Only tests import it.
package intaketest

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"testing"
	"time"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/internal/identity"
	"tourniquet.dev/tourniquet/internal/incident"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/trust"
)

// World is whose word counts in a test.
type World struct {
	Trust  *trust.File
	Intake *authz.Signer
	Node   *authz.Signer // of node-1 in cluster east
	CA     *authz.Signer
}

// Now is the time of everything that New and its methods make.
var Now = time.Date(2026, 11, 23, 4, 5, 6, 0, time.UTC)

// Signer returns the signer of a name: the same one for the same name.
func Signer(name string) *authz.Signer {
	seed := sha256.Sum256([]byte(name))
	return authz.NewSigner(ed25519.NewKeyFromSeed(seed[:]))
}

// New makes a world with the source scout.
func New(t testing.TB) World {
	t.Helper()
	w := World{CA: Signer("ca"), Intake: Signer("intake")}
	node := Signer("node-1")
	cert, err := authz.CertifyNode(w.CA, "east", "node-1", node.Key().Public().(ed25519.PublicKey), Now.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	w.Node = authz.NewNodeSigner(node.Key(), cert)
	w.Trust = &trust.File{
		Trust: "test", Version: 1, Sources: []trust.Source{{Name: "scout"}},
		Keys: []trust.Key{key(w.CA, trust.RoleNodeCA), key(w.Intake, trust.RoleIntake), key(Signer("enforcer"), trust.RoleContainKubernetes)},
		Ceilings: trust.Ceilings{MaxPreAuthorized: time.Hour, MaxApproved: time.Hour, DetectionMaxAge: time.Hour, MaxTargets: 9,
			Budget: trust.Budget{Effects: 1, Window: time.Hour}},
	}
	if err := w.Trust.Validate(); err != nil {
		t.Fatal(err)
	}
	return w
}

func key(s *authz.Signer, role trust.Role) trust.Key {
	return trust.Key{ID: s.KeyID(), Role: role, Public: base64.StdEncoding.EncodeToString(s.Key().Public().(ed25519.PublicKey))}
}

// Detection returns a valid detection of node-1 about the workload of this owner.
func Detection(uid, owner string) *detection.Detection {
	return &detection.Detection{
		V: detection.Version, UID: uid, Time: Now, Source: detection.Source{Kind: detection.Sensor, Name: "node-1", UID: uid},
		Rule: "aws-credentials-read", Title: "AWS credentials file read by an unexpected process", Severity: detection.High, Confidence: 85,
		Attacks:  []detection.Attack{{TechniqueID: "T1552.001", TacticID: "TA0006", Version: "19"}},
		Workload: &detection.Workload{Cluster: "east", Node: "node-1", Namespace: "shop", Pod: owner + "-1", PodUID: owner + "-pod", OwnerKind: "ReplicaSet", OwnerName: owner, OwnerUID: owner},
		Identities: []identity.Identity{{Kind: identity.AccessKey, Scope: "111122223333", Name: "AKIAEXAMPLE000000001",
			Link: identity.Attested, Evidence: "pod specification"}},
	}
}

// Receipt returns a valid receipt of node-1.
func Receipt(step int, phase plan.Phase) plan.Receipt {
	digest := plan.DigestOf([]byte("plan"))
	id := incident.ID("key", digest)
	return plan.Receipt{V: 1, By: "node/node-1", Key: plan.Key(id, digest, step, 0), IncidentID: id, PlanDigest: digest, Step: step,
		Action: plan.NodeCutNetwork, Phase: phase, At: Now, Ends: Now.Add(time.Minute)}
}

// Signed returns the encoded envelope of what a signer says.
func Signed(t testing.TB, s *authz.Signer, payloadType string, body any) []byte {
	t.Helper()
	e, err := s.Sign(payloadType, body)
	if err != nil {
		t.Fatal(err)
	}
	b, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}
