package slack

import (
	"context"
	"encoding/json"
	"fmt"
	"unicode/utf8"
)

// An Interaction is what a person does to an element of a message (Channel and TS) or of a modal (View).
type Interaction struct {
	User     string `json:"user"`
	Channel  string `json:"channel,omitempty"`
	TS       string `json:"ts,omitempty"`
	View     string `json:"view,omitempty"`
	BlockID  string `json:"block_id,omitempty"` // only needed where two blocks use one action id
	ActionID string `json:"action_id,omitempty"`
	// Choice is the value picked in a select, radio buttons, checkboxes or an overflow menu.
	Choice []string `json:"choice,omitempty"`
	// Values is what stands in the modal's inputs.
	Values Values `json:"values,omitempty"`
}

// Values is what a person filled into a modal, by action id (or "block id/action id"): one string for text and single choices,
// any number for checkboxes.
type Values map[string][]string

func (v Values) get(blockID, actionID string) ([]string, bool) {
	if got, ok := v[blockID+"/"+actionID]; ok {
		return got, true
	}
	got, ok := v[actionID]
	return got, ok
}

func impossible(format string, a ...any) error {
	return fmt.Errorf("%w: %s", ErrImpossible, fmt.Sprintf(format, a...))
}

// Act does to an element what the interaction says, and waits for the app's acknowledgement.
func (s *Server) Act(ctx context.Context, in Interaction) (Callback, error) {
	s.mu.Lock()
	payload, err := s.actionPayload(in)
	s.mu.Unlock()
	if err != nil {
		return Callback{}, err
	}
	return s.deliver(ctx, "block_actions", in, payload)
}

// Submit presses a modal's submit button with these values, waits for the app, and does what its response_action says.
func (s *Server) Submit(ctx context.Context, user, viewID string, values Values) (Callback, error) {
	s.mu.Lock()
	v, err := s.modal(user, viewID)
	var payload reply
	if err == nil {
		v.Errors, v.Trouble = nil, ""
		payload, err = s.submissionPayload(v, values)
	}
	s.mu.Unlock()
	if err != nil {
		return Callback{}, err
	}
	return s.deliver(ctx, "view_submission", Interaction{User: user, View: viewID, Values: values}, payload)
}

// CloseView closes a modal; the app hears of it only where the view asked for that (Callback.ID is empty if not).
func (s *Server) CloseView(ctx context.Context, user, viewID string) (Callback, error) {
	s.mu.Lock()
	v, err := s.modal(user, viewID)
	if err != nil {
		s.mu.Unlock()
		return Callback{}, err
	}
	v.Open = false
	s.changed()
	notify := v.NotifyOnClose
	payload := s.envelope("view_closed", user)
	payload["view"] = s.viewObject(v, nil)
	payload["is_cleared"] = false
	s.mu.Unlock()
	if !notify {
		return Callback{}, nil
	}
	return s.deliver(ctx, "view_closed", Interaction{User: user, View: viewID}, payload)
}

func (s *Server) modal(user, viewID string) (*View, error) {
	v := s.state.view(viewID)
	if v == nil || !v.Open || v.User != user {
		return nil, impossible("user %q has no open view %q", user, viewID)
	}
	return v, nil
}

// envelope is what all callbacks begin with. The caller holds mu.
func (s *Server) envelope(kind, user string) reply {
	u := s.state.users[user]
	return reply{
		"type": kind, "token": verificationToken, "api_app_id": s.opts.AppID,
		"team": reply{"id": s.opts.TeamID, "domain": "stand-in"}, "enterprise": nil, "is_enterprise_install": false,
		"user": reply{"id": u.ID, "username": u.Name, "name": u.Name, "team_id": u.TeamID},
	}
}

// newTrigger makes a trigger_id, shaped like Slack's: good for one views.open within three seconds.
func (s *Server) newTrigger(user string) string {
	now := s.opts.Now()
	id := fmt.Sprintf("%d.%d.%s", now.UnixMicro(), now.Unix(), secret())
	s.state.triggers[id] = &trigger{user: user, expires: now.Add(triggerLife)}
	return id
}

func (s *Server) newResponseURL(in Interaction) string {
	key := secret()
	s.state.responses[key] = &responseURL{interaction: in, expires: s.opts.Now().Add(responseURLLife)}
	return s.baseURL() + "/actions/" + s.opts.TeamID + "/" + key
}

func (s *Server) actionPayload(in Interaction) (reply, error) {
	if _, ok := s.state.users[in.User]; !ok {
		return nil, impossible("no user %q", in.User)
	}
	payload := s.envelope("block_actions", in.User)
	var blocks json.RawMessage
	state := reply{"values": map[string]map[string]any{}}
	if in.View != "" {
		v, err := s.modal(in.User, in.View)
		if err != nil {
			return nil, err
		}
		blocks = v.Blocks
		values, _ := collect(v.Blocks, in.Values)
		payload["view"] = s.viewObject(v, values)
		payload["container"] = reply{"type": "view", "view_id": v.ID}
	} else {
		m, ephemeral := s.state.message(in.Channel, in.TS), false
		if e := s.state.ephemeral(in.User, in.Channel, in.TS); m == nil && e != nil {
			m, ephemeral = &e.Message, true
		}
		if m == nil {
			return nil, impossible("no message %s in channel %q", in.TS, in.Channel)
		}
		blocks = m.Blocks
		s.messageContext(payload, m, ephemeral)
		payload["response_url"] = s.newResponseURL(in)
	}
	action, blockID, err := act(blocks, in)
	if err != nil {
		return nil, err
	}
	action["action_ts"] = s.state.ts(s.opts.Now())
	if action["type"] != "button" {
		state["values"] = map[string]map[string]any{blockID: {in.ActionID: action}}
	}
	payload["actions"] = []any{action}
	payload["trigger_id"] = s.newTrigger(in.User)
	if in.View == "" {
		payload["state"] = state
	}
	return payload, nil
}

