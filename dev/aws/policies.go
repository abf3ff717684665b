package aws

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

func policyOperations() map[string]operation {
	byARN := func(c *call) target { return target{resource: c.form.Get("PolicyArn")} }
	return map[string]operation{
		"iam:CreatePolicy": {target: func(c *call) target {
			return target{resource: c.server.policyARN(pathOf(c.form.Get("Path")), c.form.Get("PolicyName"))}
		}, run: createPolicy},
		"iam:GetPolicy":               {readOnly: true, target: byARN, run: onPolicy(getPolicy)},
		"iam:DeletePolicy":            {target: byARN, run: onPolicy(deletePolicy)},
		"iam:ListPolicies":            {readOnly: true, target: under("policy"), run: listPolicies},
		"iam:CreatePolicyVersion":     {target: byARN, run: onPolicy(createPolicyVersion)},
		"iam:GetPolicyVersion":        {readOnly: true, target: byARN, run: onPolicy(getPolicyVersion)},
		"iam:ListPolicyVersions":      {readOnly: true, target: byARN, run: onPolicy(listPolicyVersions)},
		"iam:SetDefaultPolicyVersion": {target: byARN, run: onPolicy(setDefaultPolicyVersion)},
		"iam:DeletePolicyVersion":     {target: byARN, run: onPolicy(deletePolicyVersion)},
		"iam:ListEntitiesForPolicy":   {readOnly: true, target: byARN, run: onPolicy(listEntitiesForPolicy)},
	}
}

func (s *Server) policyARN(path, name string) string {
	return "arn:aws:iam::" + s.options.Account + ":policy" + path + name
}

// onPolicy gives the operation its live policy. Those of AWS itself can be read only.
func onPolicy(run func(*call, *managed) (element, error)) func(*call) (element, error) {
	return func(c *call) (element, error) {
		arn := c.form.Get("PolicyArn")
		policy, ok := c.server.state.policies.live[arn]
		switch {
		case !ok:
			return element{}, noSuchEntity("Policy %s was not found.", arn)
		case strings.HasPrefix(arn, awsPolicies) && !c.server.operations["iam:"+c.action].readOnly:
			return element{}, accessDenied("User: %s is not authorized to perform: iam:%s on resource: policy %s", c.caller.who.ARN, c.action, arn)
		}
		c.resources = append(c.resources, resource{"AWS::IAM::Policy", arn})
		return run(c, policy)
	}
}

func createPolicy(c *call) (element, error) {
	s := c.server
	name, path := c.form.Get("PolicyName"), pathOf(c.form.Get("Path"))
	if !namePattern.MatchString(name) || !pathPattern.MatchString(path) {
		return element{}, invalid("The specified value for policyName is invalid. It must contain only alphanumeric characters and/or the following: +=,.@_-")
	}
	d, err := c.managedDocument()
	if err != nil {
		return element{}, err
	}
	for _, other := range s.state.policies.live {
		if strings.EqualFold(other.name, name) && !strings.HasPrefix(other.arn, awsPolicies) {
			return element{}, alreadyExists("A policy called %s already exists. Duplicate names are not allowed.", name)
		}
	}
	policy := &managed{name: name, path: path, id: newUniqueID("ANPA"), arn: s.policyARN(path, name), created: c.now, updated: c.now,
		description: c.form.Get("Description"), versions: []version{{"v1", c.now, d}}, current: "v1", made: 1}
	s.state.policies.put(policy.arn, policy, s.visibleAt())
	c.resources = append(c.resources, resource{"AWS::IAM::Policy", policy.arn})
	c.answer = map[string]any{"policy": map[string]any{"policyName": name, "arn": policy.arn, "policyId": policy.id, "defaultVersionId": "v1"}}
	return el("", s.describePolicy(policy)), nil
}

func (c *call) managedDocument() (document, error) {
	d, err := identityDocument(c.form.Get("PolicyDocument"))
	if err == nil && size(d.raw) > maxManaged {
		err = limitExceeded("Cannot exceed quota for PolicySize: %d", maxManaged)
	}
	return d, err
}

func (s *Server) describePolicy(p *managed) element {
	attached, boundaries := 0, 0
	for _, e := range s.state.entities.live {
		if slices.Contains(e.attached, p.arn) {
			attached++
		}
		if e.boundary == p.arn {
			boundaries++
		}
	}
	return el("Policy", txt("PolicyName", p.name), txt("PolicyId", p.id), txt("Arn", p.arn), txt("Path", p.path),
		txt("DefaultVersionId", p.current), txt("AttachmentCount", strconv.Itoa(attached)),
		txt("PermissionsBoundaryUsageCount", strconv.Itoa(boundaries)), txt("IsAttachable", "true"),
		txt("Description", p.description), when("CreateDate", p.created), when("UpdateDate", p.updated))
}

func (p *managed) describeVersion(v version, full bool) element {
	out := el("PolicyVersion", txt("VersionId", v.id), txt("IsDefaultVersion", strconv.FormatBool(v.id == p.current)), when("CreateDate", v.created))
	if full {
		out.children = append(out.children, policyText("Document", v.raw))
	}
	return out
}

