package aws

import "slices"

func groupOperations() map[string]operation {
	return map[string]operation{
		"iam:AddUserToGroup":      onEntity(groupKind, false, addUserToGroup),
		"iam:RemoveUserFromGroup": onEntity(groupKind, false, removeUserFromGroup),
		"iam:GetGroup":            onEntity(groupKind, true, getGroup),
	}
}

func (c *call) member() (*entity, error) {
	user, err := c.entity(userKind)
	if err == nil {
		c.touched(user)
	}
	return user, err
}

func addUserToGroup(c *call, group *entity) (element, error) {
	user, err := c.member()
	if err != nil || slices.Contains(user.groups, group.name) {
		return element{}, err
	}
	if len(user.groups) >= maxUserGroups {
		return element{}, limitExceeded("Cannot exceed quota for GroupsPerUser: %d", maxUserGroups)
	}
	c.server.change(user, func(e *entity) { e.groups = append(e.groups, group.name) })
	return element{}, nil
}

func removeUserFromGroup(c *call, group *entity) (element, error) {
	user, err := c.member()
	if err != nil {
		return element{}, err
	}
	at := slices.Index(user.groups, group.name)
	if at < 0 {
		return element{}, noSuchEntity("User %s is not in group %s", user.name, group.name)
	}
	c.server.change(user, func(e *entity) { e.groups = slices.Delete(e.groups, at, at+1) })
	return element{}, nil
}

func getGroup(c *call, group *entity) (element, error) {
	var users []element
	for _, e := range c.server.state.entities.sorted() {
		if slices.Contains(e.groups, group.name) {
			users = append(users, c.server.describe(e, false))
		}
	}
	answer, err := paged(c, "Users", users)
	answer.children = append(answer.children, c.server.describe(group, false))
	return answer, err
}
