package aws

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"unicode"

	"tourniquet.dev/tourniquet/internal/blast/iampolicy"
)

// Quotas, in characters without white space where they are sizes.
const (
	maxAttached   = 10
	maxManaged    = 6144
	maxVersions   = 5
	maxTrust      = 2048
	maxKeys       = 2
	maxDocument   = 131072
	maxUserGroups = 10
)

// maxInline is the size of all inline policies of one entity together.
var maxInline = map[kind]int{userKind: 2048, roleKind: 10240, groupKind: 5120}

func holderOperations() map[string]operation {
	all := map[string]operation{}
	verbs(all, "Put", "Policy", allKinds, false, putInline)
	verbs(all, "Get", "Policy", allKinds, true, getInline)
	verbs(all, "Delete", "Policy", allKinds, false, deleteInline)
	verbs(all, "List", "Policies", allKinds, true, func(c *call, e *entity) (element, error) {
		var names []element
		for _, name := range slices.Sorted(maps.Keys(e.inline)) {
			names = append(names, txt("", name))
		}
		return paged(c, "PolicyNames", names)
	})
	verbs(all, "Attach", "Policy", allKinds, false, attach)
	verbs(all, "Detach", "Policy", allKinds, false, detach)
	verbs(all, "ListAttached", "Policies", allKinds, true, func(c *call, e *entity) (element, error) {
		var list []element
		for _, arn := range e.attached {
			if policy, ok := c.server.state.policies.live[arn]; ok && strings.HasPrefix(policy.path, pathOf(c.form.Get("PathPrefix"))) {
				list = append(list, attachedPolicy(arn))
			}
		}
		return paged(c, "AttachedPolicies", list)
	})
	return all
}

func attachedPolicy(arn string) element {
	return el("", txt("PolicyName", arn[strings.LastIndexByte(arn, '/')+1:]), txt("PolicyArn", arn))
}

// identityDocument reads a document that will stand on a user, role or group.
func identityDocument(raw string) (document, error) {
	return newDocument(raw, iampolicy.IdentityPlace)
}

func trustDocument(raw string) (document, error) {
	d, err := newDocument(raw, iampolicy.TrustPlace)
	if err == nil && size(raw) > maxTrust {
		err = limitExceeded("Cannot exceed quota for ACLSizePerRole: %d", maxTrust)
	}
	return d, err
}

func newDocument(raw string, place iampolicy.Place) (document, error) {
	if raw == "" || len(raw) > maxDocument {
		return document{}, invalid("1 validation error detected: Value at 'policyDocument' failed to satisfy constraint: Member must have length between 1 and %d", maxDocument)
	}
	parsed, err := iampolicy.Parse([]byte(raw))
	if err == nil {
		err = parsed.Check(place)
	}
	if err != nil {
		return document{}, fail(http.StatusBadRequest, "MalformedPolicyDocument", "Syntax errors in policy: %s", err)
	}
	return document{raw, parsed}, nil
}

// size counts the characters that a quota counts.
func size(raw string) int {
	n := 0
	for _, r := range raw {
		if !unicode.IsSpace(r) {
			n++
		}
	}
	return n
}

func putInline(c *call, e *entity) (element, error) {
	name := c.form.Get("PolicyName")
	if !namePattern.MatchString(name) {
		return element{}, invalid("The specified value for policyName is invalid. It must contain only alphanumeric characters and/or the following: +=,.@_-")
	}
	d, err := identityDocument(c.form.Get("PolicyDocument"))
	if err != nil {
		return element{}, err
	}
	total := size(d.raw)
	for other, held := range e.inline {
		if other != name {
			total += size(held.raw)
		}
	}
	if total > maxInline[e.kind] {
		return element{}, limitExceeded("Maximum policy size of %d bytes exceeded for %s %s", maxInline[e.kind], e.kind, e.name)
	}
	c.server.change(e, func(e *entity) { e.inline[name] = d })
	return element{}, nil
}

func (c *call) inline(e *entity) (document, error) {
	d, ok := e.inline[c.form.Get("PolicyName")]
	if !ok {
		return d, noSuchEntity("The %s policy with name %s cannot be found.", e.kind, c.form.Get("PolicyName"))
	}
	return d, nil
}

func getInline(c *call, e *entity) (element, error) {
	d, err := c.inline(e)
	if err != nil {
		return element{}, err
	}
	return el("", txt(e.kind.title()+"Name", e.name), txt("PolicyName", c.form.Get("PolicyName")), policyText("PolicyDocument", d.raw)), nil
}

func deleteInline(c *call, e *entity) (element, error) {
	if _, err := c.inline(e); err != nil {
		return element{}, err
	}
	c.server.change(e, func(e *entity) { delete(e.inline, c.form.Get("PolicyName")) })
	return element{}, nil
}

// attach is idempotent, as AWS's is.
func attach(c *call, e *entity) (element, error) {
	arn := c.form.Get("PolicyArn")
	if err := c.server.attachable(arn); err != nil {
		return element{}, err
	}
	c.resources = append(c.resources, resource{"AWS::IAM::Policy", arn})
	if slices.Contains(e.attached, arn) {
		return element{}, nil
	}
	if len(e.attached) >= maxAttached {
		return element{}, limitExceeded("Cannot exceed quota for PoliciesPer%s: %d", e.kind.title(), maxAttached)
	}
	c.server.change(e, func(e *entity) { e.attached = append(e.attached, arn) })
	return element{}, nil
}

func detach(c *call, e *entity) (element, error) {
	arn := c.form.Get("PolicyArn")
	c.resources = append(c.resources, resource{"AWS::IAM::Policy", arn})
	at := slices.Index(e.attached, arn)
	if at < 0 {
		return element{}, noSuchEntity("Policy %s was not found.", arn)
	}
	c.server.change(e, func(e *entity) { e.attached = slices.Delete(e.attached, at, at+1) })
	return element{}, nil
}
