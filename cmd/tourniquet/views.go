package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/internal/canonical"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/sys/store"
	"tourniquet.dev/tourniquet/workflows"
)

func (a *app) planCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "plan", Short: "Show plans as native files", Args: cobra.NoArgs, RunE: a.do(helpOnly)}
	var out string
	show := &cobra.Command{
		Use:   "show DIGEST",
		Short: "Show a plan as native files",
		Long: `Shows what a plan of the store does, as files of the systems it changes: NetworkPolicy, patches, IAM policies, command lines,
and how to take each back. They are to read, and to apply by hand where Tourniquet cannot; they carry no authority. What only
the enforcer fixes, or only the system tells, stands in angle brackets. No worker has to be running.

` + codesHelp,
		Args: cobra.ExactArgs(1),
		RunE: a.do(func(cmd *cobra.Command, args []string) error { return a.showPlan(cmd.Context(), args[0], out) }),
	}
	show.Flags().StringVarP(&out, "output", "o", "", "write the files into this `FOLDER` too; none is replaced")
	cmd.AddCommand(show)
	return cmd
}

func (a *app) reportCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "report DIGEST",
		Short: "Show the stored report of a closed incident",
		Long: `Shows the account of an incident: what was in reach before and after, what it would have cost, what was done in the words of
the standards, and the digest of the sealed evidence. incidents show names the report's digest. No worker has to be running.

` + codesHelp,
		Args: cobra.ExactArgs(1),
		RunE: a.do(func(cmd *cobra.Command, args []string) error { return a.showReport(cmd.Context(), args[0]) }),
	}
}

// planned is a plan with its views.
type planned struct {
	Plan   *plan.Plan  `json:"plan"`
	Digest string      `json:"digest"`
	Views  []plan.View `json:"views"`
}

func loadViews(ctx context.Context, s store.Reader, digest string) (planned, error) {
	p, err := activities.LoadPlan(ctx, s, digest)
	if err != nil {
		return planned{}, err
	}
	views, err := plan.Views(p)
	if err != nil {
		return planned{}, err
	}
	return planned{p, digest, views}, nil
}

func (a *app) showPlan(ctx context.Context, digest, out string) error {
	if !plan.ValidDigest(digest) {
		return usage(fmt.Errorf("%.80q is not a digest", digest), "sha256: and 64 digits, as incidents show prints it")
	}
	s, err := a.openStore()
	if err != nil {
		return err
	}
	p, err := loadViews(ctx, s, digest)
	if err != nil {
		return err
	}
	if out != "" {
		if err := writeViews(out, p.Views); err != nil {
			return err
		}
	}
	return a.show(p, func() { a.tellPlan(p) })
}

func (a *app) openStore() (store.Reader, error) {
	c, err := a.load()
	if err != nil {
		return nil, err
	}
	return c.openStore()
}

func writeViews(folder string, views []plan.View) error {
	for _, v := range views {
		if err := writeFile(filepath.Join(folder, v.File), []byte(v.Apply), 0o600, false); err != nil {
			return err
		}
		if v.Undo == "" {
			continue
		}
		if err := writeFile(filepath.Join(folder, v.UndoFile()), []byte(v.Undo), 0o600, false); err != nil {
			return err
		}
	}
	return nil
}

// tellPlan prints the views for people. Their text is printable ASCII already.
func (a *app) tellPlan(p planned) {
	a.printf("\n%s plan %s\nincident %s, option %s, playbook %s v%d\n", plain(string(p.Plan.Purpose)), p.Digest, p.Plan.IncidentID, plain(p.Plan.Option), plain(p.Plan.Playbook.Name), p.Plan.Playbook.Version)
	step := -1
	for _, v := range p.Views {
		if v.Step != step {
			step = v.Step
			a.printf("\nstep %d: %s on %s\n", step, v.Action, plain(p.Plan.Steps[step].Target.String()))
		}
		a.printf("\n  %s\n", v.Title)
		if v.Note != "" {
			a.printf("  %s\n", v.Note)
		}
		a.tellFile(v.File, v.Apply)
		if v.Undo != "" {
			a.tellFile(v.UndoFile(), v.Undo)
		}
	}
}

