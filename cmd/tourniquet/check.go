package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/guardrail"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/playbook"
	"tourniquet.dev/tourniquet/internal/strictyaml"
	"tourniquet.dev/tourniquet/internal/trust"
	"tourniquet.dev/tourniquet/sensor/rule"
)

// checked is what check found out about one file.
type checked struct {
	File     string   `json:"file"`
	Is       string   `json:"is,omitempty"` // such as: playbook stolen-aws-key v3
	Problems []string `json:"problems"`
}

func (a *app) checkCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE...",
		Short: "Check playbooks, trust files, rules and plans",
		Long: `Checks files as the processes do when they start, and prints every problem with its path. It needs no other file and no
network. What a file is, its first key tells: playbook, trust, rule, or a plan or signed envelope in JSON. Of an envelope
the content is checked; who signed it is not: that takes the trust file.

` + codesHelp,
		Args: cobra.MinimumNArgs(1),
		RunE: a.do(func(_ *cobra.Command, args []string) error {
			all, bad := []checked{}, 0
			for _, path := range args {
				c := checkFile(path)
				if len(c.Problems) > 0 {
					bad++
				}
				all = append(all, c)
			}
			err := a.show(all, func() {
				for _, c := range all {
					if len(c.Problems) == 0 {
						a.printf("%s: ok: %s\n", c.File, plain(c.Is))
					}
					for _, p := range c.Problems {
						a.printf("%s: %s\n", c.File, printable(p, 1000))
					}
				}
			})
			if err == nil && bad > 0 {
				err = usage(fmt.Errorf("%d of %d files have problems", bad, len(all)), "")
			}
			return err
		}),
	}
}

func checkFile(path string) checked {
	c := checked{File: path, Problems: []string{}}
	data, err := os.ReadFile(path) // #nosec G304 -- named by the operator
	if err == nil {
		c.Is, err = identify(data)
	}
	c.Problems = append(c.Problems, problems(err, "")...)
	return c
}

// identify decodes a document by the type that its keys tell, with the very function that the processes use.
func identify(data []byte) (string, error) {
	if len(data) > strictyaml.MaxBytes {
		return "", fmt.Errorf("%w: %d bytes, at most %d", strictyaml.ErrTooLarge, len(data), strictyaml.MaxBytes)
	}
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) && json.Valid(data) {
		return identifyJSON(data)
	}
	var top map[string]yaml.Node
	if err := yaml.Unmarshal(data, &top); err != nil {
		return "", fmt.Errorf("not one YAML mapping: %w", err)
	}
	has := func(key string) bool { return top[key].Kind != 0 }
	switch {
	case has("playbook"):
		return isPlaybook(data)
	case has("trust"):
		return isTrust(data)
	case has("rule") && has("when"):
		return isRule(data)
	case has("rules"), has("lists"), has("macros"), has("tests"):
		rules, err := rule.DecodePack("", data)
		return fmt.Sprintf("pack that makes %d rules", len(rules)), err
	}
	return "", errors.New("what is it? a playbook has the key playbook, a trust file the key trust, a rule the keys rule and when")
}

func isPlaybook(data []byte) (string, error) {
	p, err := playbook.Decode(data)
	if err != nil {
		return "", err
	}
	if _, err := guardrail.Compile(p.Guardrails); err != nil {
		return "", fmt.Errorf("playbook %q: %w", p.Playbook, err)
	}
	return fmt.Sprintf("playbook %s v%d", p.Playbook, p.Version), nil
}

func isTrust(data []byte) (string, error) {
	t, err := trust.Decode(data)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("trust file %s v%d", t.Trust, t.Version), nil
}

func isRule(data []byte) (string, error) {
	r, err := rule.Decode(data)
	if err != nil {
		return "", err
	}
	return "rule " + r.Rule, nil
}

func identifyJSON(data []byte) (string, error) {
	var top struct {
		Kind        string `json:"kind"`
		PayloadType string `json:"payloadType"`
	}
	if err := json.Unmarshal(data, &top); err != nil {
		return "", err
	}
	switch {
	case top.Kind == plan.Kind:
		p, err := plan.Decode(data)
		if err != nil {
			return "", err
		}
		digest, err := p.Digest()
		return "plan " + digest, err
	case top.PayloadType != "":
		e, err := authz.DecodeEnvelope(data)
		if err != nil {
			return "", err
		}
		raw, err := e.Raw()
		if err != nil {
			return "", err
		}
		var is string
		switch e.PayloadType {
		case authz.TypePlaybook:
			is, err = isPlaybook(raw)
		case authz.TypeTrust:
			is, err = isTrust(raw)
		default:
			return "", fmt.Errorf("an envelope of type %.80q is not configuration", e.PayloadType)
		}
		if len(e.Signatures) != 1 && err == nil {
			err = fmt.Errorf("signatures: has %d, want 1", len(e.Signatures))
		}
		return "signed " + is, err
	}
	return "", errors.New("what is it? a plan has kind " + plan.Kind + ", a signed envelope a payloadType")
}

// problems takes a joined error apart, so that each problem is one line with what stood around it.
func problems(err error, around string) []string {
	if err == nil {
		return nil
	}
	var list interface {
		error
		Unwrap() []error
	}
	if !errors.As(err, &list) {
		return []string{around + err.Error()}
	}
	var lines []string
	for _, e := range list.Unwrap() {
		lines = append(lines, e.Error())
	}
	before, found := strings.CutSuffix(err.Error(), list.Error())
	if !found || list.Error() != strings.Join(lines, "\n") { // several %w in one sentence
		return []string{around + err.Error()}
	}
	var out []string
	for _, e := range list.Unwrap() {
		out = append(out, problems(e, around+before)...)
	}
	return out
}
