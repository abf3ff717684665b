package aws

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"tourniquet.dev/tourniquet/internal/blast/iampolicy"
)

func accountOperations() map[string]operation {
	return map[string]operation{
		"iam:GetAccountAuthorizationDetails": {readOnly: true, target: func(*call) target { return target{resource: "*"} }, run: authorizationDetails},
		"iam:SimulatePrincipalPolicy": {readOnly: true, target: func(c *call) target {
			return target{resource: c.form.Get("PolicySourceArn")}
		}, run: simulate},
	}
}

// detail is one entry of GetAccountAuthorizationDetails and the list it belongs to.
type detail struct {
	list string
	element
}

func authorizationDetails(c *call) (element, error) {
	s := c.server
	filter := queryList(c.form, "Filter", "")
	wanted := func(name string) bool { return len(filter) == 0 || slices.Contains(filter, name) }
	var all []detail
	for _, k := range allKinds {
		for _, e := range s.state.entities.sorted() {
			if e.kind == k && wanted(k.title()) {
				all = append(all, detail{k.title() + "DetailList", s.entityDetail(e)})
			}
		}
	}
	for _, p := range s.state.policies.sorted() {
		name := "LocalManagedPolicy"
		if strings.HasPrefix(p.arn, awsPolicies) {
			name = "AWSManagedPolicy"
		}
		if wanted(name) {
			all = append(all, detail{"Policies", s.policyDetail(p)})
		}
	}
	shown, rest, err := page(c, all)
	if err != nil {
		return element{}, err
	}
	lists := map[string][]element{}
	for _, d := range shown {
		lists[d.list] = append(lists[d.list], d.element)
	}
	out := el("")
	for _, name := range []string{"UserDetailList", "GroupDetailList", "RoleDetailList", "Policies"} {
		out.children = append(out.children, members(name, lists[name]...))
	}
	out.children = append(out.children, rest...)
	return out, nil
}

func (s *Server) entityDetail(e *entity) element {
	out := s.describe(e, true)
	var inline, attached, profiles []element
	for _, name := range slices.Sorted(maps.Keys(e.inline)) {
		inline = append(inline, el("", txt("PolicyName", name), policyText("PolicyDocument", e.inline[name].raw)))
	}
	for _, arn := range e.attached {
		attached = append(attached, attachedPolicy(arn))
	}
	out.children = append(out.children, members(e.kind.title()+"PolicyList", inline...), members("AttachedManagedPolicies", attached...))
	switch e.kind {
	case userKind:
		out.children = append(out.children, texts("GroupList", e.groups))
	case roleKind:
		for _, name := range e.profiles {
			profiles = append(profiles, s.describeProfile(e, name))
		}
		out.children = append(out.children, members("InstanceProfileList", profiles...))
	}
	return out
}

func (s *Server) policyDetail(p *managed) element {
	out := s.describePolicy(p)
	var versions []element
	for _, v := range slices.Backward(p.versions) {
		versions = append(versions, p.describeVersion(v, true))
	}
	out.children = append(out.children, members("PolicyVersionList", versions...))
	return out
}

// simulation is a SimulatePrincipalPolicy call taken apart.
type simulation struct {
	who     iampolicy.Principal
	set     iampolicy.PolicySet
	context iampolicy.Context
	given   map[string]bool // context keys, in lower case
}

// simulate judges by what the control plane shows, as AWS's simulator does: it says nothing of how far a change has spread.
func simulate(c *call) (element, error) {
	sim, err := c.simulation()
	if err != nil {
		return element{}, err
	}
	actions, resources := queryList(c.form, "ActionNames", ""), queryList(c.form, "ResourceArns", "")
	if len(actions) == 0 {
		return element{}, fail(400, "InvalidInput", "ActionNames must not be empty")
	}
	if len(resources) == 0 {
		resources = []string{"*"}
	}
	var results []element
	for _, action := range actions {
		if !strings.Contains(action, ":") {
			return element{}, fail(400, "InvalidInput", "Invalid Action Name: %s", action)
		}
		for _, arn := range resources {
			results = append(results, c.server.evaluated(sim, action, arn))
		}
	}
	return paged(c, "EvaluationResults", results)
}

