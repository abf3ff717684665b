package aws

import (
	"slices"
	"strings"
	"time"
)

func userOperations() map[string]operation {
	return map[string]operation{
		"iam:GetLoginProfile":    onEntity(userKind, true, getLoginProfile),
		"iam:CreateLoginProfile": onEntity(userKind, false, createLoginProfile),
		"iam:DeleteLoginProfile": onEntity(userKind, false, deleteLoginProfile),
		"iam:ListMFADevices":     onEntity(userKind, true, listMFADevices),

		"iam:ListServiceSpecificCredentials":  onEntity(userKind, true, listServiceCredentials),
		"iam:CreateServiceSpecificCredential": onEntity(userKind, false, createServiceCredential),
		"iam:UpdateServiceSpecificCredential": onEntity(userKind, false, updateServiceCredential),
		"iam:ListGroupsForUser":               onEntity(userKind, true, listGroupsForUser),
	}
}

func loginProfile(e *entity) element {
	return el("LoginProfile", txt("UserName", e.name), when("CreateDate", e.login), txt("PasswordResetRequired", "false"))
}

func getLoginProfile(c *call, e *entity) (element, error) {
	if e.login.IsZero() {
		return element{}, noSuchEntity("Login Profile for User %s cannot be found.", e.name)
	}
	return el("", loginProfile(e)), nil
}

// createLoginProfile keeps no password: the stand-in has no console.
func createLoginProfile(c *call, e *entity) (element, error) {
	if !e.login.IsZero() {
		return element{}, alreadyExists("Login Profile for user %s already exists.", e.name)
	}
	c.server.change(e, func(e *entity) { e.login = c.now })
	return el("", loginProfile(c.server.state.entities.live[e.key()])), nil
}

func deleteLoginProfile(c *call, e *entity) (element, error) {
	if e.login.IsZero() {
		return element{}, noSuchEntity("Login Profile for User %s cannot be found.", e.name)
	}
	c.server.change(e, func(e *entity) { e.login = time.Time{} })
	return element{}, nil
}

func listMFADevices(c *call, e *entity) (element, error) {
	var list []element
	for _, device := range e.mfa {
		list = append(list, el("", txt("UserName", e.name), txt("SerialNumber", device.serial), when("EnableDate", device.enabled)))
	}
	return paged(c, "MFADevices", list)
}

// maxServiceCredentials is AWS's limit for each user and service.
const maxServiceCredentials = 2

func describeCredential(e *entity, held serviceCredential) element {
	return el("ServiceSpecificCredentialMetadata", txt("UserName", e.name), txt("Status", held.status), txt("ServiceUserName", held.userName),
		when("CreateDate", held.created), txt("ServiceSpecificCredentialId", held.id), txt("ServiceName", held.service))
}

func listServiceCredentials(c *call, e *entity) (element, error) {
	var list []element
	for _, held := range e.credentials {
		if service := c.form.Get("ServiceName"); service == "" || service == held.service {
			list = append(list, describeCredential(e, held))
		}
	}
	return el("", members("ServiceSpecificCredentials", list...)), nil
}

func createServiceCredential(c *call, e *entity) (element, error) {
	service := c.form.Get("ServiceName")
	if !strings.HasSuffix(service, ".amazonaws.com") {
		return element{}, noSuchEntity("No such service %s is supported for Service Specific Credentials", service)
	}
	count := 0
	for _, held := range e.credentials {
		if held.service == service {
			count++
		}
	}
	if count >= maxServiceCredentials {
		return element{}, limitExceeded("Cannot exceed quota for ServiceSpecificCredentialsPerUser: %d", maxServiceCredentials)
	}
	held := serviceCredential{id: newUniqueID("ACCA"), service: service, userName: e.name + "-at-" + c.server.options.Account, status: "Active", created: c.now}
	c.server.change(e, func(e *entity) { e.credentials = append(e.credentials, held) })
	out := describeCredential(e, held)
	out.name = "ServiceSpecificCredential"
	out.children = append(out.children, txt("ServicePassword", newSecret()))
	return el("", out), nil
}

func updateServiceCredential(c *call, e *entity) (element, error) {
	id, status := c.form.Get("ServiceSpecificCredentialId"), c.form.Get("Status")
	if status != "Active" && status != "Inactive" {
		return element{}, invalid("1 validation error detected: Value '%s' at 'status' failed to satisfy constraint: Member must satisfy enum value set: [Active, Inactive]", status)
	}
	at := slices.IndexFunc(e.credentials, func(held serviceCredential) bool { return held.id == id })
	if at < 0 {
		return element{}, noSuchEntity("No such credential %s exists", id)
	}
	c.server.change(e, func(e *entity) { e.credentials[at].status = status })
	return element{}, nil
}

func listGroupsForUser(c *call, e *entity) (element, error) {
	var list []element
	for _, name := range e.groups {
		if group, ok := c.server.state.entities.live[string(groupKind)+"/"+name]; ok {
			list = append(list, c.server.describe(group, false))
		}
	}
	return paged(c, "Groups", list)
}
