package blast

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"
)

// mostAssets bounds the assets that a Radius lists.
const mostAssets = 50

// graph collects what is known to exist and what is reached.
type graph struct {
	cut        Cut
	known      map[string]float64 // value of every asset that exists, by id
	best       map[string]Asset   // the best path to each reached asset
	lower      map[string]float64 // p when undecidable conditions are false
	upper      map[string]float64 // p when they are true
	unresolved []string
}

// reach is how sure an edge is: p between bounds.
type reach struct{ p, lower, upper float64 }

var certain = reach{1, 1, 1}

// Compute says what the identities in the facts reach, when cut is taken away. The same facts give the same answer.
// Credentials that were stolen outlive the pod: cutting its network takes away nothing that they open elsewhere.
func Compute(f Facts, cut Cut) Radius {
	g := &graph{cut: cut, known: map[string]float64{}, best: map[string]Asset{}, lower: map[string]float64{}, upper: map[string]float64{}}
	g.unresolved = append(g.unresolved, f.Gaps...)
	if f.Kubernetes != nil {
		g.kubernetes(f.Kubernetes)
		g.unresolved = append(g.unresolved, f.Kubernetes.Gaps...)
	}
	for i := range f.AWS {
		g.aws(&f.AWS[i])
		g.unresolved = append(g.unresolved, f.AWS[i].Gaps...)
	}
	return g.radius()
}

// add reaches an asset by a path; a cut path only makes the asset known.
func (g *graph) add(a Asset, r reach, open bool) {
	a.Default = true
	g.known[a.ID] = a.Value
	if !open {
		return
	}
	a.P = r.p
	if old, ok := g.best[a.ID]; !ok || a.P > old.P || (a.P == old.P && len(a.Path) < len(old.Path)) {
		if a.P > 0 {
			g.best[a.ID] = a
		}
	}
	g.lower[a.ID], g.upper[a.ID] = max(g.lower[a.ID], r.lower), max(g.upper[a.ID], r.upper)
}

func (g *graph) radius() Radius {
	out := Radius{Counts: map[string]int{}, Unresolved: g.unresolved}
	var total, lower, mid, upper float64
	for _, id := range sortedKeys(g.known) {
		v := g.known[id]
		total += v
		lower += v * g.lower[id]
		upper += v * g.upper[id]
		if a, ok := g.best[id]; ok {
			mid += v * a.P
			out.Counts[a.Kind]++
			out.Admin = out.Admin || a.Kind == "admin"
			out.Assets = append(out.Assets, a)
		}
	}
	if total > 0 {
		out.Score, out.Lower, out.Upper = round(100*mid/total), round(100*lower/total), round(100*upper/total)
	}
	sort.SliceStable(out.Assets, func(i, j int) bool { return out.Assets[i].Value*out.Assets[i].P > out.Assets[j].Value*out.Assets[j].P })
	out.Assets = out.Assets[:min(len(out.Assets), mostAssets)]
	return out
}

// round keeps one decimal, so that no processor's last bit shows.
func round(x float64) float64 { return math.Round(x*10) / 10 }

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// kubernetesEdge is one power that an RBAC rule gives.
type kubernetesEdge struct {
	kind, name string
	value      float64
	resource   string
	verbs      []string
	group      string
	write      bool
}

// kubernetesEdges are powers over other things than named objects, with our default values. Each stands for a row of
// Kubernetes' RBAC good practices.
var kubernetesEdges = []kubernetesEdge{
	{"admin", "every right in the cluster", 100, "*", []string{"*"}, "*", true},
	{"admin", "grants itself any role (escalate, bind)", 100, "clusterroles", []string{"escalate", "bind"}, "rbac.authorization.k8s.io", true},
	{"admin", "writes cluster role bindings", 90, "clusterrolebindings", []string{"create", "update", "patch"}, "rbac.authorization.k8s.io", true},
	{"admin", "acts as any user (impersonate)", 100, "users", []string{"impersonate"}, "", true},
	{"admin", "runs anything on nodes (nodes/proxy)", 90, "nodes/proxy", []string{"get", "create"}, "", false},
	{"admin", "writes admission webhooks", 80, "mutatingwebhookconfigurations", []string{"create", "update", "patch"}, "admissionregistration.k8s.io", true},
	{"workload", "starts pods as any service account", 40, "pods", []string{"create"}, "", true},
	{"workload", "changes deployments", 40, "deployments", []string{"create", "update", "patch"}, "apps", true},
	{"workload", "runs commands in pods (exec)", 40, "pods/exec", []string{"create", "get"}, "", true},
	{"identity", "mints tokens of service accounts", 40, "serviceaccounts/token", []string{"create"}, "", true},
	{"secret", "reads secrets", 40, "secrets", []string{"get", "list", "watch"}, "", false},
	{"data", "reads config maps", 5, "configmaps", []string{"get", "list", "watch"}, "", false},
}

func (g *graph) kubernetes(k *KubernetesFacts) {
	who := fmt.Sprintf("pod %s/%s → its token → service account %s", k.Namespace, k.Pod, k.ServiceAccount)
	for _, rule := range k.Rules {
		scope := rule.Namespace
		if scope == "" {
			scope = "the cluster"
		}
		by := fmt.Sprintf("%s %s → %s", rule.Binding, "grants", rule.Role)
		for _, e := range kubernetesEdges {
			if !ruleAllows(rule, e.group, e.resource, e.verbs) || (e.resource == "*" && rule.Namespace != "") {
				continue
			}
			open := !g.cut.ServiceAccount && !(e.write && g.cut.PodWrites)
			g.add(Asset{ID: "k8s/" + e.kind + "/" + scope + "/" + e.name, Kind: e.kind, Name: e.name + " in " + scope, Value: e.value, Path: []string{who, by}}, certain, open)
		}
		if !ruleAllows(rule, "", "secrets", []string{"get", "list", "watch"}) {
			continue
		}
		for _, s := range k.Secrets {
			if (rule.Namespace != "" && s.Namespace != rule.Namespace) || (len(rule.ResourceNames) > 0 && !slices.Contains(rule.ResourceNames, s.Name)) {
				continue
			}
			g.add(Asset{ID: "k8s/secret/" + s.Namespace + "/" + s.Name, Kind: "secret", Name: s.Namespace + "/" + s.Name, Value: 20,
				Path: []string{who, by, "reads secret " + s.Namespace + "/" + s.Name}}, certain, !g.cut.ServiceAccount)
		}
	}
	if k.Privileged || k.HostPath {
		g.add(Asset{ID: "k8s/node/" + k.Node, Kind: "admin", Name: "node " + k.Node + " and all its pods", Value: 80,
			Path: []string{"pod " + k.Pod + " is privileged or mounts the host", "node " + k.Node}}, certain, true)
	}
}

// ruleAllows reports whether the rule holds any of the verbs on the resource of the API group.
func ruleAllows(r Rule, group, resource string, verbs []string) bool {
	has := func(list []string, v string) bool { return slices.Contains(list, v) || slices.Contains(list, "*") }
	wild := false
	if i := strings.IndexByte(resource, '/'); i >= 0 {
		wild = slices.Contains(r.Resources, "*"+resource[i:])
	}
	if !has(r.Resources, resource) && !wild {
		return false
	}
	if resource == "*" && !slices.Contains(r.Resources, "*") {
		return false
	}
	if !has(r.APIGroups, group) {
		return false
	}
	return slices.ContainsFunc(verbs, func(v string) bool { return has(r.Verbs, v) })
}
