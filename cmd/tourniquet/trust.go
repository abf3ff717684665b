package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/sys/keys"
	"tourniquet.dev/tourniquet/internal/trust"
)

func (a *app) trustCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "trust", Short: "Make, sign and show the trust file", Args: cobra.NoArgs, RunE: a.do(helpOnly)}
	cmd.AddCommand(a.trustInit(), a.trustSign(), a.trustShow())
	return cmd
}

func (a *app) trustSign() *cobra.Command {
	var out string
	var replace bool
	cmd := &cobra.Command{
		Use:   "sign FILE --key ROOT-KEY",
		Short: "Sign a trust file with the offline root key",
		Long: `Checks a trust file (YAML), shows what it says, and signs it with the root key. The envelope is what every process is
given as trust, beside the root's public key. Raise version each time.

` + codesHelp,
		Args: cobra.ExactArgs(1),
		RunE: a.do(func(_ *cobra.Command, args []string) error {
			return a.sign(args[0], out, replace, authz.TypeTrust, func(raw []byte) error {
				t, err := trust.Decode(raw)
				if err != nil {
					return usage(err, "tourniquet check "+args[0]+" lists every problem")
				}
				a.describeTrust(t)
				return nil
			})
		}),
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "`FILE` for the envelope (default: FILE with .json for .yaml)")
	cmd.Flags().BoolVar(&replace, "replace", false, "replace an older envelope")
	return cmd
}

// sign reads a YAML document, has it checked, and writes its signed envelope.
func (a *app) sign(path, out string, replace bool, payloadType string, check func(raw []byte) error) error {
	c, err := a.load()
	if err != nil {
		return err
	}
	raw, err := readFile(path, authz.MaxEnvelope/2)
	if err != nil {
		return err
	}
	if err := check(raw); err != nil {
		return err
	}
	signer, err := loadKey(c.Key, "")
	if err != nil {
		return err
	}
	e, err := signer.SignBytes(payloadType, raw)
	if err != nil {
		return err
	}
	if out == "" {
		out = strings.TrimSuffix(strings.TrimSuffix(path, ".yaml"), ".yml") + ".json"
	}
	if err := a.writeEnvelope(out, e, replace); err != nil {
		return err
	}
	if !a.asJSON {
		a.printf("signed by key %s: %s\n", signer.KeyID(), out)
		return nil
	}
	return a.show(map[string]string{"key": signer.KeyID(), "output": out}, nil)
}

func (a *app) trustShow() *cobra.Command {
	return &cobra.Command{
		Use:   "show [FILE]",
		Short: "Verify a signed trust file and show what it says",
		Long: `Verifies the signed trust file with the root's public key (--root) and shows whom it trusts with what. FILE is --trust
if not given. A trust file that the root did not sign is refused.

` + codesHelp,
		Args: cobra.MaximumNArgs(1),
		RunE: a.do(func(_ *cobra.Command, args []string) error {
			c, err := a.load()
			if err != nil {
				return err
			}
			if len(args) > 0 {
				c.Trust = args[0]
			}
			t, err := c.loadTrust()
			if err != nil {
				return err
			}
			root, err := keys.LoadPublic(c.Root)
			if err != nil {
				return err
			}
			return a.show(t, func() {
				a.printf("signed by root key %s\n", trust.KeyID(root))
				a.describeTrust(t)
			})
		}),
	}
}

// describeTrust tells people what a trust file says.
func (a *app) describeTrust(t *trust.File) {
	if a.asJSON {
		return
	}
	a.printf("trust file %s, version %d\n", t.Trust, t.Version)
	a.printf("scope: accounts %s; clusters %s\n", orNone(t.Scope.Accounts), orNone(t.Scope.Clusters))
	a.printf("keys:\n")
	for _, k := range t.Keys {
		a.printf("  %-20s %s\n", k.Role, k.ID)
	}
	a.printf("people:\n")
	for _, p := range t.People {
		var own []string
		for _, k := range p.Keys {
			own = append(own, k.ID)
		}
		a.printf("  %-20s %s; groups %s; slack %s; own keys %s\n", p.ID, plain(p.Subject), orNone(p.Groups), orNone(nonEmpty(p.Slack)), orNone(own))
	}
	for _, s := range t.Sources {
		a.printf("third party: %s, may pre-authorize: %v\n", plain(s.Name), s.PreAuthorize)
	}
	a.printf("protected: namespaces %s; service accounts %s; principals %s\n", orNone(t.Protected.Namespaces), orNone(t.Protected.ServiceAccounts), orNone(t.Protected.Principals))
	c := t.Ceilings
	a.printf("without a person: %s; at most %s each, %d in %s; detections up to %s old\n", orNone(c.PreAuthorize), c.MaxPreAuthorized, c.Budget.Effects, c.Budget.Window, c.DetectionMaxAge)
	a.printf("by a click: %s; at most %s, %d targets a plan\n", orNone(c.Click), c.MaxApproved, c.MaxTargets)
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return plain(strings.Join(list, ", "))
}

func nonEmpty(s ...string) []string {
	return slices.DeleteFunc(s, func(v string) bool { return v == "" })
}
