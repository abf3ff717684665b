package bundle_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/authz/authztest"
	"tourniquet.dev/tourniquet/internal/canonical"
	"tourniquet.dev/tourniquet/internal/sys/bundle"
)

var (
	ana    = authztest.Signer("ana")
	keys   = map[string]ed25519.PublicKey{ana.KeyID(): ana.Key().Public().(ed25519.PublicKey)}
	header = bundle.Manifest{IncidentID: "i234567abcdef", Person: "ana", ExportedAt: time.Date(2026, 11, 23, 4, 0, 0, 0, time.UTC)}
	files  = map[string][]byte{"trust.json": []byte("{}"), "store/0a": {0, 1, 2, 255}, "empty": {}}
)

func seal(tb testing.TB, files map[string][]byte) []byte {
	tb.Helper()
	data, err := bundle.Seal(ana, header, files)
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

func check(data []byte) (bundle.Manifest, error) {
	b, err := bundle.Open(data)
	if err != nil {
		return bundle.Manifest{}, err
	}
	m, _, err := b.Verify(keys)
	return m, err
}

func TestWhatWasSealedComesOut(t *testing.T) {
	data := seal(t, files)
	b, err := bundle.Open(data)
	if err != nil {
		t.Fatal(err)
	}
	m, key, err := b.Verify(keys)
	if err != nil {
		t.Fatal(err)
	}
	want := header
	want.V, want.Files = 1, []bundle.File{
		{Name: "empty", Digest: canonical.DigestOf(nil)}, {Name: "store/0a", Digest: canonical.DigestOf(files["store/0a"]), Size: 4},
		{Name: "trust.json", Digest: canonical.DigestOf([]byte("{}")), Size: 2}}
	if diff := cmp.Diff(want, m); diff != "" || key != ana.KeyID() {
		t.Error(diff, key)
	}
	if diff := cmp.Diff(files, b.Files); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"store/0a"}, b.Under("store")); diff != "" {
		t.Error(diff)
	}
}

// I31: every one of the 255 other values of every byte is detected, and every byte that is missing or doubled.
func TestI31EveryOtherByteIsDetected(t *testing.T) {
	good := seal(t, map[string][]byte{"a": []byte("record"), "b": {}})
	if _, err := check(good); err != nil {
		t.Fatal(err)
	}
	refused := func(i int, edit []byte) {
		_, err := check(edit)
		if !errors.Is(err, bundle.ErrForm) && !errors.Is(err, bundle.ErrManifest) {
			t.Errorf("byte %d: …%s…: %v", i, edit[max(0, i-10):min(len(edit), i+10)], err)
		}
	}
	for i := range good {
		for v := range 256 {
			if edit := bytes.Clone(good); byte(v) != good[i] {
				edit[i] = byte(v)
				refused(i, edit)
			}
		}
		refused(i, append(bytes.Clone(good[:i]), good[i+1:]...))
		refused(i, append(bytes.Clone(good[:i+1]), good[i:]...))
		refused(i, good[:i])
	}
}

func TestOpenRefusesOtherSpellings(t *testing.T) {
	good := string(seal(t, files))
	e, err := bundle.Open([]byte(good))
	if err != nil {
		t.Fatal(err)
	}
	payload := e.Envelope.Payload
	for name, bad := range map[string]string{
		"a space":             strings.Replace(good, `"files":`, `"files": `, 1),
		"another order":       strings.Replace(good, `"empty":"","store/0a":"AAEC/w=="`, `"store/0a":"AAEC/w==","empty":""`, 1),
		"null for empty":      strings.Replace(good, `"empty":""`, `"empty":null`, 1),
		"stray bits":          strings.Replace(good, `"AAEC/w=="`, `"AAEC/x=="`, 1),
		"an escaped slash":    strings.Replace(good, `"AAEC/w=="`, `"AAEC\/w=="`, 1),
		"a line break":        strings.Replace(good, `"AAEC/w=="`, `"AAEC\n/w=="`, 1),
		"an unknown key":      strings.Replace(good, `{"files"`, `{"extra":1,"files"`, 1),
		"a file twice":        strings.Replace(good, `"empty":""`, `"empty":"","empty":""`, 1),
		"another format":      strings.Replace(good, "bundle v1", "bundle v2", 1),
		"a manifest's break":  strings.Replace(good, payload, payload[:8]+`\n`+payload[8:], 1),
		"a second document":   good + good,
		"nothing":             "",
		"a signature removed": good[:strings.Index(good, `"signatures":[`)] + `"signatures":[]}}`,
	} {
		if bad == good {
			t.Fatalf("%s: nothing was changed", name)
		}
		if _, err := check([]byte(bad)); !errors.Is(err, bundle.ErrForm) {
			t.Errorf("%s: got %v, want ErrForm", name, err)
		}
	}
}

func TestVerifyRefuses(t *testing.T) {
	for name, change := range map[string]func(b *bundle.Bundle){
		"a changed file":  func(b *bundle.Bundle) { b.Files["trust.json"] = []byte("[]") },
		"a missing file":  func(b *bundle.Bundle) { delete(b.Files, "empty") },
		"one file more":   func(b *bundle.Bundle) { b.Files["zero"] = []byte("x") },
		"a renamed file":  func(b *bundle.Bundle) { b.Files["empty2"] = b.Files["empty"]; delete(b.Files, "empty") },
		"a stranger":      func(b *bundle.Bundle) { b.Envelope.Signatures[0].KeyID = "0000000000000000" },
		"another purpose": func(b *bundle.Bundle) { b.Envelope.PayloadType = authz.TypeDecision },
	} {
		b, err := bundle.Open(seal(t, files))
		if err != nil {
			t.Fatal(err)
		}
		change(b)
		if _, _, err := b.Verify(keys); !errors.Is(err, bundle.ErrManifest) {
			t.Errorf("%s: got %v, want ErrManifest", name, err)
		}
	}
}

func TestSealRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		m    bundle.Manifest
		file string
	}{
		"no incident":     {bundle.Manifest{Person: "ana", ExportedAt: header.ExportedAt}, "a"},
		"nobody":          {bundle.Manifest{IncidentID: header.IncidentID, ExportedAt: header.ExportedAt}, "a"},
		"no time":         {bundle.Manifest{IncidentID: header.IncidentID, Person: "ana"}, "a"},
		"a way out":       {header, "../a"},
		"an absolute way": {header, "/a"},
		"an empty part":   {header, "a//b"},
		"no name":         {header, ""},
	} {
		if _, err := bundle.Seal(ana, tc.m, map[string][]byte{tc.file: nil}); err == nil {
			t.Errorf("%s is sealed", name)
		}
	}
}

// Whatever bytes come, what verifies is what was sealed.
func FuzzOpen(f *testing.F) {
	good := seal(f, files)
	f.Add(good)
	f.Add(seal(f, map[string][]byte{"a": []byte("x")}))
	f.Add([]byte(`{"files":{},"format":"tourniquet audit bundle v1","manifest":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := check(data)
		if err != nil {
			return
		}
		b, err := bundle.Open(data)
		if err != nil {
			t.Fatal(err)
		}
		again, err := bundle.Seal(ana, m, b.Files)
		if err != nil || !bytes.Equal(again, data) {
			t.Fatalf("it verifies, and is sealed in another way: %v", err)
		}
	})
}
