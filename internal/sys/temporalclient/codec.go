package temporalclient

import (
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"

	commonpb "go.temporal.io/api/common/v1"
	failurepb "go.temporal.io/api/failure/v1"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"google.golang.org/protobuf/proto"
)

// What stands in the clear beside an encrypted payload. The names of namespace and workflow are in the clear anyway.
const (
	metaEncoding  = "encoding"
	metaKeyID     = "encryption-key-id"
	metaNamespace = "encryption-namespace"
	metaWorkflow  = "encryption-workflow"

	encodingEncrypted = "binary/encrypted"
	aadLabel          = "tourniquet payload v1"
)

// ErrPayload says that a payload is not one that a holder of the key ring wrote for this workflow.
var ErrPayload = errors.New("payload refused")

// place is the workflow that a payload belongs to.
type place struct{ namespace, workflow string }

// codec encrypts payloads, each bound to its place, so that one cannot be moved into another workflow.
type codec struct {
	ring      *KeyRing
	at        place
	known     bool // the SDK has said what at is
	anyPlace  bool // decodes payloads of any workflow: offline, in a codec server, and for failures, which travel upward
	plainPass bool // lets payloads that are not encrypted through: for a codec server only
}

var _ converter.PayloadCodecWithSerializationContext = codec{}

// WithSerializationContext is called by the SDK to say which workflow the next payloads belong to.
func (c codec) WithSerializationContext(sc converter.SerializationContext) converter.PayloadCodec {
	c.at, c.known = placeOf(sc)
	return c
}

func placeOf(sc converter.SerializationContext) (place, bool) {
	switch sc := sc.(type) {
	case converter.WorkflowSerializationContext:
		return place{sc.Namespace, sc.WorkflowID}, true
	case converter.ActivitySerializationContext:
		return place{sc.Namespace, sc.WorkflowID}, true
	}
	return place{}, false
}

// Encode encrypts whole payloads, with their metadata.
func (c codec) Encode(payloads []*commonpb.Payload) ([]*commonpb.Payload, error) {
	out := make([]*commonpb.Payload, len(payloads))
	for i, p := range payloads {
		plain, err := proto.Marshal(p)
		if err != nil {
			return nil, fmt.Errorf("encrypt payload: %w", err)
		}
		aead := c.ring.keys[c.ring.newest]
		sealed, err := seal(aead, plain, c.aad(c.ring.newest, c.at))
		if err != nil {
			return nil, fmt.Errorf("encrypt payload: %w", err)
		}
		out[i] = &commonpb.Payload{
			Metadata: map[string][]byte{
				metaEncoding:  []byte(encodingEncrypted),
				metaKeyID:     []byte(c.ring.newest),
				metaNamespace: []byte(c.at.namespace),
				metaWorkflow:  []byte(c.at.workflow),
			},
			Data: sealed,
		}
	}
	return out, nil
}

func seal(aead cipher.AEAD, plain, aad []byte) ([]byte, error) {
	nonce := make([]byte, aead.NonceSize(), aead.NonceSize()+len(plain)+aead.Overhead())
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	return aead.Seal(nonce, nonce, plain, aad), nil
}

// Decode decrypts payloads and refuses those that are not encrypted or that belong to another workflow.
func (c codec) Decode(payloads []*commonpb.Payload) ([]*commonpb.Payload, error) {
	out := make([]*commonpb.Payload, len(payloads))
	for i, p := range payloads {
		var err error
		if out[i], err = c.decode(p); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (c codec) decode(p *commonpb.Payload) (*commonpb.Payload, error) {
	if string(p.GetMetadata()[metaEncoding]) != encodingEncrypted {
		if c.plainPass {
			return p, nil
		}
		return nil, fmt.Errorf("%w: not encrypted", ErrPayload)
	}
	at := place{string(p.Metadata[metaNamespace]), string(p.Metadata[metaWorkflow])}
	if c.known && !c.anyPlace && at != c.at {
		return nil, fmt.Errorf("%w: of workflow %.100q in %.60q, not of this one", ErrPayload, at.workflow, at.namespace)
	}
	id := string(p.Metadata[metaKeyID])
	aead, ok := c.ring.keys[id]
	if !ok {
		return nil, fmt.Errorf("%w: no key %.64q in the ring", ErrPayload, id)
	}
	if len(p.Data) < aead.NonceSize() {
		return nil, fmt.Errorf("%w: too short", ErrPayload)
	}
	plain, err := aead.Open(nil, p.Data[:aead.NonceSize()], p.Data[aead.NonceSize():], c.aad(id, at))
	if err != nil {
		return nil, fmt.Errorf("%w: not what the key's holder wrote", ErrPayload)
	}
	var inner commonpb.Payload
	if err := proto.Unmarshal(plain, &inner); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPayload, err)
	}
	return &inner, nil
}

// aad is unambiguous: each part follows its length.
func (c codec) aad(keyID string, at place) []byte {
	var out []byte
	for _, part := range []string{aadLabel, keyID, at.namespace, at.workflow} {
		out = binary.BigEndian.AppendUint32(out, uint32(len(part))) // #nosec G115 -- ids are short
		out = append(out, part...)
	}
	return out
}

// BoundDataConverter writes payloads that only their own workflow can read, and reads only such. Dial sets it; a client or
// test environment that is not dialled here sets it with FailureConverter.
func BoundDataConverter(ring *KeyRing) converter.DataConverter {
	return converter.NewCodecDataConverter(converter.GetDefaultDataConverter(), codec{ring: ring})
}

// DataConverter reads payloads of any workflow with the ring's keys: for replay and audit offline, where the SDK does not
// know the namespace that a history came from.
func DataConverter(ring *KeyRing) converter.DataConverter {
	return converter.NewCodecDataConverter(converter.GetDefaultDataConverter(), codec{ring: ring, anyPlace: true})
}

// FailureConverter encrypts messages, stack traces and details of failures, which the codec alone leaves in the clear.
func FailureConverter(ring *KeyRing) converter.FailureConverter {
	return newFailures(codec{ring: ring, anyPlace: true})
}

// failures binds what it encodes to its workflow. It decodes those of any: a child's failure becomes part of its parent's.
type failures struct {
	codec codec
	inner converter.FailureConverter
}

func newFailures(c codec) failures {
	return failures{c, temporal.NewDefaultFailureConverter(temporal.DefaultFailureConverterOptions{
		DataConverter:          converter.NewCodecDataConverter(converter.GetDefaultDataConverter(), c),
		EncodeCommonAttributes: true,
	})}
}

// WithSerializationContext is called by the SDK to say which workflow the next failure belongs to.
func (f failures) WithSerializationContext(sc converter.SerializationContext) converter.FailureConverter {
	f.codec.at, f.codec.known = placeOf(sc)
	return newFailures(f.codec)
}

func (f failures) ErrorToFailure(err error) *failurepb.Failure { return f.inner.ErrorToFailure(err) }

func (f failures) FailureToError(failure *failurepb.Failure) error {
	return f.inner.FailureToError(failure)
}
