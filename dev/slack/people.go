package slack

import "strings"

func (s *Server) authTest(args) (reply, error) {
	return reply{
		"url": s.baseURL() + "/", "team": "Slack stand-in", "team_id": s.opts.TeamID,
		"user": s.state.users[botUserID].Name, "user_id": botUserID, "bot_id": botID,
		"app_id": s.opts.AppID, "is_enterprise_install": false,
	}, nil
}

func (s *Server) userInfo(a args) (reply, error) {
	u, ok := s.state.users[a["user"]]
	if !ok {
		return nil, refuse("user_not_found")
	}
	return reply{"user": u.asSlack(s.opts.TeamID)}, nil
}

func (s *Server) userByEmail(a args) (reply, error) {
	for _, u := range s.state.users {
		if u.Email != "" && !u.Deleted && strings.EqualFold(u.Email, a["email"]) {
			return reply{"user": u.asSlack(s.opts.TeamID)}, nil
		}
	}
	return nil, refuse("users_not_found")
}

func (u User) asSlack(ourTeam string) reply {
	return reply{
		"id": u.ID, "team_id": u.TeamID, "name": u.Name, "real_name": u.RealName, "deleted": u.Deleted, "is_bot": u.IsBot,
		"is_restricted": u.IsRestricted || u.IsUltraRestricted, "is_ultra_restricted": u.IsUltraRestricted,
		"is_stranger": u.TeamID != ourTeam, "is_admin": false, "is_owner": false, "is_app_user": false,
		"profile": reply{"real_name": u.RealName, "display_name": u.Name, "email": u.Email, "team": u.TeamID},
	}
}

func (s *Server) groupMembers(a args) (reply, error) {
	g, ok := s.state.groups[a["usergroup"]]
	if !ok || g.Disabled && a["include_disabled"] != "true" {
		return nil, refuse("no_such_subteam")
	}
	users := g.Users
	if users == nil {
		users = []string{}
	}
	return reply{"users": users}, nil
}
