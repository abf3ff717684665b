package iampolicy

import "strings"

// matchesPrincipal reports whether a resource policy's statement speaks of the caller, and how directly.
func (e *evaluation) matchesPrincipal(s *Statement) (truth, grant) {
	if s.NotPrincipals != nil {
		return e.outsideOf(s.NotPrincipals), directGrant
	}
	result, how := no, noGrant
	for _, entry := range s.Principals {
		found, directly := e.names(entry)
		if found == no {
			continue
		}
		if found == yes && result != yes || found == result && directly > how {
			result, how = found, directly
		}
	}
	return result, how
}

// names reports whether one entry of a Principal element names the caller.
func (e *evaluation) names(entry PrincipalEntry) (truth, grant) {
	p := e.request.Principal
	switch entry.Kind {
	case "Federated":
		return truthOf(p.Kind == WebIdentity && entry.Value == p.ARN), directGrant
	case "Service":
		return truthOf(p.Kind == Service && strings.EqualFold(entry.Value, p.ARN)), directGrant
	case "CanonicalUser":
		return truthOf(!p.bare()).and(unknown), accountGrant // the id of an account, which no ARN tells
	}
	switch {
	case entry.Value == "*":
		if p.Kind == RoleSession {
			return yes, roleGrant
		}
		return yes, directGrant
	case p.bare():
		return no, noGrant
	case entry.Value == p.ARN || p.ID != "" && entry.Value == p.ID:
		if p.Kind == Root {
			return yes, accountGrant
		}
		return yes, directGrant
	case p.Kind == RoleSession && entry.Value == p.RoleARN && p.RoleARN != "":
		return yes, roleGrant
	case p.Kind == FederatedUser && entry.Value == p.UserARN && p.UserARN != "":
		return yes, roleGrant
	case e.isAccount(entry.Value):
		return yes, accountGrant
	}
	return no, noGrant
}

func (e *evaluation) isAccount(value string) bool {
	account := e.request.Principal.Account
	if account == "" {
		return false
	}
	parts := strings.SplitN(value, ":", 6)
	return value == account || len(parts) == 6 && parts[2] == "iam" && parts[4] == account && parts[5] == "root"
}

// outsideOf reports whether the caller is none of the entries. AWS compares every level of the caller, so that a session is left
// out only where its account, its role and itself are listed; what happens with some of them is documented as uncertain.
func (e *evaluation) outsideOf(entries []PrincipalEntry) truth {
	p := e.request.Principal
	var account, identity, session bool
	for _, entry := range entries {
		found, _ := e.names(entry)
		switch {
		case found == unknown:
			return unknown
		case found == no:
		case entry.Value == "*" || p.bare():
			return no
		case entry.Value == p.ARN || entry.Value == p.ID:
			session = true
		case e.isAccount(entry.Value):
			account = true
		default:
			identity = true
		}
	}
	if p.Kind != RoleSession && p.Kind != FederatedUser {
		identity = session
	}
	switch {
	case p.Kind == Root && (account || session), account && identity && session:
		return no
	case account || identity || session:
		return unknown
	}
	return yes
}