func getPolicy(c *call, p *managed) (element, error) { return el("", c.server.describePolicy(p)), nil }

func listPolicies(c *call) (element, error) {
	scope, prefix := c.form.Get("Scope"), pathOf(c.form.Get("PathPrefix"))
	var found []element
	for _, p := range c.server.state.policies.sorted() {
		aws := strings.HasPrefix(p.arn, awsPolicies)
		if scope == "Local" && aws || scope == "AWS" && !aws || !strings.HasPrefix(p.path, prefix) {
			continue
		}
		if c.form.Get("OnlyAttached") == "true" && !c.server.attachedAnywhere(p.arn) {
			continue
		}
		found = append(found, c.server.describePolicy(p))
	}
	return paged(c, "Policies", found)
}

func (s *Server) attachedAnywhere(arn string) bool {
	for _, e := range s.state.entities.live {
		if slices.Contains(e.attached, arn) {
			return true
		}
	}
	return false
}

// changePolicy copies the policy, lets edit work on the copy and stores it.
func (c *call) changePolicy(p *managed, edit func(*managed)) {
	next := *p
	next.versions = slices.Clone(p.versions)
	next.updated = c.now
	edit(&next)
	c.server.state.policies.put(next.arn, &next, c.server.visibleAt())
}

func createPolicyVersion(c *call, p *managed) (element, error) {
	d, err := c.managedDocument()
	if err != nil {
		return element{}, err
	}
	if len(p.versions) >= maxVersions {
		return element{}, limitExceeded("A managed policy can have up to %d versions. Before you create a new version, you must delete an existing version.", maxVersions)
	}
	var answer element
	c.changePolicy(p, func(p *managed) {
		p.made++
		v := version{fmt.Sprintf("v%d", p.made), c.now, d}
		p.versions = append(p.versions, v)
		if c.form.Get("SetAsDefault") == "true" {
			p.current = v.id
		}
		answer = p.describeVersion(v, false)
	})
	return el("", answer), nil
}

func (c *call) version(p *managed) (version, error) {
	v, ok := p.version(c.form.Get("VersionId"))
	if !ok {
		return v, noSuchEntity("Policy %s version %s does not exist or is not attachable.", p.arn, c.form.Get("VersionId"))
	}
	return v, nil
}

func getPolicyVersion(c *call, p *managed) (element, error) {
	v, err := c.version(p)
	if err != nil {
		return element{}, err
	}
	return el("", p.describeVersion(v, true)), nil
}

func listPolicyVersions(c *call, p *managed) (element, error) {
	var list []element
	for _, v := range slices.Backward(p.versions) {
		list = append(list, p.describeVersion(v, false))
	}
	return paged(c, "Versions", list)
}

func setDefaultPolicyVersion(c *call, p *managed) (element, error) {
	v, err := c.version(p)
	if err != nil {
		return element{}, err
	}
	c.changePolicy(p, func(p *managed) { p.current = v.id })
	return element{}, nil
}

func deletePolicyVersion(c *call, p *managed) (element, error) {
	v, err := c.version(p)
	if err != nil {
		return element{}, err
	}
	if v.id == p.current {
		return element{}, deleteConflict("Cannot delete the default version of a policy.")
	}
	c.changePolicy(p, func(p *managed) {
		p.versions = slices.DeleteFunc(p.versions, func(other version) bool { return other.id == v.id })
	})
	return element{}, nil
}

func deletePolicy(c *call, p *managed) (element, error) {
	for _, e := range c.server.state.entities.live {
		if slices.Contains(e.attached, p.arn) || e.boundary == p.arn {
			return element{}, deleteConflict("Cannot delete a policy attached to entities.")
		}
	}
	if len(p.versions) > 1 {
		return element{}, deleteConflict("This policy has more than one version. Before you delete a policy, you must delete the policy's versions. The default version is deleted with the policy.")
	}
	c.server.state.policies.put(p.arn, nil, c.server.visibleAt())
	return element{}, nil
}

func listEntitiesForPolicy(c *call, p *managed) (element, error) {
	if filter := c.form.Get("EntityFilter"); filter == "AWSManagedPolicy" || filter == "LocalManagedPolicy" {
		return element{}, fail(http.StatusBadRequest, "InvalidInput", "EntityFilter %s is not one of User, Role, Group", filter)
	}
	lists := map[kind][]element{}
	for _, e := range c.server.state.entities.sorted() {
		if slices.Contains(e.attached, p.arn) {
			lists[e.kind] = append(lists[e.kind], el("", txt(e.kind.title()+"Name", e.name), txt(e.kind.title()+"Id", e.id)))
		}
	}
	return el("", members("PolicyUsers", lists[userKind]...), members("PolicyRoles", lists[roleKind]...),
		members("PolicyGroups", lists[groupKind]...), txt("IsTruncated", "false")), nil
}
