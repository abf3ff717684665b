package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"tourniquet.dev/tourniquet/internal/detection"
)

// app is one run of the command line: where it reads and writes, its clock, and what all commands share.
type app struct {
	in         io.Reader
	out, errs  io.Writer
	now        func() time.Time
	asJSON     bool
	configPath string
	flags      config // what flags say; it wins over the file
	journals   []string
	ran        bool // our own code was reached
}

func (a *app) command() *cobra.Command {
	root := &cobra.Command{
		Use:   "tourniquet",
		Short: "Contain a compromised workload or machine identity, and account for it",
		Long: `tourniquet shows incidents, signs decisions with your own key, checks and signs configuration, and exports and
verifies the record of an incident.

It is configured by a YAML file (--config, or the TOURNIQUET_CONFIG variable); flags win over the file:

  temporal: {address: 127.0.0.1:7233, namespace: default, key_ring: keys/ring.json}
  trust: trust.json          # the signed trust file
  root: root.pub             # public key of its signer
  playbooks: playbooks       # folder of signed playbooks
  store: store               # folder of the store
  key: keys/me.key           # your own key, or an OpenSSH private key (ed25519)
  journals:                  # for audit export
    - {role: contain-aws, name: tourniquet/contain-aws/123456789012, dir: contain-aws/journal}

` + codesHelp,
		SilenceErrors: true, SilenceUsage: true,
		Args: cobra.NoArgs,
		RunE: a.do(func(cmd *cobra.Command, _ []string) error { return cmd.Help() }),
	}
	root.CompletionOptions.HiddenDefaultCmd = false
	f := root.PersistentFlags()
	f.BoolVar(&a.asJSON, "json", false, "print JSON for machines")
	f.StringVar(&a.configPath, "config", "", "`FILE` with the configuration (YAML); default $TOURNIQUET_CONFIG")
	a.flags.register(f, &a.journals)
	root.AddCommand(a.incidentsCommand(), a.planCommand(), a.checkCommand(), a.trustCommand(), a.playbookCommand(), a.profileCommand(), a.nodeCommand(), a.keyCommand(), a.rulesCommand(),
		a.auditCommand(), a.doctorCommand(), a.versionCommand())
	root.AddCommand(a.decisionCommands()...)
	return root
}

// do marks that our own code was reached: an error before it is bad usage.
func (a *app) do(f func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		a.ran = true
		return f(cmd, args)
	}
}

// printf writes a line for people.
func (a *app) printf(format string, args ...any) { fmt.Fprintf(a.out, format, args...) }

// show prints v as indented JSON when machines are to read it, and what people says otherwise.
func (a *app) show(v any, people func()) error {
	if !a.asJSON {
		people()
		return nil
	}
	enc := json.NewEncoder(a.out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("print JSON: %w", err)
	}
	return nil
}

// plain makes untrusted text one line that cannot drive a terminal.
func plain(s string) string { return detection.Clean(strings.Join(strings.Fields(s), " "), 500) }

// printable keeps lines and drops what could drive a terminal.
func printable(s string, limit int) string {
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "") + "…"
	}
	return strings.Map(func(r rune) rune {
		if r == '\n' || unicode.IsPrint(r) {
			return r
		}
		return -1
	}, s)
}

// short is the form of a digest for people; commands take it back where it is unique.
func short(digest string) string {
	d := strings.TrimPrefix(digest, "sha256:")
	return d[:min(12, len(d))]
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04:05")
}
