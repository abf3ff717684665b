package rule

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
)

var wordName = regexp.MustCompile(`^[a-z][a-z0-9_]{2,62}$`)

const (
	maxListItems = 4096
	maxListDepth = 16
)

// words are the lists and macros of all packs.
type words struct {
	lists  map[string][]string
	macros map[string]Expr
}

// add takes a pack's words; here has what its layer named already.
func (w words) add(p *Pack, here map[string]bool) error {
	for _, name := range slices.Concat(slices.Sorted(maps.Keys(p.Lists)), slices.Sorted(maps.Keys(p.Macros))) {
		if here["word "+name] {
			return fmt.Errorf("the name %q stands twice", name)
		}
		here["word "+name] = true
	}
	for name, items := range p.Lists {
		var all []string
		for _, item := range items {
			if item == "@"+name {
				all = append(all, w.lists[name]...)
				continue
			}
			all = append(all, item)
		}
		w.lists[name] = all
	}
	maps.Copy(w.macros, p.Macros)
	for name := range w.macros {
		if _, ok := w.lists[name]; ok {
			return fmt.Errorf("%q is a list and a macro", name)
		}
	}
	return nil
}

// expand follows what a list includes.
func (w words) expand(items []string, depth int) ([]string, error) {
	if depth > maxListDepth {
		return nil, errors.New("lists include each other")
	}
	var out []string
	for _, item := range items {
		name, other := strings.CutPrefix(item, "@")
		if !other {
			out = append(out, item)
			continue
		}
		inner, ok := w.lists[name]
		if !ok {
			return nil, fmt.Errorf("no list is named %q", name)
		}
		more, err := w.expand(inner, depth+1)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if out = append(out, more...); len(out) > maxListItems {
			return nil, fmt.Errorf("more than %d items", maxListItems)
		}
	}
	return out, nil
}

// environment has the variables, and each list and macro as a macro of CEL.
func (w words) environment() (*cel.Env, error) {
	env, err := baseEnvironment()
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(w.lists)) {
		items, err := w.expand(w.lists[name], 0)
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", name, err)
		}
		env, err = env.Extend(cel.Macros(cel.GlobalMacro(name, 0, func(h cel.MacroExprFactory, _ ast.Expr, _ []ast.Expr) (ast.Expr, *common.Error) {
			elements := make([]ast.Expr, len(items))
			for i, item := range items {
				elements[i] = h.NewLiteral(types.String(item))
			}
			return h.NewList(elements...), nil
		})))
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", name, err)
		}
	}
	done := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(w.macros)) {
		if env, err = w.define(env, name, done, nil); err != nil {
			return nil, err
		}
	}
	return env, nil
}

// define adds a macro after those that it uses.
func (w words) define(env *cel.Env, name string, done map[string]bool, way []string) (*cel.Env, error) {
	if done[name] {
		return env, nil
	}
	if way = append(way, name); slices.Contains(way[:len(way)-1], name) {
		return nil, fmt.Errorf("macro %s: a cycle: %s", name, strings.Join(way, " → "))
	}
	x := w.macros[name]
	if len(x.Text) > maxExpression {
		return nil, fmt.Errorf("macro %s: longer than %d bytes", name, maxExpression)
	}
	parsed, issues := env.Parse(x.Text)
	if err := placed(x, issues); err != nil {
		return nil, fmt.Errorf("macro %s: %w", name, err)
	}
	for _, other := range calls(parsed.NativeRep().Expr()) {
		if _, ok := w.macros[other]; !ok || (done[other]) {
			continue
		}
		var err error
		if env, err = w.define(env, other, done, way); err != nil {
			return nil, err
		}
	}
	checked, issues := env.Compile(x.Text)
	if err := placed(x, issues); err != nil {
		return nil, fmt.Errorf("macro %s: %w", name, err)
	}
	done[name] = true
	body := checked.NativeRep().Expr()
	env, err := env.Extend(cel.Macros(cel.GlobalMacro(name, 0, func(h cel.MacroExprFactory, _ ast.Expr, _ []ast.Expr) (ast.Expr, *common.Error) {
		return h.Copy(body), nil
	})))
	if err != nil {
		return nil, fmt.Errorf("macro %s: %w", name, err)
	}
	return env, nil
}

// calls returns the functions that an expression calls without arguments.
func calls(e ast.Expr) []string {
	var out []string
	ast.PreOrderVisit(e, ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() == ast.CallKind && !e.AsCall().IsMemberFunction() && len(e.AsCall().Args()) == 0 {
			out = append(out, e.AsCall().FunctionName())
		}
	}))
	return out
}

// placed says where in the file each problem is.
func placed(x Expr, issues *cel.Issues) error {
	var errs []error
	for _, e := range issues.Errors() {
		errs = append(errs, fmt.Errorf("%s: %s", x.at(e.Location.Line(), e.Location.Column()+1), e.Message))
	}
	return errors.Join(errs...)
}
