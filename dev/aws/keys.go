package aws

import "net/http"

func keyOperations() map[string]operation {
	return map[string]operation{
		"iam:CreateAccessKey":      onEntity(userKind, false, createAccessKey),
		"iam:ListAccessKeys":       onEntity(userKind, true, listAccessKeys),
		"iam:UpdateAccessKey":      onEntity(userKind, false, updateAccessKey),
		"iam:DeleteAccessKey":      onEntity(userKind, false, deleteAccessKey),
		"iam:GetAccessKeyLastUsed": {readOnly: true, target: keyOwnerTarget, run: getAccessKeyLastUsed},
	}
}

func createAccessKey(c *call, e *entity) (element, error) {
	s := c.server
	if len(s.keysOf(e.key())) >= maxKeys {
		return element{}, limitExceeded("Cannot exceed quota for AccessKeysPerUser: %d", maxKeys)
	}
	key := &accessKey{id: newKeyID("AKIA", s.options.Account), secret: newSecret(), owner: e.key(), active: true, created: c.now}
	s.state.keys.put(key.id, key, s.visibleAt())
	c.mintedKey = key.id
	c.resources = append(c.resources, resource{"AWS::IAM::AccessKey", key.id})
	c.answer = map[string]any{"accessKey": map[string]any{"userName": e.name, "accessKeyId": key.id, "status": key.status()}}
	return el("", el("AccessKey", txt("UserName", e.name), txt("AccessKeyId", key.id), txt("Status", key.status()),
		txt("SecretAccessKey", key.secret), when("CreateDate", key.created))), nil
}

func listAccessKeys(c *call, e *entity) (element, error) {
	var list []element
	for _, key := range c.server.keysOf(e.key()) {
		list = append(list, el("", txt("UserName", e.name), txt("AccessKeyId", key.id), txt("Status", key.status()), when("CreateDate", key.created)))
	}
	return paged(c, "AccessKeyMetadata", list)
}

func (c *call) key(e *entity) (*accessKey, error) {
	id := c.form.Get("AccessKeyId")
	key, ok := c.server.state.keys.live[id]
	if !ok || key.owner != e.key() {
		return nil, noSuchEntity("The Access Key with id %s cannot be found.", id)
	}
	c.resources = append(c.resources, resource{"AWS::IAM::AccessKey", id})
	return key, nil
}

func updateAccessKey(c *call, e *entity) (element, error) {
	status := c.form.Get("Status")
	if status != "Active" && status != "Inactive" {
		return element{}, invalid("1 validation error detected: Value '%s' at 'status' failed to satisfy constraint: Member must satisfy enum value set: [Active, Inactive]", status)
	}
	key, err := c.key(e)
	if err != nil {
		return element{}, err
	}
	next := *key
	next.active = status == "Active"
	c.server.state.keys.put(key.id, &next, c.server.visibleAt())
	return element{}, nil
}

func deleteAccessKey(c *call, e *entity) (element, error) {
	key, err := c.key(e)
	if err != nil {
		return element{}, err
	}
	c.server.state.keys.put(key.id, nil, c.server.visibleAt())
	return element{}, nil
}

func keyOwnerTarget(c *call) target {
	if key, ok := c.server.state.keys.live[c.form.Get("AccessKeyId")]; ok {
		if owner, ok := c.server.state.entities.live[key.owner]; ok {
			return target{resource: owner.arn}
		}
	}
	return target{resource: "*"}
}

// getAccessKeyLastUsed finds a key's user. For what is no user's key of this account AWS answers AccessDenied, not NoSuchEntity.
func getAccessKeyLastUsed(c *call) (element, error) {
	id := c.form.Get("AccessKeyId")
	key, ok := c.server.state.keys.live[id]
	if !ok {
		return element{}, fail(http.StatusForbidden, "AccessDenied", "User: %s is not authorized to perform: iam:GetAccessKeyLastUsed on resource: access key %s", c.caller.who.ARN, id)
	}
	used := el("AccessKeyLastUsed", txt("ServiceName", "N/A"), txt("Region", "N/A"))
	if use, ok := c.server.lastUsed[id]; ok {
		used = el("AccessKeyLastUsed", when("LastUsedDate", use.at), txt("ServiceName", use.service), txt("Region", use.region))
	}
	name := key.owner
	if owner, ok := c.server.state.entities.live[key.owner]; ok {
		name = owner.name
	}
	return el("", txt("UserName", name), used), nil
}
