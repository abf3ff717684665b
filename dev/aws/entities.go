package aws

import (
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

var (
	namePattern = regexp.MustCompile(`^[\w+=,.@-]{1,128}$`)
	pathPattern = regexp.MustCompile(`^/([\x21-\x7e]+/)?$`)
)

var idPrefixes = map[kind]string{userKind: "AIDA", roleKind: "AROA", groupKind: "AGPA"}

func entityOperations() map[string]operation {
	all := map[string]operation{}
	for _, k := range allKinds {
		all["iam:Create"+k.title()] = operation{target: entityTarget(k), run: func(c *call) (element, error) { return createEntity(c, k) }}
		all["iam:List"+k.title()+"s"] = operation{readOnly: true, target: under(string(k)), run: func(c *call) (element, error) { return listEntities(c, k) }}
	}
	verbs(all, "Get", "", []kind{userKind, roleKind}, true, func(c *call, e *entity) (element, error) {
		return el("", c.server.describe(e, true)), nil
	})
	verbs(all, "Delete", "", allKinds, false, deleteEntity)
	verbs(all, "Tag", "", bothKinds, false, tagEntity)
	verbs(all, "Untag", "", bothKinds, false, func(c *call, e *entity) (element, error) {
		c.server.change(e, func(e *entity) {
			for _, key := range queryList(c.form, "TagKeys", "") {
				delete(e.tags, key)
			}
		})
		return element{}, nil
	})
	verbs(all, "List", "Tags", bothKinds, true, func(c *call, e *entity) (element, error) {
		return el("", tagList(e.tags), txt("IsTruncated", "false")), nil
	})
	verbs(all, "Put", "PermissionsBoundary", bothKinds, false, putBoundary)
	verbs(all, "Delete", "PermissionsBoundary", bothKinds, false, func(c *call, e *entity) (element, error) {
		if e.boundary == "" {
			return element{}, noSuchEntity("%s %s does not have a permissions boundary.", e.kind.title(), e.name)
		}
		c.server.change(e, func(e *entity) { e.boundary = "" })
		return element{}, nil
	})
	return all
}

func createEntity(c *call, k kind) (element, error) {
	s := c.server
	name, path := c.form.Get(k.title()+"Name"), pathOf(c.form.Get("Path"))
	limit := 64
	if k == groupKind {
		limit = 128
	}
	if !namePattern.MatchString(name) || len(name) > limit {
		return element{}, invalid("The specified value for %sName is invalid. It must contain only alphanumeric characters and/or the following: +=,.@_-", k)
	}
	if !pathPattern.MatchString(path) || len(path) > 512 {
		return element{}, invalid("The specified value for path is invalid. It must begin and end with / and contain only alphanumeric characters and/or / characters.")
	}
	for _, other := range s.state.entities.live {
		if other.kind == k && strings.EqualFold(other.name, name) {
			return element{}, alreadyExists("%s with name %s already exists.", k.title(), name)
		}
	}
	tags, err := queryTags(c.form, "Tags")
	if err != nil {
		return element{}, err
	}
	e := &entity{kind: k, name: name, path: path, id: newUniqueID(idPrefixes[k]), arn: s.arn(k, path, name), created: c.now,
		tags: tags, inline: map[string]document{}}
	if boundary := c.form.Get("PermissionsBoundary"); boundary != "" {
		if err := s.attachable(boundary); err != nil {
			return element{}, err
		}
		e.boundary = boundary
	}
	if k == roleKind {
		if err := c.fillRole(e); err != nil {
			return element{}, err
		}
	}
	s.state.entities.put(e.key(), e, s.visibleAt())
	c.touched(e)
	c.answer = map[string]any{string(k): map[string]any{k.title() + "Name": name, "arn": e.arn, "path": path, string(k) + "Id": e.id}}
	return el("", s.describe(e, true)), nil
}

// fillRole reads what only a role has.
func (c *call) fillRole(e *entity) error {
	trust, err := trustDocument(c.form.Get("AssumeRolePolicyDocument"))
	if err != nil {
		return err
	}
	if strings.HasPrefix(e.path, "/aws-service-role/") {
		return invalid("The path /aws-service-role/ is reserved for service-linked roles.")
	}
	e.trust, e.description, e.maxSession = trust, c.form.Get("Description"), time.Hour
	if text := c.form.Get("MaxSessionDuration"); text != "" {
		seconds, err := strconv.Atoi(text)
		if err != nil || seconds < 3600 || seconds > 43200 {
			return invalid("1 validation error detected: Value '%s' at 'maxSessionDuration' failed to satisfy constraint: Member must have value between 3600 and 43200", text)
		}
		e.maxSession = time.Duration(seconds) * time.Second
	}
	return nil
}

// describe is the entity as answers show it; lists leave boundary and tags out.
func (s *Server) describe(e *entity, full bool) element {
	out := el(e.kind.title(), txt("Path", e.path), txt(e.kind.title()+"Name", e.name), txt(e.kind.title()+"Id", e.id), txt("Arn", e.arn), when("CreateDate", e.created))
	if e.kind == roleKind {
		out.children = append(out.children, policyText("AssumeRolePolicyDocument", e.trust.raw),
			txt("MaxSessionDuration", strconv.Itoa(int(e.maxSession.Seconds()))))
		if e.description != "" {
			out.children = append(out.children, txt("Description", e.description))
		}
	}
	if !full || e.kind == groupKind {
		return out
	}
	if e.boundary != "" {
		out.children = append(out.children, el("PermissionsBoundary", txt("PermissionsBoundaryType", "Policy"), txt("PermissionsBoundaryArn", e.boundary)))
	}
	if len(e.tags) > 0 {
		out.children = append(out.children, tagList(e.tags))
	}
	return out
}

func listEntities(c *call, k kind) (element, error) {
	prefix := pathOf(c.form.Get("PathPrefix"))
	var found []element
	for _, e := range c.server.state.entities.sorted() {
		if e.kind == k && strings.HasPrefix(e.path, prefix) {
			found = append(found, c.server.describe(e, false))
		}
	}
	return paged(c, k.title()+"s", found)
}

// paged is one page of a list.
func paged(c *call, name string, items []element) (element, error) {
	items, rest, err := page(c, items)
	if err != nil {
		return element{}, err
	}
	return el("", append([]element{members(name, items...)}, rest...)...), nil
}

func deleteEntity(c *call, e *entity) (element, error) {
	s := c.server
	switch {
	case len(s.keysOf(e.key())) > 0:
		return element{}, deleteConflict("Cannot delete entity, must delete access keys first.")
	case len(e.inline) > 0:
		return element{}, deleteConflict("Cannot delete entity, must delete policies first.")
	case len(e.attached) > 0:
		return element{}, deleteConflict("Cannot delete entity, must detach all policies first.")
	case len(e.groups) > 0 || e.kind == groupKind && s.inUse(e.name):
		return element{}, deleteConflict("Cannot delete entity, must remove users from group first.")
	case !e.login.IsZero():
		return element{}, deleteConflict("Cannot delete entity, must delete login profile first.")
	case len(e.profiles) > 0:
		return element{}, deleteConflict("Cannot delete entity, must remove roles from instance profile first.")
	}
	s.state.entities.put(e.key(), nil, s.visibleAt())
	return element{}, nil
}

// inUse reports whether a user is in the group.
func (s *Server) inUse(group string) bool {
	for _, e := range s.state.entities.live {
		for _, name := range e.groups {
			if name == group {
				return true
			}
		}
	}
	return false
}

func tagEntity(c *call, e *entity) (element, error) {
	tags, err := queryTags(c.form, "Tags")
	if err != nil {
		return element{}, err
	}
	merged := len(e.tags)
	for key := range tags {
		if _, ok := e.tags[key]; !ok {
			merged++
		}
	}
	if merged > 50 {
		return element{}, limitExceeded("Cannot exceed quota for TagsPer%s: 50", e.kind.title())
	}
	c.server.change(e, func(e *entity) {
		for key, value := range tags {
			if e.tags == nil {
				e.tags = map[string]string{}
			}
			e.tags[key] = value
		}
	})
	return element{}, nil
}

func putBoundary(c *call, e *entity) (element, error) {
	arn := c.form.Get("PermissionsBoundary")
	if err := c.server.attachable(arn); err != nil {
		return element{}, err
	}
	c.server.change(e, func(e *entity) { e.boundary = arn })
	return element{}, nil
}

// attachable reports whether the ARN names a managed policy.
func (s *Server) attachable(arn string) error {
	if !strings.HasPrefix(arn, "arn:aws:iam::") {
		return fail(http.StatusBadRequest, "InvalidInput", "ARN %s is not valid.", arn)
	}
	if _, ok := s.state.policies.live[arn]; !ok {
		return noSuchEntity("Policy %s does not exist or is not attachable.", arn)
	}
	return nil
}
