package main

import "github.com/spf13/cobra"

func (a *app) auditCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "audit", Short: "Export and verify the record of an incident", Args: cobra.NoArgs, RunE: a.do(helpOnly)}
	return cmd
}