func (s *Server) messageContext(payload reply, m *Message, ephemeral bool) {
	container := reply{"type": "message", "message_ts": m.TS, "channel_id": m.Channel, "is_ephemeral": ephemeral}
	if m.ThreadTS != "" {
		container["thread_ts"] = m.ThreadTS
	}
	payload["container"] = container
	name := "directmessage"
	if c := s.state.channels[m.Channel]; c != nil && c.DirectUser == "" {
		name = c.Name
	}
	payload["channel"] = reply{"id": m.Channel, "name": name}
	if !ephemeral { // Slack sends the message of an ephemeral only by its container
		payload["message"] = m.asSlack(true)
	}
}

// act finds the element in blocks and says what happened to it.
func act(blocks json.RawMessage, in Interaction) (reply, string, error) {
	for _, block := range decodeBlocks(blocks) {
		id, _ := block["block_id"].(string)
		if in.BlockID != "" && in.BlockID != id {
			continue
		}
		for _, e := range elements(block) {
			if e["action_id"] != in.ActionID {
				continue
			}
			out := reply{"action_id": in.ActionID, "block_id": id, "type": e["type"]}
			if e["type"] == "button" {
				for _, key := range []string{"text", "value", "style", "confirm", "url"} {
					if e[key] != nil {
						out[key] = e[key]
					}
				}
				return out, id, nil
			}
			value, err := fill(e, in.Choice)
			if err != nil {
				return nil, "", err
			}
			for k, v := range value {
				out[k] = v
			}
			return out, id, nil
		}
	}
	return nil, "", impossible("nothing here has action id %q", in.ActionID)
}

func decodeBlocks(raw json.RawMessage) []map[string]any {
	value, err := decode(string(raw))
	if err != nil {
		return nil
	}
	var out []map[string]any
	many, _ := value.([]any)
	for _, b := range many {
		if block, ok := b.(map[string]any); ok {
			out = append(out, block)
		}
	}
	return out
}

func (s *Server) submissionPayload(v *View, values Values) (reply, error) {
	filled, err := collect(v.Blocks, values)
	if err != nil {
		return nil, err
	}
	if len(v.Submit) == 0 {
		return nil, impossible("view %s has no submit button", v.ID)
	}
	payload := s.envelope("view_submission", v.User)
	payload["trigger_id"] = s.newTrigger(v.User)
	payload["view"] = s.viewObject(v, filled)
	payload["response_urls"] = []any{}
	return payload, nil
}

// collect makes state.values of a view and refuses what the page would not let a person submit.
func collect(blocks json.RawMessage, values Values) (map[string]map[string]any, error) {
	out := map[string]map[string]any{}
	var problem error
	for _, block := range decodeBlocks(blocks) {
		if block["type"] != "input" {
			continue
		}
		id, _ := block["block_id"].(string)
		for _, e := range elements(block) {
			action, _ := e["action_id"].(string)
			given, ok := values.get(id, action)
			if !ok {
				given = initial(e)
			}
			value, err := fill(e, given)
			if optional, _ := block["optional"].(bool); err == nil && !optional && (len(given) == 0 || given[0] == "") {
				err = impossible("input %q needs a value", action)
			}
			if err != nil {
				problem = err
				continue
			}
			value["type"] = e["type"]
			out[id] = map[string]any{action: value}
		}
	}
	return out, problem
}

// fill is an element's state with these values chosen or typed.
func fill(element map[string]any, values []string) (reply, error) {
	switch element["type"] {
	case "plain_text_input":
		return typed(element, values)
	case "checkboxes":
		chosen := []any{}
		for _, want := range values {
			o, err := choose(element, want)
			if err != nil {
				return nil, err
			}
			chosen = append(chosen, o)
		}
		return reply{"selected_options": chosen}, nil
	case "static_select", "radio_buttons", "overflow":
		if len(values) == 0 || values[0] == "" {
			return reply{"selected_option": nil}, nil
		}
		o, err := choose(element, values[0])
		return reply{"selected_option": o}, err
	}
	return nil, impossible("element of type %v holds no value", element["type"])
}

func typed(element map[string]any, values []string) (reply, error) {
	if len(values) == 0 || values[0] == "" {
		return reply{"value": nil}, nil
	}
	n, most, least := int64(utf8.RuneCountInString(values[0])), int64(3000), int64(0)
	if limit, ok := element["max_length"].(json.Number); ok {
		most, _ = limit.Int64()
	}
	if limit, ok := element["min_length"].(json.Number); ok {
		least, _ = limit.Int64()
	}
	if n > most || n < least {
		return nil, impossible("input %v takes %d to %d characters", element["action_id"], least, most)
	}
	return reply{"value": values[0]}, nil
}

func choose(element map[string]any, want string) (any, error) {
	options, _ := element["options"].([]any)
	for _, o := range options {
		if option, ok := o.(map[string]any); ok && option["value"] == want {
			return option, nil
		}
	}
	return nil, impossible("element %v has no option %q", element["action_id"], want)
}

// initial is what stands in an element before anyone touches it.
func initial(element map[string]any) []string {
	if text, ok := element["initial_value"].(string); ok {
		return []string{text}
	}
	many, _ := element["initial_options"].([]any)
	if one := element["initial_option"]; one != nil {
		many = append(many, one)
	}
	var out []string
	for _, o := range many {
		option, _ := o.(map[string]any)
		value, _ := option["value"].(string)
		out = append(out, value)
	}
	return out
}
