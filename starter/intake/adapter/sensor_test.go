package adapter_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/starter/intake/adapter"
	"tourniquet.dev/tourniquet/starter/intake/intaketest"
)

func wantRefusal(t *testing.T, err error, code adapter.Code, field string) {
	t.Helper()
	var r *adapter.Refusal
	if !errors.As(err, &r) || r.Code != code || r.Field != field {
		t.Errorf("error %v, want code %s of field %q", err, code, field)
	}
}

func TestSensorDetection(t *testing.T) {
	w := intaketest.New(t)
	sign := func(change func(*detection.Detection)) []byte {
		d := intaketest.Detection("boot:1", "checkout")
		change(d)
		return intaketest.Signed(t, w.Node, authz.TypeDetection, d)
	}
	good := sign(func(*detection.Detection) {})
	stranger := authz.NewNodeSigner(intaketest.Signer("stranger").Key(), certificate(t, w, intaketest.Signer("other CA"), "node-1", time.Hour))
	ended := authz.NewNodeSigner(w.Node.Key(), certificate(t, w, w.CA, "node-1", -time.Hour))

	e, d, err := adapter.SensorDetection(w.Trust, good, window)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(intaketest.Detection("boot:1", "checkout"), d); diff != "" {
		t.Error(diff)
	}
	if again, err := e.Encode(); err != nil || !bytes.Equal(again, good) {
		t.Errorf("the envelope did not stay the same: %v", err)
	}

	third := intaketest.Detection("1", "checkout")
	third.Source.Kind = detection.ThirdParty
	for name, tc := range map[string]struct {
		line  []byte
		code  adapter.Code
		field string
	}{
		"not JSON":                      {[]byte("x"), adapter.Malformed, ""},
		"an unknown key":                {bytes.Replace(good, []byte(`{`), []byte(`{"more":1,`), 1), adapter.Malformed, ""},
		"deep":                          {[]byte(strings.Repeat("[", 40) + strings.Repeat("]", 40)), adapter.TooDeep, ""},
		"large":                         {bytes.Repeat([]byte(" "), adapter.MaxItem+1), adapter.TooLarge, ""},
		"one bit of the payload":        {flip(good), adapter.BadSignature, "signatures"},
		"signed as a receipt":           {intaketest.Signed(t, w.Node, authz.TypeReceipt, third), adapter.WrongType, "payloadType"},
		"of a node of another CA":       {intaketest.Signed(t, stranger, authz.TypeDetection, intaketest.Detection("1", "checkout")), adapter.BadSignature, "signatures"},
		"certificate ended":             {intaketest.Signed(t, ended, authz.TypeDetection, intaketest.Detection("1", "checkout")), adapter.BadSignature, "signatures"},
		"of intake itself":              {intaketest.Signed(t, w.Intake, authz.TypeDetection, third), adapter.BadSignature, "certificate"},
		"speaks for another node":       {sign(func(d *detection.Detection) { d.Workload.Node = "node-2" }), adapter.BadSignature, "signatures"},
		"an unknown key in the payload": {intaketest.Signed(t, w.Node, authz.TypeDetection, map[string]any{"v": 1, "more": 2}), adapter.Malformed, ""},
		"no technique":                  {sign(func(d *detection.Detection) { d.Attacks = nil }), adapter.Invalid, "attacks"},
		"old":                           {sign(func(d *detection.Detection) { d.Time = now.Add(-25 * time.Hour) }), adapter.TooOld, "time"},
		"from the future":               {sign(func(d *detection.Detection) { d.Time = now.Add(2 * time.Minute) }), adapter.InFuture, "time"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := adapter.SensorDetection(w.Trust, tc.line, window)
			wantRefusal(t, err, tc.code, tc.field)
		})
	}
}

func certificate(t *testing.T, _ intaketest.World, ca *authz.Signer, node string, ends time.Duration) authz.Envelope {
	t.Helper()
	pub := intaketest.Signer(node).Key().Public().(ed25519.PublicKey)
	c, err := authz.CertifyNode(ca, "east", node, pub, now.Add(ends))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// flip changes one letter of the payload.
func flip(line []byte) []byte {
	out := bytes.Clone(line)
	i := bytes.Index(out, []byte(`"payload":"`)) + len(`"payload":"`) + 40
	out[i] ^= 1
	return out
}

func TestNodeReceipt(t *testing.T) {
	w := intaketest.New(t)
	good := intaketest.Receipt(0, plan.Applied)
	_, got, err := adapter.NodeReceipt(w.Trust, intaketest.Signed(t, w.Node, authz.TypeReceipt, good), window)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(good, got); diff != "" {
		t.Error(diff)
	}
	change := func(f func(*plan.Receipt)) []byte {
		r := good
		f(&r)
		return intaketest.Signed(t, w.Node, authz.TypeReceipt, r)
	}
	enforcer := good
	enforcer.By = "contain-kubernetes"
	for name, tc := range map[string]struct {
		line  []byte
		code  adapter.Code
		field string
	}{
		"by another node":     {change(func(r *plan.Receipt) { r.By = "node/node-2" }), adapter.BadSignature, "signatures"},
		"by an enforcer":      {intaketest.Signed(t, intaketest.Signer("enforcer"), authz.TypeReceipt, enforcer), adapter.BadSignature, "certificate"},
		"without a plan":      {change(func(r *plan.Receipt) { r.PlanDigest = "x" }), adapter.Invalid, "plan_digest"},
		"without an incident": {change(func(r *plan.Receipt) { r.IncidentID = "" }), adapter.Invalid, "incident_id"},
		"a detection":         {intaketest.Signed(t, w.Node, authz.TypeDetection, good), adapter.WrongType, "payloadType"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := adapter.NodeReceipt(w.Trust, tc.line, window)
			wantRefusal(t, err, tc.code, tc.field)
		})
	}
}

func TestLines(t *testing.T) {
	got, err := adapter.Lines([]byte("{\"a\":1}\r\n\n  \n{\"b\":2}"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([][]byte{[]byte(`{"a":1}`), []byte(`{"b":2}`)}, got); diff != "" {
		t.Error(diff)
	}
	_, err = adapter.Lines([]byte("\n"))
	wantRefusal(t, err, adapter.Malformed, "")
	_, err = adapter.Lines(bytes.Repeat([]byte("{}\n"), adapter.MaxItems+1))
	wantRefusal(t, err, adapter.TooLarge, "")
}

func FuzzSensorDetection(f *testing.F) {
	w := intaketest.New(f)
	good := intaketest.Signed(f, w.Node, authz.TypeDetection, intaketest.Detection("boot:1", "checkout"))
	f.Add(good)
	f.Add(intaketest.Signed(f, w.Node, authz.TypeReceipt, intaketest.Receipt(0, plan.Applied)))
	f.Add([]byte(`{"payloadType":"application/vnd.tourniquet.detection.v1+json","payload":"","signatures":[]}`))
	want, _, err := adapter.SensorDetection(w.Trust, good, window)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		e, d, err := adapter.SensorDetection(w.Trust, line, window)
		if err != nil {
			var r *adapter.Refusal
			if !errors.As(err, &r) || r.Code == "" {
				t.Fatalf("%v is not a refusal with a code", err)
			}
			return
		}
		if e.Payload != want.Payload || d.UID != "boot:1" { // nothing else was ever signed as a detection
			t.Fatalf("taken without a signature: %s", line)
		}
	})
}