func (a *app) tellFile(name, text string) {
	a.printf("  --- %s\n    %s\n", name, strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n    "))
}

// viewsOf are the views of every plan that an incident has on offer or put on, each plan once.
func (a *app) viewsOf(ctx context.Context, s workflows.StateView) ([]planned, error) {
	reader, err := a.openStore()
	if err != nil {
		return nil, err
	}
	var out []planned
	seen := map[string]bool{}
	load := func(digest string) error {
		if digest == "" || seen[digest] {
			return nil
		}
		seen[digest] = true
		p, err := loadViews(ctx, reader, digest)
		out = append(out, p)
		return err
	}
	for _, c := range s.Containments {
		if err := load(c.Plan); err != nil {
			return nil, err
		}
	}
	for _, o := range s.Options {
		if err := load(o.Plan); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (a *app) showReport(ctx context.Context, digest string) error {
	if !plan.ValidDigest(digest) {
		return usage(fmt.Errorf("%.80q is not a digest", digest), "sha256: and 64 digits, as incidents show prints it")
	}
	s, err := a.openStore()
	if err != nil {
		return err
	}
	data, err := s.Get(ctx, digest)
	if err != nil {
		return fmt.Errorf("load report %.19s: %w", digest, err)
	}
	if canonical.DigestOf(data) != digest {
		return refused(fmt.Errorf("report %.19s: the store's bytes are others", digest), "")
	}
	var r activities.Report
	if err := json.Unmarshal(data, &r); err != nil || r.V != 1 || r.IncidentID == "" {
		return usage(fmt.Errorf("%.19s is no report", digest), "incidents show names the report of a closed incident")
	}
	return a.show(r, func() { a.tellReport(r) })
}

func (a *app) tellReport(r activities.Report) {
	a.printf("report of incident %s  %s  %s UTC\nevidence %s\n", plain(r.IncidentID), orDash(r.Outcome), stamp(r.At), r.Evidence)
	if len(r.Techniques) > 0 {
		a.printf("ATT&CK   %s\n", plain(strings.Join(r.Techniques, " ")))
	}
	if f := r.Figures; f != nil {
		a.printf("\nin reach before: %.0f of 100%s\n", f.Before.Score, admin(f.Before))
		if len(f.Before.Path) > 0 {
			a.printf("  %s\n", plain(strings.Join(f.Before.Path, " > ")))
		}
		a.printf("waiting costs, within the horizon: %s (half of the trials below %s, nine in ten below %s)%s\n", money(f.Waiting.Mean, f.Waiting.Currency),
			money(f.Waiting.P50, f.Waiting.Currency), money(f.Waiting.P90, f.Waiting.Currency), defaults(f.Waiting.Defaults))
		for _, name := range slices.Sorted(maps.Keys(f.Options)) {
			o, taken := f.Options[name], ""
			if o.Taken {
				taken = ", taken"
			}
			a.printf("  option %-14s leaves %.0f of 100%s, costs %s%s%s\n", plain(name), o.After.Score, admin(o.After), money(o.Exposure.Mean, o.Exposure.Currency), defaults(o.Exposure.Defaults), taken)
		}
	} else {
		a.printf("\nnot assessed: no figures\n")
	}
	a.printf("\nactions\n")
	if len(r.Actions) == 0 {
		a.printf("  none was put on\n")
	}
	for _, x := range r.Actions {
		a.printf("  %-26s %-10s %s\n     D3FEND %s; NIST CSF 2.0 %s; OWASP NHI %s; OCSF class %d, activity %d\n", plain(x.Action), plain(x.State), plain(x.Target),
			plain(strings.Join(x.D3FEND, " ")), plain(strings.Join(x.CSF, " ")), plain(strings.Join(x.NHI, " ")), x.OCSFClass, x.OCSFActivity)
	}
}

func admin(r activities.Reached) string {
	if r.Admin {
		return ", an administrator's rights among it"
	}
	return ""
}

func defaults(yes bool) string {
	if yes {
		return " (by default values, nobody's own)"
	}
	return ""
}

// money writes minor units, of which a hundred make one.
func money(minor int64, currency string) string {
	return fmt.Sprintf("%d.%02d %s", minor/100, max(minor, -minor)%100, plain(currency))
}
