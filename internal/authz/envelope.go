// Package authz decides what may be done and on whose word. It signs and opens envelopes (DSSE), says what each
// signed statement is, and holds Judge: the one pure function that decide, orchestrate, every enforcer and the audit
// call. Being called, scheduled or signalled is never permission; only signed statements are.
package authz

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"

	"tourniquet.dev/tourniquet/internal/canonical"
	"tourniquet.dev/tourniquet/internal/trust"
)

// The payload types of everything that is signed. The version is part of the type.
const (
	TypeTrust       = "application/vnd.tourniquet.trust.v1+yaml"
	TypePlaybook    = "application/vnd.tourniquet.playbook.v1+yaml"
	TypeNode        = "application/vnd.tourniquet.node.v1+json"
	TypeDetection   = "application/vnd.tourniquet.detection.v1+json"
	TypeDecision    = "application/vnd.tourniquet.decision.v1+json"
	TypeReceipt     = "application/vnd.tourniquet.receipt.v1+json"
	TypeObservation = "application/vnd.tourniquet.observation.v1+json"
	TypeOrder       = "application/vnd.tourniquet.order.v1+json"
	TypeHold        = "application/vnd.tourniquet.hold.v1+json"
	TypeAudit       = "application/vnd.tourniquet.audit.v1+json"
)

// MaxEnvelope bounds an encoded envelope.
const MaxEnvelope = 1 << 20

// Errors of envelopes. Callers branch on them.
var (
	ErrSignature   = errors.New("no valid signature of a trusted key")
	ErrPayloadType = errors.New("wrong payload type")
)

// Signature is one signature of an envelope, as DSSE writes it.
type Signature struct {
	KeyID string `json:"keyid"`
	Sig   string `json:"sig"`
}

// Certificate is a node's certificate: an envelope of type TypeNode, signed by a node CA of the trust file.
type Certificate struct {
	PayloadType string      `json:"payloadType"`
	Payload     string      `json:"payload"`
	Signatures  []Signature `json:"signatures"`
}

// Envelope is a DSSE envelope, with the node's certificate beside what a node signed.
type Envelope struct {
	PayloadType string       `json:"payloadType"`
	Payload     string       `json:"payload"`
	Signatures  []Signature  `json:"signatures"`
	Certificate *Certificate `json:"certificate,omitempty"`
}

// Encode returns the envelope's canonical bytes.
func (e Envelope) Encode() ([]byte, error) { return canonical.Marshal(e) }

// Digest names the envelope by its canonical bytes.
func (e Envelope) Digest() (string, error) { return canonical.Digest(e) }

// DecodeEnvelope decodes an encoded envelope strictly; it checks no signature.
func DecodeEnvelope(data []byte) (Envelope, error) {
	var e Envelope
	if err := canonical.Unmarshal(data, &e, MaxEnvelope); err != nil {
		return e, fmt.Errorf("decode envelope: %w", err)
	}
	return e, nil
}

// Raw returns the signed bytes without checking anything.
func (e Envelope) Raw() ([]byte, error) {
	b, err := base64.StdEncoding.Strict().DecodeString(e.Payload)
	if err != nil {
		return nil, fmt.Errorf("envelope payload: %w", err)
	}
	return b, nil
}

// A Signer signs as one key. It is safe for concurrent use.
type Signer struct {
	key  ed25519.PrivateKey
	id   string
	cert *Certificate
}

// NewSigner returns the signer for a private key.
func NewSigner(key ed25519.PrivateKey) *Signer {
	return &Signer{key: key, id: trust.KeyID(key.Public().(ed25519.PublicKey))}
}

// NewNodeSigner returns a signer whose envelopes carry the node's certificate.
func NewNodeSigner(key ed25519.PrivateKey, cert Envelope) *Signer {
	s := NewSigner(key)
	s.cert = &Certificate{PayloadType: cert.PayloadType, Payload: cert.Payload, Signatures: cert.Signatures}
	return s
}

// KeyID is the id of the signer's public key.
func (s *Signer) KeyID() string { return s.id }

// Key returns the private key, for the journal's checkpoints.
func (s *Signer) Key() ed25519.PrivateKey { return s.key }

