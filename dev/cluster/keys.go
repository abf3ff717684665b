package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// validity of what is issued here: longer than anyone leaves a demo running.
const validity = 365 * 24 * time.Hour

// An authority is a certificate authority of this cluster alone.
type authority struct {
	cert *x509.Certificate
	pem  []byte
	key  *ecdsa.PrivateKey
}

// writeFiles makes the keys and certificates, or reads those of an earlier start, and writes what the two servers read.
// etcd trusts an authority of its own: who may talk to the API server must not be able to go round it.
func (c *Cluster) writeFiles() error {
	etcd, err := loadAuthority(c.opts.StateDir, "etcd-ca")
	if err != nil {
		return err
	}
	if c.clients, err = loadAuthority(c.opts.StateDir, "ca"); err != nil {
		return err
	}
	if c.signingKey, err = loadKey(c.file("service-account.key")); err != nil {
		return err
	}
	return errors.Join(
		etcd.writeLeaf(c.opts.StateDir, "etcd-server", serverTemplate()),
		etcd.writeLeaf(c.opts.StateDir, "etcd-client", clientTemplate("kube-apiserver", nil)),
		c.clients.writeLeaf(c.opts.StateDir, "server", serverTemplate()),
		writeFile(c.file("audit-policy.yaml"), []byte(auditPolicy)),
		c.writeAdmin(),
	)
}

// loadAuthority reads the authority that the folder holds under this name, or makes and keeps a new one.
func loadAuthority(dir, name string) (*authority, error) {
	path := filepath.Join(dir, name)
	key, err := loadKey(path + ".key")
	if err != nil {
		return nil, err
	}
	a := &authority{key: key}
	a.pem, err = os.ReadFile(path + ".crt")
	if errors.Is(err, fs.ErrNotExist) {
		return a, a.sign(path + ".crt")
	}
	if err != nil {
		return nil, fmt.Errorf("read authority: %w", err)
	}
	block, _ := pem.Decode(a.pem)
	if block == nil {
		return nil, fmt.Errorf("read authority: no PEM in %s.crt", path)
	}
	if a.cert, err = x509.ParseCertificate(block.Bytes); err != nil {
		return nil, fmt.Errorf("read authority: %w", err)
	}
	return a, nil
}

// sign makes the authority's own certificate and keeps it.
func (a *authority) sign(path string) error {
	template := leaf("tourniquet dev "+filepath.Base(path), nil)
	template.IsCA, template.BasicConstraintsValid = true, true
	template.NotAfter = template.NotBefore.Add(10 * validity)
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		return fmt.Errorf("make authority: %w", err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		return fmt.Errorf("make authority: %w", err)
	}
	a.pem = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return writeFile(path, a.pem)
}

// issue makes a key and a certificate for it.
func (a *authority) issue(template *x509.Certificate) (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make key: %w", err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, nil, fmt.Errorf("issue certificate: %w", err)
	}
	keyPEM, err = encodeKey(key)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), keyPEM, err
}

func (a *authority) writeLeaf(dir, name string, template *x509.Certificate) error {
	cert, key, err := a.issue(template)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, name)
	return errors.Join(writeFile(path+".key", key), writeFile(path+".crt", cert))
}

// leaf is what every certificate here begins with. An hour back, for the clock of a container.
func leaf(name string, groups []string) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)) // fails only for a bound of 0
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name, Organization: groups},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(validity),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
}

func serverTemplate() *x509.Certificate {
	t := leaf("localhost", nil)
	t.DNSNames = []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"}
	t.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	// Client use too: etcd's server calls itself with its own certificate.
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	return t
}

func clientTemplate(name string, groups []string) *x509.Certificate {
	t := leaf(name, groups)
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return t
}

// loadKey reads the key in the file, or makes one and keeps it.
func loadKey(path string) (*ecdsa.PrivateKey, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("make key: %w", err)
		}
		if b, err = encodeKey(key); err != nil {
			return nil, err
		}
		return key, writeFile(path, b)
	}
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("read key: no PEM in %s", path)
	}
	key, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read key %s: %w", path, err)
	}
	return key, nil
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}

// writeFile replaces a file as a whole, so that a start that was cut short leaves none half written.
func writeFile(path string, b []byte) error {
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return fmt.Errorf("write file: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("write file: %w", err)
	}
	return nil
}
