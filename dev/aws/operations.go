package aws

import "maps"

// allOperations are the API actions by "service:Action".
func allOperations() map[string]operation {
	all := map[string]operation{}
	for _, part := range []func() map[string]operation{
		entityOperations, holderOperations, userOperations, groupOperations, roleOperations, policyOperations,
		keyOperations, accountOperations, stsOperations, cloudTrailOperations, s3Operations, queueOperations,
	} {
		maps.Copy(all, part())
	}
	return all
}

// verbs gives one operation for each kind of entity, named "iam:" + before + kind + after.
func verbs(all map[string]operation, before, after string, kinds []kind, readOnly bool, run func(*call, *entity) (element, error)) {
	for _, k := range kinds {
		all["iam:"+before+k.title()+after] = onEntity(k, readOnly, run)
	}
}

// onEntity is an operation on one live entity. Roles that only AWS may change can be read.
func onEntity(k kind, readOnly bool, run func(*call, *entity) (element, error)) operation {
	return operation{
		readOnly: readOnly,
		target:   entityTarget(k),
		run: func(c *call) (element, error) {
			e, err := c.entity(k)
			if err != nil {
				return element{}, err
			}
			if !readOnly && e.protected() {
				return element{}, fail(400, "UnmodifiableEntity", "Cannot perform the operation on the protected role '%s' - this role is only modifiable by AWS", e.name)
			}
			c.touched(e)
			return run(c, e)
		},
	}
}

var (
	allKinds  = []kind{userKind, roleKind, groupKind}
	bothKinds = []kind{userKind, roleKind}
)

// entity is the live entity that the call names. A user may leave its own name out.
func (c *call) entity(k kind) (*entity, error) {
	name := c.form.Get(k.title() + "Name")
	if name == "" {
		if k != userKind {
			return nil, invalid("1 validation error detected: Value at '%sName' failed to satisfy constraint: Member must not be null", k)
		}
		if c.caller.entity == nil || c.caller.entity.kind != userKind {
			return nil, invalid("Must specify userName when calling with non-User credentials")
		}
		name = c.caller.entity.name
	}
	e, ok := c.server.state.entities.live[string(k)+"/"+name]
	if !ok {
		return nil, noSuchEntity("The %s with name %s cannot be found.", k, name)
	}
	return e, nil
}

// entityTarget names the entity's ARN and the condition keys that its operations carry.
func entityTarget(k kind) func(*call) target {
	return func(c *call) target {
		e, err := c.entity(k)
		if err != nil {
			return target{resource: c.server.arn(k, pathOf(c.form.Get("Path")), c.form.Get(k.title()+"Name")), keys: c.boundaryKeys("")}
		}
		keys := c.boundaryKeys(e.boundary)
		for key, value := range e.tags {
			keys["aws:ResourceTag/"+key], keys["iam:ResourceTag/"+key] = value, value
		}
		return target{resource: e.arn, keys: keys}
	}
}

// boundaryKeys are iam:PolicyARN and iam:PermissionsBoundary: the boundary that the call sets, or else the one that stands.
func (c *call) boundaryKeys(standing string) map[string]string {
	keys := map[string]string{}
	if arn := c.form.Get("PolicyArn"); arn != "" {
		keys["iam:PolicyARN"] = arn
	}
	if arn := c.form.Get("PermissionsBoundary"); arn != "" {
		standing = arn
	}
	if standing != "" {
		keys["iam:PermissionsBoundary"] = standing
	}
	return keys
}

func (s *Server) arn(k kind, path, name string) string {
	return "arn:aws:iam::" + s.options.Account + ":" + string(k) + path + name
}

func pathOf(path string) string {
	if path == "" {
		return "/"
	}
	return path
}

// touched puts the entity into the event's resources.
func (c *call) touched(e *entity) {
	c.resources = append(c.resources, resource{"AWS::IAM::" + e.kind.title(), e.name})
}

// under is the target of operations on all entities of a sort: their ARN's beginning.
func under(sort string) func(*call) target {
	return func(c *call) target {
		return target{resource: "arn:aws:iam::" + c.server.options.Account + ":" + sort + pathOf(c.form.Get("PathPrefix"))}
	}
}
