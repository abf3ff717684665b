package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"tourniquet.dev/tourniquet/sensor/rule"
)

func (a *app) rulesCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "rules", Short: "Check, test and list the sensor's rules", Args: cobra.NoArgs, RunE: a.do(helpOnly)}
	add := func(use, short, long string, run func([]*rule.Pack, []*rule.Rule) error) {
		cmd.AddCommand(&cobra.Command{Use: use + " [FILE|DIR...]", Short: short, Long: long + `

Without a file these are the bundled rules alone; files and folders are laid over them as the sensor lays its rules folder.

` + codesHelp,
			RunE: a.do(func(_ *cobra.Command, args []string) error {
				packs, rules, err := loadRules(args)
				if err != nil {
					return usage(err, "")
				}
				return run(packs, rules)
			})})
	}
	add("check", "Check rules as the sensor does when it starts", "Compiles rules and prints every problem with its line.", func(_ []*rule.Pack, rules []*rule.Rule) error {
		return a.show(map[string]int{"rules": len(rules)}, func() { a.printf("ok: %d rules\n", len(rules)) })
	})
	add("test", "Run the cases beside rules", "Runs each case and prints one line for it. A case that fails is exit code 1.", a.testRules)
	add("list", "List rules", "Prints each rule with its mode, severity, ATT&CK ids and the rules of Falco that look for the same.", func(_ []*rule.Pack, rules []*rule.Rule) error { return a.listRules(rules) })
	return cmd
}

// loadRules returns the packs whose cases are meant, and all rules.
func loadRules(args []string) ([]*rule.Pack, []*rule.Rule, error) {
	base, err := rule.BundledPacks()
	if err != nil {
		return nil, nil, err
	}
	var own []*rule.Pack
	var errs []error
	for _, arg := range args {
		info, err := os.Stat(arg)
		if err != nil {
			return nil, nil, err
		}
		if info.IsDir() {
			packs, err := rule.ReadPacks(os.DirFS(arg), ".")
			own, errs = append(own, packs...), append(errs, err)
			continue
		}
		p, err := rule.ReadPack(os.DirFS(filepath.Dir(arg)), filepath.Base(arg))
		own, errs = append(own, p), append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, nil, err
	}
	rules, err := rule.Compile(base, own)
	if len(args) == 0 {
		own = base
	}
	return own, rules, err
}

func (a *app) testRules(packs []*rule.Pack, rules []*rule.Rule) error {
	all, bad := []rule.Outcome{}, 0
	for _, p := range packs {
		for _, c := range p.Tests {
			o := c.Run(rules)
			if all = append(all, o); !o.OK {
				bad++
			}
		}
	}
	err := a.show(all, func() {
		for _, o := range all {
			switch {
			case o.OK:
				a.printf("ok: %s\n", plain(o.Case))
			case o.Err != "":
				a.printf("failed: %s: %s\n", plain(o.Case), plain(o.Err))
			default:
				a.printf("failed: %s: want %v, got %v\n", plain(o.Case), o.Want, o.Got)
			}
		}
	})
	if err == nil && bad > 0 {
		err = fmt.Errorf("%d of %d cases failed", bad, len(all))
	}
	return err
}

// listed is a rule as list shows it.
type listed struct {
	Rule     string    `json:"rule"`
	Mode     rule.Mode `json:"mode"`
	Severity string    `json:"severity"`
	Attack   []string  `json:"attack"`
	Falco    []string  `json:"falco"`
}

func (a *app) listRules(rules []*rule.Rule) error {
	all := []listed{}
	for _, r := range rules {
		l := listed{Rule: r.Rule, Mode: r.Mode, Severity: string(r.Severity), Falco: append([]string{}, r.Falco...)}
		for _, t := range r.Attacks {
			l.Attack = append(l.Attack, t.Technique)
		}
		all = append(all, l)
	}
	return a.show(all, func() {
		w := tabwriter.NewWriter(a.out, 0, 8, 2, ' ', 0)
		defer func() { _ = w.Flush() }() // what it writes to has said so by then
		fmt.Fprintln(w, "RULE\tMODE\tSEVERITY\tATT&CK\tFALCO")
		for _, l := range all {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", l.Rule, l.Mode, l.Severity, strings.Join(l.Attack, " "), plain(strings.Join(l.Falco, "; ")))
		}
	})
}
