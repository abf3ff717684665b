package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/sys/keys"
)

// nodeRequest is what a node's certificate is made from.
type nodeRequest struct {
	node, cluster, public, out string
	valid                      time.Duration
	replace                    bool
}

func (a *app) nodeCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "node", Short: "Certify nodes", Args: cobra.NoArgs, RunE: a.do(helpOnly)}
	var n nodeRequest
	certify := &cobra.Command{
		Use:   "certify --key NODE-CA-KEY --node NAME --cluster NAME --public FILE -o FILE",
		Short: "Certify a node's key with the node CA",
		Long: `Signs a certificate by which a node's sensor may speak for that node of that cluster, and for no other. The node's key
is made where the node is (tourniquet key new); only its public half comes here.

` + codesHelp,
		Args: cobra.NoArgs,
		RunE: a.do(func(*cobra.Command, []string) error { return a.certify(n) }),
	}
	f := certify.Flags()
	f.StringVar(&n.node, "node", "", "`NAME` of the node")
	f.StringVar(&n.cluster, "cluster", "", "`NAME` of the cluster, as in the trust file's scope")
	f.StringVar(&n.public, "public", "", "`FILE` with the node's public key")
	f.DurationVar(&n.valid, "for", 90*24*time.Hour, "how long it is valid")
	f.StringVarP(&n.out, "output", "o", "", "`FILE` for the certificate")
	f.BoolVar(&n.replace, "replace", false, "replace an older certificate")
	cmd.AddCommand(certify)
	return cmd
}

func (a *app) certify(n nodeRequest) error {
	c, err := a.load()
	if err != nil {
		return err
	}
	if err := errors.Join(need("node", n.node), need("cluster", n.cluster), need("public", n.public), need("output", n.out)); err != nil {
		return err
	}
	if n.valid <= 0 || n.valid > 366*24*time.Hour {
		return usage(fmt.Errorf("--for %s: must be positive, at most a year", n.valid), "")
	}
	pub, err := keys.LoadPublic(n.public)
	if err != nil {
		return err
	}
	ca, err := loadKey(c.Key, "")
	if err != nil {
		return err
	}
	end := a.now().Add(n.valid).UTC().Truncate(time.Millisecond)
	e, err := authz.CertifyNode(ca, n.cluster, n.node, pub, end)
	if err != nil {
		return err
	}
	if err := a.writeEnvelope(n.out, e, n.replace); err != nil {
		return err
	}
	return a.show(map[string]any{"node": n.node, "cluster": n.cluster, "key": ca.KeyID(), "not_after": end, "output": n.out}, func() {
		a.printf("node %s of cluster %s, certified by key %s until %s: %s\n", plain(n.node), plain(n.cluster), ca.KeyID(), stamp(end), n.out)
	})
}
