package main

import (
	"github.com/spf13/cobra"

	"tourniquet.dev/tourniquet/internal/authz"
)

func (a *app) playbookCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "playbook", Short: "Sign playbooks", Args: cobra.NoArgs, RunE: a.do(helpOnly)}
	var out string
	var replace bool
	sign := &cobra.Command{
		Use:   "sign FILE --key SIGNER-KEY",
		Short: "Sign a playbook",
		Long: `Checks a playbook (YAML) and signs it with a playbook-signer key of the trust file. Processes take every *.json of
their playbooks folder.

` + codesHelp,
		Args: cobra.ExactArgs(1),
		RunE: a.do(func(_ *cobra.Command, args []string) error {
			return a.sign(args[0], out, replace, authz.TypePlaybook, func(raw []byte) error {
				is, err := isPlaybook(raw)
				if err != nil {
					return usage(err, "tourniquet check "+args[0]+" lists every problem")
				}
				if !a.asJSON {
					a.printf("%s\n", is)
				}
				return nil
			})
		}),
	}
	sign.Flags().StringVarP(&out, "output", "o", "", "`FILE` for the envelope (default: FILE with .json for .yaml)")
	sign.Flags().BoolVar(&replace, "replace", false, "replace an older envelope")
	cmd.AddCommand(sign)
	return cmd
}
