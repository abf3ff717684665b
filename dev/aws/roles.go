package aws

import (
	"strconv"
	"time"
)

func roleOperations() map[string]operation {
	return map[string]operation{
		"iam:UpdateAssumeRolePolicy":      onEntity(roleKind, false, updateAssumeRolePolicy),
		"iam:UpdateRole":                  onEntity(roleKind, false, updateRole),
		"iam:ListInstanceProfilesForRole": onEntity(roleKind, true, listInstanceProfiles),
	}
}

func updateAssumeRolePolicy(c *call, e *entity) (element, error) {
	trust, err := trustDocument(c.form.Get("PolicyDocument"))
	if err != nil {
		return element{}, err
	}
	c.server.change(e, func(e *entity) { e.trust = trust })
	return element{}, nil
}

func updateRole(c *call, e *entity) (element, error) {
	session := e.maxSession
	if text := c.form.Get("MaxSessionDuration"); text != "" {
		seconds, err := strconv.Atoi(text)
		if err != nil || seconds < 3600 || seconds > 43200 {
			return element{}, invalid("1 validation error detected: Value '%s' at 'maxSessionDuration' failed to satisfy constraint: Member must have value between 3600 and 43200", text)
		}
		session = time.Duration(seconds) * time.Second
	}
	c.server.change(e, func(e *entity) {
		e.maxSession = session
		if c.form.Has("Description") {
			e.description = c.form.Get("Description")
		}
	})
	return element{}, nil
}

func listInstanceProfiles(c *call, e *entity) (element, error) {
	var list []element
	for _, name := range e.profiles {
		list = append(list, c.server.describeProfile(e, name))
	}
	return paged(c, "InstanceProfiles", list)
}

func (s *Server) describeProfile(role *entity, name string) element {
	return el("", txt("Path", "/"), txt("InstanceProfileName", name), txt("InstanceProfileId", "AIPA"+role.id[4:]),
		txt("Arn", "arn:aws:iam::"+s.options.Account+":instance-profile/"+name), when("CreateDate", role.created),
		members("Roles", s.describe(role, false)))
}