// Sign signs the canonical JSON of body.
func (s *Signer) Sign(payloadType string, body any) (Envelope, error) {
	raw, err := canonical.Marshal(body)
	if err != nil {
		return Envelope{}, fmt.Errorf("sign %s: %w", payloadType, err)
	}
	return s.SignBytes(payloadType, raw)
}

// SignBytes signs raw bytes, such as a YAML document.
func (s *Signer) SignBytes(payloadType string, raw []byte) (Envelope, error) {
	if len(raw) > MaxEnvelope/2 {
		return Envelope{}, fmt.Errorf("sign %s: %d bytes are more than %d", payloadType, len(raw), MaxEnvelope/2)
	}
	sig := ed25519.Sign(s.key, dsse.PAE(payloadType, raw))
	return Envelope{PayloadType: payloadType, Payload: base64.StdEncoding.EncodeToString(raw),
		Signatures: []Signature{{KeyID: s.id, Sig: base64.StdEncoding.EncodeToString(sig)}}, Certificate: s.cert}, nil
}

// Verify checks that e has the payload type and a valid signature of one of keys, and returns the signed bytes and
// the id of the key. Exactly one signature is taken: an envelope with several is refused, so that nothing can hide.
func Verify(e Envelope, payloadType string, keys map[string]ed25519.PublicKey) (raw []byte, keyID string, err error) {
	if e.PayloadType != payloadType {
		return nil, "", fmt.Errorf("%w: %.80q, want %q", ErrPayloadType, e.PayloadType, payloadType)
	}
	if len(e.Payload) > MaxEnvelope || len(e.Signatures) != 1 {
		return nil, "", fmt.Errorf("%w: want one signature over at most %d bytes", ErrSignature, MaxEnvelope)
	}
	if sig, err := base64.StdEncoding.Strict().DecodeString(e.Signatures[0].Sig); err != nil || base64.StdEncoding.EncodeToString(sig) != e.Signatures[0].Sig {
		return nil, "", fmt.Errorf("%w: the signature is not spelled in strict base64", ErrSignature)
	}
	if raw, err := e.Raw(); err != nil || base64.StdEncoding.EncodeToString(raw) != e.Payload {
		return nil, "", fmt.Errorf("%w: the payload is not spelled in strict base64", ErrSignature)
	}
	pub, ok := keys[e.Signatures[0].KeyID]
	if !ok {
		return nil, "", fmt.Errorf("%w: key %.40q is not trusted for this", ErrSignature, e.Signatures[0].KeyID)
	}
	verifier, err := dsse.NewEnvelopeVerifier(ed25519Verifier{pub, e.Signatures[0].KeyID})
	if err != nil {
		return nil, "", fmt.Errorf("%w: %w", ErrSignature, err)
	}
	inner := &dsse.Envelope{PayloadType: e.PayloadType, Payload: e.Payload,
		Signatures: []dsse.Signature{{KeyID: e.Signatures[0].KeyID, Sig: e.Signatures[0].Sig}}}
	if _, err := verifier.Verify(context.Background(), inner); err != nil {
		return nil, "", fmt.Errorf("%w: %w", ErrSignature, err)
	}
	if raw, err = e.Raw(); err != nil {
		return nil, "", err
	}
	return raw, e.Signatures[0].KeyID, nil
}

// open verifies and decodes a JSON statement.
func open(e Envelope, payloadType string, keys map[string]ed25519.PublicKey, out any) (keyID string, err error) {
	raw, keyID, err := Verify(e, payloadType, keys)
	if err != nil {
		return "", err
	}
	if err := canonical.Unmarshal(raw, out, MaxEnvelope); err != nil {
		return "", fmt.Errorf("%s: %w", payloadType, err)
	}
	return keyID, nil
}

type ed25519Verifier struct {
	pub ed25519.PublicKey
	id  string
}

func (v ed25519Verifier) Verify(_ context.Context, data, sig []byte) error {
	if !ed25519.Verify(v.pub, data, sig) {
		return ErrSignature
	}
	return nil
}
func (v ed25519Verifier) KeyID() (string, error)   { return v.id, nil }
func (v ed25519Verifier) Public() crypto.PublicKey { return v.pub }

func digestBytes(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}
