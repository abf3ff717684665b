package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"
	"golang.org/x/term"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/sys/keys"
	"tourniquet.dev/tourniquet/internal/trust"
)

// maxKeyFile bounds a private key's file.
const maxKeyFile = 64 << 10

func (a *app) keyCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "key", Short: "Make and show key files", Args: cobra.NoArgs, RunE: a.do(helpOnly)}
	cmd.AddCommand(&cobra.Command{
		Use: "new FILE", Short: "Make an Ed25519 key: FILE (mode 0600) and FILE.pub",
		Long: "Makes an Ed25519 key: FILE with mode 0600, and its public half in FILE.pub. Neither may exist yet.\nIt prints the entry for the trust file.\n\n" + codesHelp,
		Args: cobra.ExactArgs(1),
		RunE: a.do(func(_ *cobra.Command, args []string) error {
			s, err := keys.Generate(args[0])
			if err != nil {
				return err
			}
			if err := keys.WritePublic(args[0]+".pub", public(s)); err != nil {
				return err
			}
			return a.showKey(s)
		}),
	}, &cobra.Command{
		Use: "show FILE", Short: "Show the public half of a private key as the trust file has it",
		Long: "Shows the key id and public half of a private key, of our own form or OpenSSH (ed25519), as the trust file has it.\n\n" + codesHelp,
		Args: cobra.ExactArgs(1),
		RunE: a.do(func(_ *cobra.Command, args []string) error {
			s, err := loadKey(args[0], "")
			if err != nil {
				return err
			}
			return a.showKey(s)
		}),
	})
	return cmd
}

func helpOnly(cmd *cobra.Command, _ []string) error { return cmd.Help() }

func (a *app) showKey(s *authz.Signer) error {
	k := trust.Key{ID: s.KeyID(), Public: base64.StdEncoding.EncodeToString(public(s))}
	return a.show(struct {
		ID     string `json:"id"`
		Public string `json:"public"`
	}{k.ID, k.Public}, func() { a.printf("{id: %s, public: %s}\n", k.ID, k.Public) })
}

func public(s *authz.Signer) ed25519.PublicKey {
	pub, _ := s.Key().Public().(ed25519.PublicKey) // the key is an ed25519.PrivateKey
	return pub
}

// loadKey reads a private key of our own form or of OpenSSH. A passphrase is read from its file, or asked for on the
// terminal.
func loadKey(path, passphraseFile string) (*authz.Signer, error) {
	if err := need("key", path); err != nil {
		return nil, err
	}
	data, err := readSecret(path)
	if err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(data, []byte("-----BEGIN")) {
		return keys.LoadSigner(path)
	}
	raw, err := ssh.ParseRawPrivateKey(data)
	var locked *ssh.PassphraseMissingError
	if errors.As(err, &locked) {
		var pass []byte
		if pass, err = passphrase(path, passphraseFile); err != nil {
			return nil, err
		}
		raw, err = ssh.ParseRawPrivateKeyWithPassphrase(data, pass)
	}
	if err != nil {
		return nil, usage(fmt.Errorf("%s: %w", path, err), "want an OpenSSH private key, and its passphrase")
	}
	key, ok := raw.(*ed25519.PrivateKey)
	if !ok {
		return nil, usage(fmt.Errorf("%s: it is a %T", path, raw), "only ed25519 keys sign decisions: ssh-keygen -t ed25519")
	}
	return authz.NewSigner(*key), nil
}

// readSecret reads a file that only its owner may read.
func readSecret(path string) ([]byte, error) {
	f, err := os.Open(path) // #nosec G304 -- the person's own key
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("read key: %s: %w: %04o", path, keys.ErrMode, info.Mode().Perm())
	}
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	return data, nil
}

func passphrase(path, file string) ([]byte, error) {
	if file != "" {
		data, err := readSecret(file)
		if err != nil {
			return nil, fmt.Errorf("passphrase: %w", err)
		}
		return []byte(strings.TrimRight(string(data), "\r\n")), nil
	}
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, usage(fmt.Errorf("%s has a passphrase and there is no terminal to ask on", path), "give --passphrase-file")
	}
	defer tty.Close()
	fmt.Fprintf(tty, "Passphrase of %s: ", path)
	pass, err := term.ReadPassword(int(tty.Fd())) // #nosec G115 -- a file descriptor
	fmt.Fprintln(tty)
	if err != nil {
		return nil, fmt.Errorf("read passphrase: %w", err)
	}
	return pass, nil
}

// personOf finds whose own key this is.
func personOf(t *trust.File, s *authz.Signer) (trust.Person, error) {
	for _, p := range t.People {
		for _, k := range p.Keys {
			if pub, err := k.Ed25519(); err == nil && k.ID == s.KeyID() && public(s).Equal(pub) {
				return p, nil
			}
		}
	}
	return trust.Person{}, refused(fmt.Errorf("key %s is no person's key in trust file %s v%d", s.KeyID(), t.Trust, t.Version),
		"have the key added under people[].keys and the trust file signed: tourniquet key show FILE")
}

// peopleKeys are all people's own keys, by id.
func peopleKeys(t *trust.File) map[string]ed25519.PublicKey {
	out := map[string]ed25519.PublicKey{}
	for _, p := range t.People {
		for _, k := range p.Keys {
			if pub, err := k.Ed25519(); err == nil {
				out[k.ID] = pub
			}
		}
	}
	return out
}
