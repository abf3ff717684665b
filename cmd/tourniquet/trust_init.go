package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/sys/keys"
	"tourniquet.dev/tourniquet/internal/sys/temporalclient"
	"tourniquet.dev/tourniquet/internal/trust"
)

// initRequest is what a new trust folder is made from.
type initRequest struct {
	name               string
	accounts, clusters []string
	people             []string // id, or id:group
}

func (a *app) trustInit() *cobra.Command {
	var r initRequest
	cmd := &cobra.Command{
		Use:   "init FOLDER",
		Short: "Make the root key, a key for each role, and a first trust file",
		Long: `Makes a folder (mode 0700) with new keys and a trust.yaml that names them:

  root.key, root.pub       the offline root: keep root.key away from every machine that runs Tourniquet
  keys/<role>.key          node-ca, intake, decide, investigate, contain-aws, contain-kubernetes, playbook-signer
  keys/button-token.key    shared by notify and decide
  keys/ring.json           keys of the payload codec, for every Temporal role
  people/<id>.key          for each --person

Then edit trust.yaml and sign it: tourniquet trust sign FOLDER/trust.yaml --key FOLDER/root.key

` + codesHelp,
		Args: cobra.ExactArgs(1),
		RunE: a.do(func(_ *cobra.Command, args []string) error { return a.initTrust(args[0], r) }),
	}
	f := cmd.Flags()
	f.StringVar(&r.name, "name", "tourniquet", "`NAME` of the trust file")
	f.StringSliceVar(&r.accounts, "account", nil, "AWS `ACCOUNT` in scope; may be repeated")
	f.StringSliceVar(&r.clusters, "cluster", nil, "`CLUSTER` in scope; may be repeated")
	f.StringSliceVar(&r.people, "person", nil, "`ID[:GROUP]` of a person to make a key for; may be repeated")
	return cmd
}

// initRoles are the roles that get a key, in the order of the trust file.
var initRoles = []trust.Role{trust.RoleNodeCA, trust.RoleIntake, trust.RoleDecide, trust.RoleInvestigate,
	trust.RoleContainAWS, trust.RoleContainKubernetes, trust.RolePlaybookSigner}

func (a *app) initTrust(dir string, r initRequest) error {
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return usage(fmt.Errorf("%s is not empty", dir), "keys are never overwritten: name a new folder")
	}
	for _, d := range []string{dir, filepath.Join(dir, "keys"), filepath.Join(dir, "people")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return err
		}
	}
	root, err := keys.Generate(filepath.Join(dir, "root.key"))
	if err != nil {
		return err
	}
	if err := keys.WritePublic(filepath.Join(dir, "root.pub"), public(root)); err != nil {
		return err
	}
	if _, err := keys.GenerateSecret(filepath.Join(dir, "keys", "button-token.key")); err != nil {
		return err
	}
	if _, err := temporalclient.RotateKeyRing(filepath.Join(dir, "keys", "ring.json"), a.now()); err != nil {
		return err
	}
	doc, err := draftTrust(dir, r)
	if err != nil {
		return err
	}
	if _, err := trust.Decode([]byte(doc)); err != nil {
		return usage(err, "")
	}
	path := filepath.Join(dir, "trust.yaml")
	if err := writeFile(path, []byte(doc), 0o644, false); err != nil {
		return err
	}
	return a.show(map[string]string{"root": root.KeyID(), "trust": path}, func() {
		a.printf("root key %s\nedit %s, then: tourniquet trust sign %s --key %s\n", root.KeyID(), path, path, filepath.Join(dir, "root.key"))
	})
}

// draftTrust makes the keys of roles and people and the document that names them.
func draftTrust(dir string, r initRequest) (string, error) {
	entry := func(s *authz.Signer) string {
		return fmt.Sprintf("id: %s, public: %s", s.KeyID(), base64.StdEncoding.EncodeToString(public(s)))
	}
	var roles, people strings.Builder
	for _, role := range initRoles {
		s, err := keys.Generate(filepath.Join(dir, "keys", string(role)+".key"))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&roles, "  - {role: %s, %s}\n", role, entry(s))
	}
	for _, p := range r.people {
		id, group, ok := strings.Cut(p, ":")
		if !ok {
			group = "oncall"
		}
		if id == "" || strings.ContainsAny(id+group, "/\\ {}[],:\"'\n") {
			return "", usage(fmt.Errorf("--person %q: want ID or ID:GROUP", p), "")
		}
		s, err := keys.Generate(filepath.Join(dir, "people", id+".key"))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&people, "  - {id: %s, subject: \"change-me|%s\", groups: [%s], keys: [{%s}]}\n", id, id, group, entry(s))
	}
	if people.Len() == 0 {
		people.WriteString("  []\n")
	}
	for _, list := range [][]string{r.accounts, r.clusters, {r.name}} {
		for _, v := range list {
			if v == "" || strings.ContainsAny(v, "\"\\\n{}[],") {
				return "", usage(errors.New("names of accounts and clusters are plain words"), "")
			}
		}
	}
	quoted := func(list []string) string {
		var out []string
		for _, v := range list {
			out = append(out, fmt.Sprintf("%q", v))
		}
		return "[" + strings.Join(out, ", ") + "]"
	}
	return fmt.Sprintf(trustDraft, r.name, roles.String(), people.String(), quoted(r.accounts), quoted(r.clusters)), nil
}

// trustDraft is a careful beginning: little is pre-authorized, much is protected.
const trustDraft = `# The trust file: whose word counts, and how far. Edit it, raise version, sign it with the offline root key.
trust: %s
version: 1
keys:
%s
# Everyone who may be asked. subject is the identity provider's, one for each human being; slack is the member id (U…).
# An own key is of our form or an OpenSSH ed25519 key: tourniquet key show FILE prints its entry.
people:
%s
# Third-party detectors that intake knows, and whether their word may start anything without a person.
sources: []
# The only accounts and clusters in which anything is ever touched.
scope:
  accounts: %s
  clusters: %s
# What no step may touch. kube-system, tourniquet-system, root and AWS's own roles are always protected.
protected:
  namespaces: []
  service_accounts: []
  principals: [break-glass]
# No playbook can go beyond these.
ceilings:
  pre_authorize: [node/cut-network, kubernetes/block-writes]
  max_pre_authorized: 30m
  max_approved: 168h
  click: [node/cut-network, kubernetes/block-writes, kubernetes/isolate-pod, kubernetes/cut-rbac, aws/quarantine-principal, aws/deactivate-keys, aws/revoke-sessions]
  detection_max_age: 15m
  budget: {effects: 20, window: 1h}
  max_targets: 20
`