func (c *call) simulation() (simulation, error) {
	s := c.server
	source := c.form.Get("PolicySourceArn")
	var e *entity
	for _, candidate := range s.state.entities.live {
		if candidate.arn == source {
			e = candidate
		}
	}
	if e == nil {
		return simulation{}, noSuchEntity("Policy source %s does not exist.", source)
	}
	sim := simulation{who: s.userPrincipal(e), given: map[string]bool{}}
	if e.kind == roleKind {
		sim.who = iampolicy.Principal{Kind: iampolicy.RoleSession, Account: s.options.Account, ARN: e.arn, RoleARN: e.arn}
	}
	sim.set.Identity = policiesOf(e, s.state.entities.live, s.state.policies.live)
	sim.set.Boundary = boundaryOf(e, s.state.policies.live)
	if limit, ok := s.state.control.live[controlKey]; ok {
		sim.set.SCP = limit.levels
	}
	for i, raw := range queryList(c.form, "PolicyInputList", "") {
		d, err := identityDocument(raw)
		if err != nil {
			return simulation{}, err
		}
		sim.set.Identity = append(sim.set.Identity, iampolicy.Policy{Name: "PolicyInputList." + strconv.Itoa(i+1), Document: d.parsed})
	}
	if raw := c.form.Get("ResourcePolicy"); raw != "" {
		d, err := newDocument(raw, iampolicy.ResourcePlace)
		if err != nil {
			return simulation{}, err
		}
		sim.set.Resource = []iampolicy.Policy{{Name: "ResourcePolicy", Document: d.parsed}}
	}
	return sim, c.readContext(&sim)
}

func (c *call) readContext(sim *simulation) error {
	for i := 1; i <= maxMembers; i++ {
		prefix := "ContextEntries.member." + strconv.Itoa(i) + "."
		key := c.form.Get(prefix + "ContextKeyName")
		if key == "" {
			return nil
		}
		values := queryList(c.form, prefix+"ContextKeyValues", "")
		if len(values) == 0 {
			return fail(400, "InvalidInput", "Context key %s has no value", key)
		}
		sim.context = sim.context.With(key, values...)
		sim.given[strings.ToLower(key)] = true
	}
	return nil
}

func (s *Server) evaluated(sim simulation, action, arn string) element {
	if sim.set.Resource == nil { // a simulation without one asks the identity policies alone, also on roles and keys
		sim.set.Resource = s.delegation()
	}
	decision := iampolicy.Evaluate(iampolicy.Request{
		Principal: sim.who, Action: action, Resource: arn, ResourceAccount: s.options.Account, Context: sim.context,
	}, sim.set)
	out := el("", txt("EvalActionName", action), txt("EvalResourceName", arn), txt("EvalDecision", string(decision.Lower.Verdict)))
	var matched []element
	if reason := decision.Lower.Reason; reason.Policy != "" {
		matched = append(matched, el("", txt("SourcePolicyId", policyID(reason.Policy)), txt("SourcePolicyType", sourceType(reason.Policy))))
	}
	out.children = append(out.children, members("MatchedStatements", matched...), texts("MissingContextValues", sim.missing()))
	if sim.set.SCP != nil {
		out.children = append(out.children, el("OrganizationsDecisionDetail", txt("AllowedByOrganizations", strconv.FormatBool(decision.Lower.Reason.Layer != iampolicy.SCPLayer))))
	}
	if sim.set.Boundary != nil {
		out.children = append(out.children, el("PermissionsBoundaryDecisionDetail", txt("AllowedByPermissionsBoundary", strconv.FormatBool(decision.Lower.Reason.Layer != iampolicy.BoundaryLayer))))
	}
	return out
}

// delegation is a resource policy that leaves everything to the identity policies of the account.
func (s *Server) delegation() []iampolicy.Policy {
	return []iampolicy.Policy{iampolicy.Read("", []byte(`{"Statement":{"Effect":"Allow","Principal":{"AWS":"`+s.options.Account+`"},"Action":"*"}}`))}
}

// policyID is a policy's name in MatchedStatements: the name of a managed policy, kind_entity_name for an inline one.
func policyID(name string) string { return name[strings.LastIndexByte(name, '/')+1:] }

func sourceType(name string) string {
	for prefix, sort := range map[string]string{
		awsPolicies: "aws-managed", "arn:": "user-managed", "user_": "user", "role_": "role", "group_": "group", "ResourcePolicy": "resource",
	} {
		if strings.HasPrefix(name, prefix) && (prefix != "arn:" || !strings.HasPrefix(name, awsPolicies)) {
			return sort
		}
	}
	return "none"
}

// missing lists the context keys that the policies ask for and the caller did not give.
func (sim simulation) missing() []string {
	found := map[string]string{}
	for _, policies := range [][]iampolicy.Policy{sim.set.Identity, sim.set.Boundary, sim.set.Resource} {
		for _, policy := range policies {
			for _, statement := range policy.Document.Statements {
				for _, condition := range statement.Conditions {
					if lower := strings.ToLower(condition.Key); !sim.given[lower] {
						found[lower] = condition.Key
					}
				}
			}
		}
	}
	return slices.Sorted(maps.Values(found))
}
