package rule

import (
	"errors"
	"fmt"
	"path"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// costLimit bounds one evaluation. A rule that reaches it says nothing, so it must be out of reach for whoever chooses a
// path: the bundled rules stay below it on the longest path that a kernel resolves.
const costLimit = 250_000

// maxExpression bounds the text of one rule.
const maxExpression = 4 << 10

// variables are what a rule may name. They are typed, so that a misspelt one does not compile.
var variables = map[string]struct {
	kind *cel.Type
	of   func(Event, Subject, bool) ref.Val
}{
	"event.kind":       {cel.StringType, func(e Event, _ Subject, _ bool) ref.Val { return types.String(e.Kind) }},
	"event.path":       {cel.StringType, func(e Event, _ Subject, _ bool) ref.Val { return types.String(e.Path) }},
	"event.unresolved": {cel.BoolType, func(e Event, _ Subject, _ bool) ref.Val { return types.Bool(e.Unresolved) }},
	"event.read":       {cel.BoolType, func(e Event, _ Subject, _ bool) ref.Val { return types.Bool(e.Read) }},
	"event.write":      {cel.BoolType, func(e Event, _ Subject, _ bool) ref.Val { return types.Bool(e.Write) }},
	"event.failed":     {cel.BoolType, func(e Event, _ Subject, _ bool) ref.Val { return types.Bool(e.Failed) }},
	"event.addr":       {cel.StringType, func(e Event, _ Subject, _ bool) ref.Val { return types.String(e.address()) }},
	"event.port":       {cel.IntType, func(e Event, _ Subject, _ bool) ref.Val { return types.Int(e.Port) }},
	"event.local":      {cel.BoolType, func(e Event, _ Subject, _ bool) ref.Val { return types.Bool(e.local()) }},

	"event.name":     {cel.StringType, func(e Event, _ Subject, _ bool) ref.Val { return types.String(path.Base(e.Path)) }},
	"event.upper":    {cel.BoolType, func(e Event, _ Subject, _ bool) ref.Val { return types.Bool(e.Upper) }},
	"event.unlinked": {cel.BoolType, func(e Event, _ Subject, _ bool) ref.Val { return types.Bool(e.Unlinked) }},
	"event.network":  {cel.BoolType, func(e Event, _ Subject, _ bool) ref.Val { return types.Bool(e.Network) }},
	"event.args": {cel.ListType(cel.StringType), func(_ Event, s Subject, _ bool) ref.Val {
		return types.NewStringList(types.DefaultTypeAdapter, s.Process.Args)
	}},
	"event.call":   {cel.StringType, func(e Event, _ Subject, _ bool) ref.Val { return types.String(e.Call) }},
	"event.flags":  {cel.IntType, func(e Event, _ Subject, _ bool) ref.Val { return types.Int(e.Flags) }}, //nolint:gosec // bits
	"event.gained": {cel.BoolType, func(e Event, _ Subject, _ bool) ref.Val { return types.Bool(e.Gained) }},
	"event.query":  {cel.StringType, func(e Event, _ Subject, _ bool) ref.Val { return types.String(e.Query) }},

	"event.target_pid":            {cel.IntType, func(e Event, _ Subject, _ bool) ref.Val { return types.Int(e.TargetPID) }},
	"event.target_name":           {cel.StringType, func(e Event, _ Subject, _ bool) ref.Val { return types.String(e.TargetName) }},
	"event.target_same_container": {cel.BoolType, func(e Event, _ Subject, _ bool) ref.Val { return types.Bool(e.TargetSameContainer) }},

	"process.name":  {cel.StringType, func(_ Event, s Subject, _ bool) ref.Val { return types.String(s.Process.Name()) }},
	"process.comm":  {cel.StringType, func(_ Event, s Subject, _ bool) ref.Val { return types.String(s.Process.Comm) }},
	"process.exe":   {cel.StringType, func(_ Event, s Subject, _ bool) ref.Val { return types.String(s.Process.Exe) }},
	"process.uid":   {cel.IntType, func(_ Event, s Subject, _ bool) ref.Val { return types.Int(s.Process.UID) }},
	"process.main":  {cel.BoolType, func(_ Event, s Subject, _ bool) ref.Val { return types.Bool(s.main(s.Process)) }},
	"process.shell": {cel.BoolType, func(_ Event, s Subject, _ bool) ref.Val { return types.Bool(s.Process.shell()) }},

	"parent.name":  {cel.StringType, func(_ Event, s Subject, _ bool) ref.Val { return types.String(s.parent().Name()) }},
	"parent.exe":   {cel.StringType, func(_ Event, s Subject, _ bool) ref.Val { return types.String(s.parent().Exe) }},
	"parent.main":  {cel.BoolType, func(_ Event, s Subject, _ bool) ref.Val { return types.Bool(s.main(s.parent())) }},
	"parent.shell": {cel.BoolType, func(_ Event, s Subject, _ bool) ref.Val { return types.Bool(s.parent().shell()) }},

	"tree.credential": {cel.BoolType, func(_ Event, _ Subject, flagged bool) ref.Val { return types.Bool(flagged) }},

	"workload.namespace":       {cel.StringType, func(_ Event, s Subject, _ bool) ref.Val { return types.String(s.Workload.Namespace) }},
	"workload.pod":             {cel.StringType, func(_ Event, s Subject, _ bool) ref.Val { return types.String(s.Workload.Pod) }},
	"workload.container":       {cel.StringType, func(_ Event, s Subject, _ bool) ref.Val { return types.String(s.Workload.Container) }},
	"workload.service_account": {cel.StringType, func(_ Event, s Subject, _ bool) ref.Val { return types.String(s.Workload.ServiceAccount) }},
}

func (e Event) address() string {
	if !e.Addr.IsValid() {
		return ""
	}
	return e.Addr.Unmap().WithZone("").String()
}

// local reports whether the address leads nowhere: this machine itself, or the unspecified address that means it.
func (e Event) local() bool {
	a := e.Addr.Unmap()
	return !a.IsValid() || a.IsLoopback() || a.IsUnspecified()
}

func baseEnvironment() (*cel.Env, error) {
	options := []cel.EnvOption{cel.DefaultUTCTimeZone(true)}
	for name, v := range variables {
		options = append(options, cel.Variable(name, v.kind))
	}
	env, err := cel.NewEnv(options...)
	if err != nil {
		return nil, fmt.Errorf("build environment: %w", err)
	}
	return env, nil
}

func compile(env *cel.Env, x Expr) (cel.Program, error) {
	if len(x.Text) > maxExpression {
		return nil, fmt.Errorf("longer than %d bytes", maxExpression)
	}
	checked, issues := env.Compile(x.Text)
	if err := placed(x, issues); err != nil {
		return nil, err
	}
	if !checked.OutputType().IsExactType(cel.BoolType) {
		return nil, fmt.Errorf("%s: is a %s, want a bool", x.at(1, 1), checked.OutputType())
	}
	program, err := env.Program(checked, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(costLimit))
	if err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	return program, nil
}

// facts are the variables of one event. Values are made when a rule asks for them.
type facts struct {
	event   Event
	subject Subject
	flagged bool
}

// ResolveName implements CEL's activation.
func (f facts) ResolveName(name string) (any, bool) {
	v, ok := variables[name]
	if !ok {
		return nil, false
	}
	return v.of(f.event, f.subject, f.flagged), true
}

// Parent implements CEL's activation.
func (facts) Parent() cel.Activation { return nil }

var errNotBool = errors.New("the answer is not a bool")

func (r *Rule) holds(f facts) (bool, error) {
	out, _, err := r.program.Eval(f)
	if err != nil {
		return false, fmt.Errorf("rule %s: %w", r.Rule, err)
	}
	yes, ok := out.Value().(bool)
	if !ok {
		return false, fmt.Errorf("rule %s: %w", r.Rule, errNotBool)
	}
	return yes, nil
}
