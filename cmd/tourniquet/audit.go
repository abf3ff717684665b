package main

import (
	"github.com/spf13/cobra"
)

// The files of an audit bundle, by folder.
const (
	fileTrust       = "trust.json"
	folderPlaybooks = "playbooks" // <name>.v<version>.json: signed playbooks
	folderStore     = "store"     // <sha-256>: objects of the store under their digest
	folderLedgers   = "ledgers"   // <role>/<n>.json: entries of that role's ledger, with their proofs
	folderHistories = "histories" // <workflow id>/<run id>.json: Temporal's own JSON, payloads still encrypted
)

func (a *app) auditCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "audit", Short: "Export and verify the record of an incident", Args: cobra.NoArgs, RunE: a.do(helpOnly)}
	cmd.AddCommand(a.auditExport(), a.auditVerify())
	return cmd
}

func (a *app) auditExport() *cobra.Command {
	var x exportRequest
	cmd := &cobra.Command{
		Use:   "export INCIDENT -o FILE --key FILE",
		Short: "Collect the record of an incident into one signed file",
		Long: `Collects the record of an incident into one file: the histories of its workflows (payloads still encrypted), every object of
the store that they name, the signed trust file and playbooks, and from each ledger (journals in the configuration) the
entries about the incident, with proofs of inclusion and the signed checkpoint. You sign its manifest with your own key
(--key), which stands in the trust file. INCIDENT is the incident's id or its workflow key. Nothing is changed anywhere.

--without-histories leaves Temporal out, where it was lost: then INCIDENT is the id, and the ledgers name the objects.

` + codesHelp,
		Args: cobra.ExactArgs(1),
		RunE: a.do(func(cmd *cobra.Command, args []string) error {
			x.incident = args[0]
			return a.export(cmd.Context(), x)
		}),
	}
	f := cmd.Flags()
	f.StringVarP(&x.out, "output", "o", "", "`FILE` for the bundle; it must not be there yet")
	f.BoolVar(&x.withoutHistories, "without-histories", false, "leave Temporal out")
	f.StringVar(&x.passphraseFile, "passphrase-file", "", "`FILE` with the passphrase of an OpenSSH key")
	return cmd
}

func (a *app) auditVerify() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify FILE --root PUB --key-ring RING",
		Short: "Verify such a file offline: judge again, replay, check every proof and signature",
		Long: `Verifies an audit bundle with nothing but the bundle, the root's public key (--root) and the payload keys (--key-ring). It
needs no network and no other file, and prints one line for each check; the same bundle gives the same lines:

  form        the file is spelt as an export spells it; any change of any byte shows
  trust       the root signed the trust file
  manifest    a person of the trust file signed the list of files, and they are these files
  playbooks   playbook signers signed the playbooks
  store       every object hashes to its name
  ledger      the entries stand in the ledger that its process signed
  judged      every effect and every decision in a ledger is judged again, by the same judge, at its time
  replay      each history replays on this program's workflow code, with the same inputs and result
  statements  decisions, receipts and observations in the histories are validly signed, and in the ledgers
  verdicts    each decision that a workflow had judged is judged again

A line that begins with note is no failure: a forged decision that had no effect, for one. Whether entries were left out
of a bundle, only the ledger itself can tell: the ledger line says how many of how many are here.

Exit codes: 0 everything holds; 1 failed; 2 bad usage or input; 4 something does not hold.`,
		Args: cobra.ExactArgs(1),
		RunE: a.do(func(cmd *cobra.Command, args []string) error { return a.verify(cmd.Context(), args[0]) }),
	}
	return cmd
}
