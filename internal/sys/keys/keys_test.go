package keys_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/sys/keys"
)

func TestGeneratedKeyLoadsBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "decide.key")
	made, err := keys.Generate(path)
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := keys.LoadSigner(path)
	if err != nil {
		t.Fatal(err)
	}
	if made.KeyID() != loaded.KeyID() || !made.Key().Equal(loaded.Key()) {
		t.Error("the loaded key is another one")
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode is %v, %v", info.Mode(), err)
	}
	if _, err := keys.Generate(path); !errors.Is(err, os.ErrExist) {
		t.Errorf("a key was made over another: %v", err)
	}
}

func TestLoadSignerRefuses(t *testing.T) {
	good := base64.StdEncoding.EncodeToString(make([]byte, 32))
	for name, tc := range map[string]struct {
		content string
		mode    os.FileMode
		want    error
	}{
		"others may read it":     {good + "\n", 0o644, keys.ErrMode},
		"the group may read it":  {good + "\n", 0o640, keys.ErrMode},
		"the group may write it": {good + "\n", 0o620, keys.ErrMode},
		"a public-key length":    {base64.StdEncoding.EncodeToString(make([]byte, 64)), 0o600, keys.ErrForm},
		"nothing":                {"", 0o600, keys.ErrForm},
		"not base64":             {"-----BEGIN PRIVATE KEY-----", 0o600, keys.ErrForm},
		"a second line":          {good + "\n" + good + "\n", 0o600, keys.ErrForm},
		"a huge file":            {good + string(make([]byte, 1<<20)), 0o600, keys.ErrForm},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "k")
			writeFile(t, path, tc.content, tc.mode)
			if _, err := keys.LoadSigner(path); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
	if _, err := keys.LoadSigner(t.TempDir()); !errors.Is(err, keys.ErrForm) {
		t.Errorf("a folder: %v", err)
	}
	if _, err := keys.LoadSigner(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func TestLoadTextRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		content string
		mode    os.FileMode
		want    error
	}{
		"one line":              {"xoxb-test", 0o600, nil},
		"with its line break":   {"xoxb-test\n", 0o600, nil},
		"others may read it":    {"xoxb-test", 0o604, keys.ErrMode},
		"nothing":               {"\n", 0o600, keys.ErrForm},
		"two lines":             {"a\nb\n", 0o600, keys.ErrForm},
		"a carriage return":     {"a\r\n", 0o600, keys.ErrForm},
		"more than a secret is": {string(make([]byte, 5000)), 0o600, keys.ErrForm},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "k")
			writeFile(t, path, tc.content, tc.mode)
			got, err := keys.LoadText(path)
			if !errors.Is(err, tc.want) || (tc.want == nil && got != "xoxb-test") {
				t.Errorf("got %q, %v, want %v", got, err, tc.want)
			}
		})
	}
}

const playbookYAML = `
playbook: p
version: 1
match: {techniques: [T1552.005], severity: [high]}
contain: [{action: aws/deactivate-keys, review: 1h}]
tiers: [{ask: oncall, timeout: 5m}]
`

func trustYAML(signer *authz.Signer) string {
	pub := signer.Key().Public().(ed25519.PublicKey)
	return `
trust: t
version: 1
keys: [{id: ` + signer.KeyID() + `, role: playbook-signer, public: ` + base64.StdEncoding.EncodeToString(pub) + `}]
people: []
scope: {accounts: [], clusters: []}
protected: {namespaces: [], service_accounts: [], principals: []}
ceilings: {pre_authorize: [], max_pre_authorized: 1h, max_approved: 1h, click: [], detection_max_age: 1h, budget: {effects: 1, window: 1h}, max_targets: 1}
`
}

func TestTrustAndPlaybooksAreVerified(t *testing.T) {
	dir := t.TempDir()
	root, signer := generate(t, filepath.Join(dir, "root")), generate(t, filepath.Join(dir, "signer"))
	rootPub := filepath.Join(dir, "root.pub")
	if err := keys.WritePublic(rootPub, root.Key().Public().(ed25519.PublicKey)); err != nil {
		t.Fatal(err)
	}
	trustPath := filepath.Join(dir, "trust.json")
	writeEnvelope(t, trustPath, root, authz.TypeTrust, trustYAML(signer))
	tr, err := keys.LoadTrust(trustPath, rootPub)
	if err != nil {
		t.Fatal(err)
	}

	books := filepath.Join(dir, "playbooks")
	if err := os.Mkdir(books, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := keys.LoadPlaybooks(tr, books); err == nil {
		t.Error("a folder without playbooks was taken")
	}
	writeEnvelope(t, filepath.Join(books, "p.json"), signer, authz.TypePlaybook, playbookYAML)
	got, err := keys.LoadPlaybooks(tr, books)
	if err != nil || len(got) != 1 || got[0].Playbook.Playbook != "p" {
		t.Fatalf("got %v, %v", got, err)
	}

	other := filepath.Join(dir, "other.json")
	writeEnvelope(t, other, signer, authz.TypeTrust, trustYAML(signer))
	if _, err := keys.LoadTrust(other, rootPub); !errors.Is(err, authz.ErrSignature) {
		t.Errorf("a trust file of another key: %v", err)
	}
	writeEnvelope(t, filepath.Join(books, "q.json"), root, authz.TypePlaybook, playbookYAML)
	if _, err := keys.LoadPlaybooks(tr, books); !errors.Is(err, authz.ErrSignature) {
		t.Errorf("a playbook of another key: %v", err)
	}
	writeEnvelope(t, filepath.Join(books, "q.json"), signer, authz.TypePlaybook, playbookYAML+"# same version, other bytes\n")
	if _, err := keys.LoadPlaybooks(tr, books); err == nil {
		t.Error("one version in two documents was taken")
	}
	if err := os.Chmod(trustPath, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := keys.LoadTrust(trustPath, rootPub); !errors.Is(err, keys.ErrMode) {
		t.Errorf("a trust file that anybody may write: %v", err)
	}
}

func TestNodeSignerCarriesItsCertificate(t *testing.T) {
	dir := t.TempDir()
	ca, node := generate(t, filepath.Join(dir, "ca")), generate(t, filepath.Join(dir, "node"))
	cert, err := authz.CertifyNode(ca, "c", "n", node.Key().Public().(ed25519.PublicKey), time.Now().Add(time.Hour).UTC().Truncate(time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := cert.Encode()
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "cert.json"), string(raw), 0o644)
	s, err := keys.LoadNodeSigner(filepath.Join(dir, "node"), filepath.Join(dir, "cert.json"))
	if err != nil {
		t.Fatal(err)
	}
	e, err := s.Sign(authz.TypeReceipt, map[string]int{"v": 1})
	if err != nil || e.Certificate == nil || e.Certificate.Payload != cert.Payload {
		t.Errorf("no certificate in %v, %v", e, err)
	}
	writeEnvelope(t, filepath.Join(dir, "wrong.json"), ca, authz.TypeOrder, "{}")
	if _, err := keys.LoadNodeSigner(filepath.Join(dir, "node"), filepath.Join(dir, "wrong.json")); !errors.Is(err, authz.ErrPayloadType) {
		t.Errorf("an order as certificate: %v", err)
	}
}

func generate(t *testing.T, path string) *authz.Signer {
	t.Helper()
	s, err := keys.Generate(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func writeEnvelope(t *testing.T, path string, s *authz.Signer, payloadType, body string) {
	t.Helper()
	e, err := s.SignBytes(payloadType, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, string(raw), 0o644)
}

func writeFile(t *testing.T, path, content string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}
