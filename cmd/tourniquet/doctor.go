package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"tourniquet.dev/tourniquet/internal/sys/journal"
	"tourniquet.dev/tourniquet/internal/trust"
	"tourniquet.dev/tourniquet/workflows"
)

// oldestServer is the first Temporal server without the known ways from one namespace into another (CVE-2025-14987).
var oldestServer = [3]int{1, 29, 2}

// finding is what doctor found out about one thing.
type finding struct {
	What   string `json:"what"`
	Is     string `json:"is"` // ok, failed, or skipped
	Detail string `json:"detail"`
}

type doctor struct {
	c     config
	found []finding
	trust *trust.File
}

func (a *app) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Check what this machine and configuration offer to the command line",
		Long: `Checks Temporal (reachable, version, search attributes), key files, trust file, playbooks, store and ledgers, as far as they
are configured, and says what is missing for what. It changes nothing. What the sensor needs, the sensor's own doctor checks.

` + codesHelp,
		Args: cobra.NoArgs,
		RunE: a.do(func(cmd *cobra.Command, _ []string) error {
			c, err := a.load()
			if err != nil {
				return err
			}
			d := &doctor{c: c}
			d.examine(cmd.Context())
			bad := 0
			for _, f := range d.found {
				if f.Is == "failed" {
					bad++
				}
			}
			err = a.show(d.found, func() {
				for _, f := range d.found {
					a.printf("%-8s %-18s %s\n", f.Is, f.What, printable(strings.ReplaceAll(f.Detail, "\n", "; "), 500))
				}
			})
			if err == nil && bad > 0 {
				err = fmt.Errorf("%d of %d checks failed", bad, len(d.found))
			}
			return err
		}),
	}
}

// note records one finding. Nothing configured is no failure: the detail says what needs it.
func (d *doctor) note(what, configured, neededFor string, check func() (string, error)) {
	if configured == "" {
		d.found = append(d.found, finding{what, "skipped", "not configured; needed for " + neededFor})
		return
	}
	detail, err := check()
	if err != nil {
		d.found = append(d.found, finding{what, "failed", err.Error()})
		return
	}
	d.found = append(d.found, finding{what, "ok", detail})
}

func (d *doctor) examine(ctx context.Context) {
	c := d.c
	d.note("trust file", c.Trust, "decisions and audit export", func() (string, error) {
		t, err := c.loadTrust()
		if err != nil {
			return "", err
		}
		d.trust = t
		return fmt.Sprintf("%s v%d, signed by the root", t.Trust, t.Version), nil
	})
	d.note("playbooks", c.Playbooks, "decisions and audit export", func() (string, error) {
		if d.trust == nil {
			return "", errors.New("cannot be verified without the trust file")
		}
		books, err := c.loadBooks(d.trust)
		if err != nil {
			return "", err
		}
		var names []string
		for _, b := range books {
			names = append(names, fmt.Sprintf("%s v%d", b.Playbook.Playbook, b.Playbook.Version))
		}
		return strings.Join(names, ", "), nil
	})
	d.note("own key", c.Key, "decisions and audit export", d.ownKey)
	d.note("store", c.Store, "decisions and audit export", func() (string, error) {
		if _, err := c.openStore(); err != nil {
			return "", err
		}
		entries, err := os.ReadDir(c.Store)
		return fmt.Sprintf("%d objects", len(entries)), err
	})
	if len(c.Journals) == 0 {
		d.note("ledgers", "", "audit export", nil)
	}
	for _, j := range c.Journals {
		d.note("ledger", j.Dir, "", func() (string, error) { return d.ledger(j) })
	}
	d.note("key ring", c.Temporal.KeyRing, "everything that asks a workflow, and audit", func() (string, error) {
		_, err := loadRing(c.Temporal.KeyRing)
		return "readable by its owner only", err
	})
	d.note("temporal", c.Temporal.Address, "incidents, decisions and audit export", func() (string, error) { return d.temporal(ctx) })
}

func (d *doctor) ownKey() (string, error) {
	s, err := loadKey(d.c.Key, "")
	if err != nil {
		return "", err
	}
	if d.trust == nil {
		return "key " + s.KeyID(), nil
	}
	p, err := personOf(d.trust, s)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("key %s of %s", s.KeyID(), p.ID), nil
}

func (d *doctor) ledger(j journalConfig) (string, error) {
	if d.trust == nil {
		return "", fmt.Errorf("%s: cannot be verified without the trust file", j.Name)
	}
	v, err := openLedger(d.trust, j)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s: %d entries under a signed checkpoint", j.Name, v.Checkpoint().Size), v.Close()
}

// openLedger reads a ledger with whichever of its role's keys signed its checkpoint.
func openLedger(t *trust.File, j journalConfig) (*journal.View, error) {
	errs := []error{fmt.Errorf("ledger %s: no %s key of the trust file opens it", j.Name, j.Role)}
	for _, pub := range t.KeysOf(j.Role) {
		v, err := journal.Load(j.Dir, j.Name, pub)
		if err == nil {
			return v, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

func (d *doctor) temporal(ctx context.Context) (string, error) {
	if d.c.Temporal.KeyRing == "" {
		return "", errors.New("the key ring is needed to connect")
	}
	c, err := d.c.dial(ctx)
	if err != nil {
		return "", err
	}
	defer c.Close()
	info, err := c.WorkflowService().GetSystemInfo(ctx, &workflowservice.GetSystemInfoRequest{})
	if err != nil {
		return "", fmt.Errorf("ask for the version: %w", err)
	}
	if older(info.GetServerVersion(), oldestServer) {
		return "", fmt.Errorf("server %s: want %d.%d.%d or newer (CVE-2025-14987)", info.GetServerVersion(), oldestServer[0], oldestServer[1], oldestServer[2])
	}
	if missing, err := missingAttributes(ctx, c, d.c.Temporal.Namespace); err != nil || len(missing) > 0 {
		return "", errors.Join(err, fmt.Errorf("namespace %s lacks the search attributes %s", d.c.Temporal.Namespace, strings.Join(missing, ", ")))
	}
	return fmt.Sprintf("server %s at %s, namespace %s", info.GetServerVersion(), d.c.Temporal.Address, d.c.Temporal.Namespace), nil
}

func missingAttributes(ctx context.Context, c client.Client, namespace string) ([]string, error) {
	have, err := c.OperatorService().ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: namespace})
	if err != nil {
		return nil, fmt.Errorf("list search attributes: %w", err)
	}
	var missing []string
	for _, name := range []string{workflows.AttrSeverity, workflows.AttrState, workflows.AttrPlaybook, workflows.AttrTier, workflows.AttrIncident, workflows.AttrWorkload, workflows.AttrExposure} {
		if _, ok := have.GetCustomAttributes()[name]; !ok {
			missing = append(missing, name)
		}
	}
	return missing, nil
}

// older compares the numbers of a version; what is no version is not older.
func older(version string, than [3]int) bool {
	parts := strings.SplitN(strings.SplitN(version, "-", 2)[0], ".", 3)
	for i, want := range than {
		if i >= len(parts) {
			return false
		}
		n, err := strconv.Atoi(parts[i])
		if err != nil || n > want {
			return false
		}
		if n < want {
			return true
		}
	}
	return false
}
