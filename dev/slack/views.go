package slack

import "encoding/json"

// viewFields is what an app may say about a modal.
func viewFields() check {
	return oneOf(map[string]check{"modal": object(map[string]field{
		"title": must(plain(24)), "submit": may(plain(24)), "close": may(plain(24)),
		"blocks":           must(list(1, 100, viewBlock())),
		"private_metadata": may(str(0, 3000)), "callback_id": may(str(0, 255)), "external_id": may(str(0, 255)),
		"clear_on_close": may(boolean), "notify_on_close": may(boolean), "submit_disabled": may(boolean),
	})})
}

const maxView = 250 << 10 // bytes; Slack's view_too_large

// checkView validates a modal. Where Slack calls bad blocks of a message invalid_blocks, it calls bad ones of a view invalid_arguments.
func (s *Server) checkView(raw string) (*View, error) {
	if len(raw) > maxView {
		return nil, refuse("view_too_large")
	}
	value, err := decode(raw)
	if err != nil {
		return nil, &apiError{code: "invalid_arguments", messages: []string{"failed to parse view as JSON [json-pointer:/view]"}}
	}
	v := s.validation()
	viewFields()(v, "/view", value)
	fields, _ := value.(map[string]any)
	if v.hasInput && fields["submit"] == nil {
		v.bad("/view", "`submit` is required when an `input` block is within the `blocks` array")
	}
	if len(v.problems) > 0 {
		return nil, &apiError{code: "invalid_arguments", messages: v.problems}
	}
	s.fillIDs(fields["blocks"].([]any)) // validated
	var out View
	if err := json.Unmarshal(encode(fields), &out); err != nil {
		return nil, &apiError{code: "invalid_arguments", messages: []string{err.Error()}}
	}
	return &out, nil
}

func (s *Server) openViewCall(a args) (reply, error) {
	now := s.opts.Now()
	t := s.state.triggers[a["trigger_id"]]
	switch {
	case a["trigger_id"] == "":
		return nil, &apiError{code: "invalid_arguments", messages: []string{"missing required field: trigger_id"}}
	case t == nil:
		return nil, refuse("invalid_trigger_id")
	case t.used:
		return nil, refuse("exchanged_trigger_id")
	case now.After(t.expires):
		return nil, refuse("expired_trigger_id")
	}
	v, err := s.checkView(a["view"])
	if err != nil {
		return nil, err
	}
	for _, other := range s.state.views {
		if v.ExternalID != "" && other.ExternalID == v.ExternalID && other.Open {
			return nil, refuse("duplicate_external_id")
		}
	}
	t.used = true
	if before := s.state.openView(t.user); before != nil {
		before.Open = false // the page shows one modal at a time, the newest
	}
	v.ID, v.User, v.Open, v.Hash = s.state.id("V"), t.user, true, s.viewHash()
	s.state.views = append(s.state.views, v)
	return reply{"view": s.viewObject(v, nil)}, nil
}

func (s *Server) updateViewCall(a args) (reply, error) {
	var old *View
	for _, v := range s.state.views {
		if v.Open && (a["view_id"] != "" && v.ID == a["view_id"] || a["external_id"] != "" && v.ExternalID == a["external_id"]) {
			old = v
		}
	}
	if old == nil {
		return nil, refuse("not_found")
	}
	if a["hash"] != "" && a["hash"] != old.Hash {
		return nil, refuse("hash_conflict")
	}
	v, err := s.checkView(a["view"])
	if err != nil {
		return nil, err
	}
	s.replaceView(old, v)
	return reply{"view": s.viewObject(old, nil)}, nil
}

// replaceView shows other content in the same modal.
func (s *Server) replaceView(old, v *View) {
	v.ID, v.User, v.Open, v.Hash = old.ID, old.User, true, s.viewHash()
	*old = *v
}

func (s *Server) viewHash() string { return s.state.ts(s.opts.Now()) + "." + secret()[:8] }

// viewObject is a view as Slack shows it to the app; values are what the person filled in.
func (s *Server) viewObject(v *View, values map[string]map[string]any) reply {
	if values == nil {
		values = map[string]map[string]any{}
	}
	return reply{
		"id": v.ID, "team_id": s.opts.TeamID, "app_id": s.opts.AppID, "bot_id": botID, "app_installed_team_id": s.opts.TeamID,
		"type": v.Type, "title": v.Title, "submit": orNull(v.Submit), "close": orNull(v.Close), "blocks": v.Blocks,
		"private_metadata": v.PrivateMetadata, "callback_id": v.CallbackID, "external_id": v.ExternalID,
		"notify_on_close": v.NotifyOnClose, "clear_on_close": v.ClearOnClose, "hash": v.Hash,
		"root_view_id": v.ID, "previous_view_id": nil, "state": reply{"values": values},
	}
}

func orNull(raw json.RawMessage) any {
	if len(raw) == 0 {
		return nil
	}
	return raw
}
