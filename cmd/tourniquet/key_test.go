package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/crypto/ssh"

	"tourniquet.dev/tourniquet/internal/authz/authztest"
	"tourniquet.dev/tourniquet/internal/sys/keys"
)

func writePEM(t *testing.T, name string, mode os.FileMode, key crypto.PrivateKey, passphrase string) string {
	t.Helper()
	var block *pem.Block
	var err error
	if passphrase == "" {
		block, err = ssh.MarshalPrivateKey(key, "ana")
	} else {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(key, "ana", []byte(passphrase))
	}
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, pem.EncodeToMemory(block), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestOwnKeyIsReadInBothForms(t *testing.T) {
	ana := authztest.Signer("ana")
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(t.TempDir(), "ana.key")
	secret := filepath.Join(t.TempDir(), "pass")
	wrong := filepath.Join(t.TempDir(), "wrong")
	for path, content := range map[string]string{own: seed(ana), secret: "correct horse\n", wrong: "battery\n"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	locked := writePEM(t, "locked", 0o600, ana.Key(), "correct horse")
	for name, tc := range map[string]struct {
		path, pass string
		want       error // nil: ana's key comes out
	}{
		"our own form":             {own, "", nil},
		"OpenSSH":                  {writePEM(t, "id", 0o600, ana.Key(), ""), "", nil},
		"OpenSSH, passphrase":      {locked, secret, nil},
		"OpenSSH, wrong one":       {locked, wrong, errUsage},
		"not ed25519":              {writePEM(t, "ec", 0o600, other, ""), "", errUsage},
		"readable by others":       {writePEM(t, "wide", 0o644, ana.Key(), ""), "", keys.ErrMode},
		"not a key":                {secret, "", keys.ErrForm},
		"not there":                {own + "x", "", os.ErrNotExist},
		"not given":                {"", "", errUsage},
		"a passphrase for nothing": {own, secret, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := loadKey(tc.path, tc.pass)
			if !errors.Is(err, tc.want) {
				t.Fatalf("got %v, want %v", err, tc.want)
			}
			if tc.want == nil && (s.KeyID() != ana.KeyID() || !s.Key().Equal(ed25519.PrivateKey(ana.Key()))) {
				t.Error("another key came out")
			}
		})
	}
}
