package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"tourniquet.dev/tourniquet/internal/sys/disk"
	"tourniquet.dev/tourniquet/sensor/profile"
)

func (a *app) profileCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "profile", Short: "Read what a sensor learned of a workload", Args: cobra.NoArgs, RunE: a.do(helpOnly)}
	show := &cobra.Command{
		Use:   "show FILE",
		Short: "Show a profile",
		Long: `Shows what a sensor learned of a workload: a file of the profiles folder in its state folder.

` + codesHelp,
		Args: cobra.ExactArgs(1),
		RunE: a.do(func(_ *cobra.Command, args []string) error {
			p, err := readProfile(args[0])
			if err != nil {
				return err
			}
			return a.show(p, func() { a.printProfile(p) })
		}),
	}
	var selector map[string]string
	var unfinished bool
	policy := &cobra.Command{
		Use:   "network-policy FILE",
		Short: "Print the NetworkPolicy that a profile needs",
		Long: `Prints the Kubernetes NetworkPolicy that lets a workload reach what it was seen to reach while it was learned, and
nothing else. What comes in was not observed and is not restricted. Read it before you apply it.

` + codesHelp,
		Args: cobra.ExactArgs(1),
		RunE: a.do(func(_ *cobra.Command, args []string) error {
			p, err := readProfile(args[0])
			if err != nil {
				return err
			}
			return a.printPolicy(p, selector, unfinished)
		}),
	}
	policy.Flags().StringToStringVar(&selector, "selector", nil, "labels `NAME=VALUE,…` that choose the pods (default: as the sensor saw them)")
	policy.Flags().BoolVar(&unfinished, "unfinished", false, "also of a profile that is still being learned")
	cmd.AddCommand(show, policy)
	return cmd
}

func readProfile(path string) (*profile.Profile, error) {
	data, err := disk.ReadFile(disk.OS, path, profile.MaxFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil, notFound(fmt.Errorf("read profile: %w", err), "profiles stand in the folder profiles of the sensor's state folder")
	}
	if err != nil {
		return nil, fmt.Errorf("read profile: %w", err)
	}
	p, err := profile.Decode(data)
	if err != nil {
		return nil, usage(fmt.Errorf("%s: %w", path, err), "a profile is a file that the sensor wrote, unchanged")
	}
	return p, nil
}

func (a *app) printProfile(p *profile.Profile) {
	what := p.Key.Image
	if what == "" {
		what = p.Key.OwnerKind + " " + p.Key.OwnerName
	}
	state := "learns"
	if !p.Alerting.IsZero() {
		state = "alarms since " + stamp(p.Alerting)
	}
	a.printf("%s/%s of %s\n%s; %d observations since %s, %d withheld because a rule told of them\n", plain(p.Key.Namespace), plain(p.Key.Container),
		plain(what), state, p.Observations, stamp(p.Since), p.Withheld)
	for _, s := range []struct {
		title string
		set   profile.Set
	}{{"executables", p.Executables}, {"credential files", p.Credentials}, {"destinations", p.Destinations}} {
		full := ""
		if s.set.Full {
			full = ", full: there were more"
		}
		a.printf("\n%s (%d%s)\n", s.title, len(s.set.Items), full)
		for _, l := range s.set.Items {
			a.printf("  %-60s %6d since %s\n", plain(l.Item.String()), l.Count, stamp(l.First))
		}
	}
}

func (a *app) printPolicy(p *profile.Profile, selector map[string]string, unfinished bool) error {
	policy, err := p.Policy(selector, unfinished)
	switch {
	case errors.Is(err, profile.ErrNoSelector):
		return usage(err, "name them with --selector NAME=VALUE")
	case errors.Is(err, profile.ErrUnfinished):
		return refused(err, "wait for it, or use --unfinished and read the policy with care")
	case errors.Is(err, profile.ErrIncomplete):
		return refused(err, "name the ranges that the workload reaches in the sensor's profiles.ranges, and let it learn anew")
	case err != nil:
		return err
	}
	text, err := policy.YAML()
	if err != nil {
		return err
	}
	a.printf("%s", text)
	return nil
}
