package temporalclient_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"tourniquet.dev/tourniquet/internal/sys/temporalclient"
)

const canary = "canary-3f1c"

func newRing(t *testing.T) (*temporalclient.KeyRing, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ring.json")
	if _, err := temporalclient.RotateKeyRing(path, time.Now()); err != nil {
		t.Fatal(err)
	}
	return loadRing(t, path), path
}

func loadRing(t *testing.T, path string) *temporalclient.KeyRing {
	t.Helper()
	ring, err := temporalclient.LoadKeyRing(path)
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

func at(c converter.DataConverter, workflow string) converter.DataConverter {
	return converter.WithDataConverterSerializationContext(c, converter.WorkflowSerializationContext{Namespace: "ns", WorkflowID: workflow})
}

func encode(t *testing.T, c converter.DataConverter, v any) *commonpb.Payload {
	t.Helper()
	p, err := c.ToPayload(v)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPayloadIsReadWhereItBelongs(t *testing.T) {
	ring, _ := newRing(t)
	online, offline := temporalclient.BoundDataConverter(ring), temporalclient.DataConverter(ring)
	activity := converter.WithDataConverterSerializationContext(online,
		converter.ActivitySerializationContext{Namespace: "ns", WorkflowID: "w", ActivityType: "ApplyStep"})
	otherNamespace := converter.WithDataConverterSerializationContext(online,
		converter.WorkflowSerializationContext{Namespace: "other", WorkflowID: "w"})
	for name, tc := range map[string]struct {
		write, read converter.DataConverter
		refused     bool
	}{
		"in its workflow":                        {at(online, "w"), at(online, "w"), false},
		"in an activity of its workflow":         {at(online, "w"), activity, false},
		"offline":                                {at(online, "w"), offline, false},
		"offline, where the namespace is lost":   {at(online, "w"), at(offline, "ReplayId"), false},
		"where the SDK does not say the place":   {at(online, "w"), online, false},
		"moved to another workflow":              {at(online, "w"), at(online, "x"), true},
		"moved to another namespace":             {at(online, "w"), otherNamespace, true},
		"bound to nothing and put in a workflow": {online, at(online, "w"), true},
		"in the clear":                           {converter.GetDefaultDataConverter(), at(online, "w"), true},
		"in the clear, offline":                  {converter.GetDefaultDataConverter(), offline, true},
	} {
		t.Run(name, func(t *testing.T) {
			p := encode(t, tc.write, canary)
			var got string
			err := tc.read.FromPayload(p, &got)
			if errors.Is(err, temporalclient.ErrPayload) != tc.refused || !tc.refused && got != canary {
				t.Errorf("got %q, %v; want refused %v", got, err, tc.refused)
			}
		})
	}
}

// I33: neither payloads nor failures say anything to who has no key.
func TestI33NothingIsInTheClear(t *testing.T) {
	ring, _ := newRing(t)
	c := at(temporalclient.BoundDataConverter(ring), "w")
	failures := converter.WithFailureConverterSerializationContext(temporalclient.FailureConverter(ring),
		converter.WorkflowSerializationContext{Namespace: "ns", WorkflowID: "w"})
	cause := temporal.NewApplicationErrorWithCause(canary, "Refused", errors.New(canary), canary)
	failure := failures.ErrorToFailure(cause)
	for what, m := range map[string]proto.Message{
		"payload": encode(t, c, map[string]string{canary: canary}), "bytes": encode(t, c, []byte(canary)), "failure": failure,
	} {
		wire, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		text, err := protojson.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(wire, []byte(canary)) || bytes.Contains(text, []byte("Y2FuYXJ5")) || bytes.Contains(text, []byte(canary)) {
			t.Errorf("%s is in the clear: %s", what, text)
		}
	}
	other := converter.WithFailureConverterSerializationContext(temporalclient.FailureConverter(ring),
		converter.WorkflowSerializationContext{Namespace: "ns", WorkflowID: "parent"}) // a child's failure is read by its parent
	var app *temporal.ApplicationError
	var detail string
	if err := other.FailureToError(failure); !errors.As(err, &app) || !strings.Contains(err.Error(), canary) || app.Details(&detail) != nil || detail != canary {
		t.Errorf("decoded %v, detail %q", err, detail)
	}
}

func TestEveryChangedByteOfAPayloadIsRefused(t *testing.T) {
	ring, _ := newRing(t)
	online := temporalclient.BoundDataConverter(ring)
	good := encode(t, at(online, "w"), canary)
	refused := func(what string, p *commonpb.Payload) {
		t.Helper()
		var got string
		if err := temporalclient.DataConverter(ring).FromPayload(p, &got); !errors.Is(err, temporalclient.ErrPayload) {
			t.Errorf("%s: got %q, %v", what, got, err)
		}
	}
	for i := range good.Data {
		p := proto.CloneOf(good)
		p.Data[i] ^= 1
		refused("data", p)
		p.Data = p.Data[:i]
		refused("a part of the data", p)
	}
	for key, value := range good.Metadata {
		for i := range value {
			p := proto.CloneOf(good)
			p.Metadata[key][i] ^= 1
			refused(key, p)
		}
		p := proto.CloneOf(good)
		delete(p.Metadata, key)
		refused("no "+key, p)
	}
	// The boundary between the parts of what is bound cannot be moved.
	p := proto.CloneOf(good)
	p.Metadata["encryption-namespace"], p.Metadata["encryption-workflow"] = []byte("nsw"), nil
	refused("a moved boundary", p)
}

func TestSamePayloadTwiceDiffers(t *testing.T) {
	ring, _ := newRing(t)
	c := at(temporalclient.BoundDataConverter(ring), "w")
	if bytes.Equal(encode(t, c, canary).Data, encode(t, c, canary).Data) {
		t.Error("equal payloads have equal ciphertext")
	}
}

func TestRotationKeepsOldPayloadsReadable(t *testing.T) {
	before, path := newRing(t)
	old := encode(t, at(temporalclient.BoundDataConverter(before), "w"), "old")
	id, err := temporalclient.RotateKeyRing(path, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	after := loadRing(t, path)
	fresh := encode(t, at(temporalclient.BoundDataConverter(after), "w"), "new")
	if got := string(fresh.Metadata["encryption-key-id"]); got != id {
		t.Errorf("encrypted with %s, want the newest, %s", got, id)
	}
	var got string
	if err := temporalclient.DataConverter(after).FromPayload(old, &got); err != nil || got != "old" {
		t.Errorf("got %q, %v", got, err)
	}
	if err := temporalclient.DataConverter(before).FromPayload(fresh, &got); !errors.Is(err, temporalclient.ErrPayload) {
		t.Errorf("a ring without the key: %v", err)
	}
}

func TestLoadKeyRingRefuses(t *testing.T) {
	_, path := newRing(t)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v; want 0600", info.Mode(), err)
	}
	key := "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	for name, tc := range map[string]struct {
		data string
		mode os.FileMode
	}{
		"a file that others read":  {string(good), 0o604},
		"a file that a group owns": {string(good), 0o660},
		"nothing":                  {"", 0o600},
		"no keys":                  {`{"keys":[]}`, 0o600},
		"an unknown field":         {`{"keys":[{"id":"a","key":"` + key + `"}],"x":1}`, 0o600},
		"one id twice":             {`{"keys":[{"id":"a","key":"` + key + `"},{"id":"a","key":"` + key + `"}]}`, 0o600},
		"a bad id":                 {`{"keys":[{"id":"a b","key":"` + key + `"}]}`, 0o600},
		"a short key":              {`{"keys":[{"id":"a","key":"c2hvcnQ="}]}`, 0o600},
		"data behind it":           {`{"keys":[{"id":"a","key":"` + key + `"}]} {}`, 0o600},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "ring")
			if err := os.WriteFile(path, []byte(tc.data), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, tc.mode); err != nil {
				t.Fatal(err)
			}
			_, err := temporalclient.LoadKeyRing(path)
			if !errors.Is(err, temporalclient.ErrRing) {
				t.Errorf("got %v, want ErrRing", err)
			}
			if err != nil && strings.Contains(err.Error(), key) {
				t.Errorf("the error shows a key: %v", err)
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	path := filepath.Join(f.TempDir(), "ring")
	if _, err := temporalclient.RotateKeyRing(path, time.Now()); err != nil {
		f.Fatal(err)
	}
	ring, err := temporalclient.LoadKeyRing(path)
	if err != nil {
		f.Fatal(err)
	}
	good, err := at(temporalclient.BoundDataConverter(ring), "w").ToPayload(canary)
	if err != nil {
		f.Fatal(err)
	}
	wire, err := proto.Marshal(good)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(wire)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		var p commonpb.Payload
		if proto.Unmarshal(data, &p) != nil {
			return
		}
		var got string
		if err := temporalclient.DataConverter(ring).FromPayload(&p, &got); err == nil {
			if diff := cmp.Diff(good.Data, p.Data); diff != "" {
				t.Errorf("a payload that nobody wrote is read as %q", got)
			}
		}
	})
}
