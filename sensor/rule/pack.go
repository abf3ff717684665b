package rule

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"tourniquet.dev/tourniquet/internal/strictyaml"
)

// Pack is what one file has: rules, what they share, and the cases that prove them. A file may also be one rule alone.
type Pack struct {
	// Lists are named lists of strings; an item "@name" stands for the items of another list. A list may name itself: that
	// is what an earlier pack had under this name, so that a later pack adds to it. Without that, it replaces it.
	Lists map[string][]string `yaml:"lists,omitempty"`
	// Macros are named expressions. Lists and macros are used as name().
	Macros map[string]Expr `yaml:"macros,omitempty"`
	Rules  []*Rule         `yaml:"rules,omitempty"`
	Tests  []Case          `yaml:"tests,omitempty"`

	file string
}

// Expr is the text of an expression, with its place in the file that has it.
type Expr struct {
	Text string

	line, column int
	block        bool
	source       *source
}

type source struct {
	file  string
	lines []string
}

// UnmarshalYAML takes a scalar and keeps its place.
func (x *Expr) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" {
		return fmt.Errorf("line %d: an expression is a text", n.Line)
	}
	x.Text, x.line, x.column = n.Value, n.Line, n.Column
	x.block = n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0
	if n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 {
		x.column++
	}
	return nil
}

// at names the place of a line and column of the expression, both from 1, in the file.
func (x Expr) at(line, column int) string {
	if x.line == 0 {
		return fmt.Sprintf("line %d:%d", line, column)
	}
	at, indent := x.line+line-1, x.column-1
	if x.block {
		at++
		if i := at - 1; x.source != nil && i < len(x.source.lines) {
			indent = len(x.source.lines[i]) - len(strings.TrimLeft(x.source.lines[i], " "))
		}
	} else if line > 1 {
		indent = 0
	}
	file := ""
	if x.source != nil && x.source.file != "" {
		file = x.source.file + ": "
	}
	return fmt.Sprintf("%sline %d:%d", file, at, indent+column)
}

// decodePack reads one file. Nothing is compiled yet: that takes the lists and macros of all.
func decodePack(file string, data []byte) (*Pack, error) {
	var top map[string]yaml.Node
	p := &Pack{file: file}
	if len(data) <= strictyaml.MaxBytes && yaml.Unmarshal(data, &top) == nil && top["rule"].Kind != 0 {
		r := &Rule{}
		if err := strictyaml.Decode(data, r); err != nil {
			return nil, fmt.Errorf("decode rule: %w", err)
		}
		p.Rules = []*Rule{r}
	} else if err := strictyaml.Decode(data, p); err != nil {
		return nil, fmt.Errorf("decode rules: %w", err)
	}
	src := &source{file, strings.Split(string(data), "\n")}
	for i, r := range p.Rules {
		if r == nil {
			return nil, fmt.Errorf("rules[%d]: is empty", i)
		}
		r.When.source = src
	}
	for name, m := range p.Macros {
		m.source = src
		p.Macros[name] = m
	}
	return p, p.validate()
}

// validate reports every problem that a pack has by itself.
func (p *Pack) validate() error {
	var errs []error
	seen := map[string]bool{}
	for _, r := range p.Rules {
		if err := r.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("rule %q (line %d): %w", r.Rule, r.When.line, err))
		}
		if seen[r.Rule] {
			errs = append(errs, fmt.Errorf("rule %q stands twice", r.Rule))
		}
		seen[r.Rule] = true
	}
	for _, name := range slices.Concat(slices.Sorted(maps.Keys(p.Lists)), slices.Sorted(maps.Keys(p.Macros))) {
		if !wordName.MatchString(name) {
			errs = append(errs, fmt.Errorf("%q is not a name of a list or macro", name))
		}
	}
	return errors.Join(errs...)
}

// ReadPacks reads every *.yaml of a folder, by name.
func ReadPacks(fsys fs.FS, dir string) ([]*Pack, error) {
	entries, err := fs.ReadDir(fsys, dir)
	if err != nil {
		return nil, fmt.Errorf("read rules: %w", err)
	}
	var all []*Pack
	var errs []error
	for _, e := range entries {
		if e.IsDir() || path.Ext(e.Name()) != ".yaml" {
			continue
		}
		p, err := ReadPack(fsys, path.Join(dir, e.Name()))
		errs = append(errs, err)
		all = append(all, p)
	}
	return all, errors.Join(errs...)
}

// ReadPack reads one file.
func ReadPack(fsys fs.FS, name string) (*Pack, error) {
	data, err := fs.ReadFile(fsys, name)
	if err != nil {
		return nil, fmt.Errorf("read rules: %w", err)
	}
	p, err := decodePack(path.Base(name), data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path.Base(name), err)
	}
	return p, nil
}

// BundledPacks returns what comes with the sensor.
func BundledPacks() ([]*Pack, error) { return ReadPacks(bundled, "rules") }

// Compile makes the rules of packs ready. Packs are given in layers: within one, a name may stand once; in a later one it
// replaces the earlier. The rules belong to one Set from then on.
func Compile(layers ...[]*Pack) ([]*Rule, error) {
	w := words{lists: map[string][]string{}, macros: map[string]Expr{}}
	var order []string
	rules := map[string]*Rule{}
	for _, layer := range layers {
		here := map[string]bool{}
		for _, p := range layer {
			if err := w.add(p, here); err != nil {
				return nil, fmt.Errorf("%s: %w", p.file, err)
			}
			for _, r := range p.Rules {
				if here["rule "+r.Rule] {
					return nil, fmt.Errorf("%s: rule %q stands twice", p.file, r.Rule)
				}
				here["rule "+r.Rule] = true
				if rules[r.Rule] == nil {
					order = append(order, r.Rule)
				}
				rules[r.Rule] = r
			}
		}
	}
	env, err := w.environment()
	if err != nil {
		return nil, err
	}
	var errs []error
	out := make([]*Rule, 0, len(order))
	for _, name := range order {
		r := *rules[name]
		err := r.ready(env, w)
		errs = append(errs, err)
		out = append(out, &r)
	}
	return out, errors.Join(errs...)
}
