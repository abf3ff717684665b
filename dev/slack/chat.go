package slack

import (
	"cmp"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

const maxText = 40000 // characters of a message's text; Slack's limit

// channel finds a channel that takes the app's messages: by id, by name, or a user's id for their direct messages.
func (s *Server) channel(ref string) (*Channel, error) {
	c := s.state.channels[ref]
	if c == nil {
		if u, ok := s.state.users[ref]; ok && !u.IsBot {
			c, _ = s.state.directMessage(ref)
		}
	}
	for _, id := range s.state.order {
		if c == nil && ref != "" && s.state.channels[id].Name == strings.TrimPrefix(ref, "#") && s.state.channels[id].DirectUser == "" {
			c = s.state.channels[id]
		}
	}
	switch {
	case c == nil:
		return nil, refuse("channel_not_found")
	case c.IsArchived:
		return nil, refuse("is_archived")
	case !c.AppIsMember:
		return nil, refuse("not_in_channel")
	}
	return c, nil
}

// content checks the text and blocks of a message and gives the blocks as they are stored.
func (s *Server) content(a args) (json.RawMessage, error) {
	if a["attachments"] != "" {
		return nil, &apiError{code: "invalid_attachments", messages: []string{"the stand-in takes blocks, not attachments"}}
	}
	if utf8.RuneCountInString(a["text"]) > maxText {
		return nil, refuse("msg_too_long")
	}
	if m := a["metadata"]; m != "" && !json.Valid([]byte(m)) {
		return nil, refuse("invalid_metadata_format")
	}
	if a["blocks"] == "" {
		return nil, nil
	}
	return s.checkBlocks(a["blocks"])
}

// newMessage makes a message by the app; it is not in the channel yet.
func (s *Server) newMessage(c *Channel, a args) (*Message, error) {
	blocks, err := s.content(a)
	if err != nil {
		return nil, err
	}
	if a["text"] == "" && (len(blocks) == 0 || string(blocks) == "[]") {
		return nil, refuse("no_text")
	}
	if t := a["thread_ts"]; t != "" && s.state.message(c.ID, t) == nil {
		return nil, refuse("thread_not_found")
	}
	m := &Message{
		Type: "message", Channel: c.ID, User: botUserID, BotID: botID, AppID: s.opts.AppID, Team: s.opts.TeamID,
		Text: a["text"], TS: s.state.ts(s.opts.Now()), ThreadTS: a["thread_ts"], Blocks: blocks,
	}
	if a["metadata"] != "" {
		m.Metadata = json.RawMessage(a["metadata"])
	}
	return m, nil
}

func (s *Server) postMessage(a args) (reply, error) {
	c, err := s.channel(a["channel"])
	if err != nil {
		return nil, err
	}
	m, err := s.newMessage(c, a)
	if err != nil {
		return nil, err
	}
	s.state.addMessage(m)
	s.state.lastPost[a["channel"]] = s.opts.Now()
	return reply{"channel": c.ID, "ts": m.TS, "message": m.asSlack(true)}, nil
}

func (s *Server) postEphemeral(a args) (reply, error) {
	c, err := s.channel(a["channel"])
	if err != nil {
		return nil, err
	}
	if u, ok := s.state.users[a["user"]]; !ok || u.Deleted {
		return nil, refuse("user_not_in_channel")
	}
	m, err := s.newMessage(c, a)
	if err != nil {
		return nil, err
	}
	s.state.ephemerals = append(s.state.ephemerals, &Ephemeral{Message: *m, For: a["user"]})
	return reply{"message_ts": m.TS}, nil
}

// updateMessage keeps what is not given: blocks go only where "blocks" is an empty list.
func (s *Server) updateMessage(a args) (reply, error) {
	c, err := s.channel(a["channel"])
	if err != nil {
		return nil, err
	}
	m := s.state.message(c.ID, a["ts"])
	if m == nil {
		return nil, refuse("message_not_found")
	}
	blocks, err := s.content(a)
	if err != nil {
		return nil, err
	}
	text, given := a["text"]
	if !given && blocks == nil && a["metadata"] == "" {
		return nil, refuse("no_text")
	}
	if given {
		m.Text = text
	}
	if blocks != nil {
		m.Blocks = blocks
	}
	if a["metadata"] != "" {
		m.Metadata = json.RawMessage(a["metadata"])
	}
	m.Edited = &Edit{User: botUserID, TS: s.state.ts(s.opts.Now())}
	return reply{"channel": c.ID, "ts": m.TS, "text": m.Text, "message": m.asSlack(true)}, nil
}

func (s *Server) permalink(a args) (reply, error) {
	c, err := s.channel(a["channel"])
	if err != nil {
		return nil, err
	}
	if s.state.message(c.ID, a["message_ts"]) == nil {
		return nil, refuse("message_not_found")
	}
	return reply{"channel": c.ID, "permalink": s.link(c.ID, a["message_ts"])}, nil
}

// link is the page's address of a message, shaped like Slack's. The caller holds mu.
func (s *Server) link(channel, ts string) string {
	return s.baseURL() + "/archives/" + channel + "/p" + strings.ReplaceAll(ts, ".", "")
}

// asSlack is the message as the Web API shows it: without our Channel, and with metadata only on request.
func (m *Message) asSlack(metadata bool) Message {
	out := *m
	out.Channel = ""
	if !metadata {
		out.Metadata = nil
	}
	return out
}

func (s *Server) openConversation(a args) (reply, error) {
	if id := a["channel"]; id != "" {
		if s.state.channels[id] == nil {
			return nil, refuse("channel_not_found")
		}
		return reply{"no_op": true, "already_open": true, "channel": reply{"id": id}}, nil
	}
	u, ok := s.state.users[a["users"]]
	switch {
	case a["users"] == "" || strings.Contains(a["users"], ","):
		return nil, refuse("users_list_not_supplied") // the stand-in opens conversations with one user only
	case !ok:
		return nil, refuse("user_not_found")
	case u.Deleted:
		return nil, refuse("user_disabled")
	case u.IsBot:
		return nil, refuse("cannot_dm_bot")
	}
	c, existed := s.state.directMessage(u.ID)
	return reply{"no_op": existed, "already_open": existed, "channel": reply{"id": c.ID, "is_im": true, "user": u.ID}}, nil
}

// history gives the channel's messages, newest first, without replies.
func (s *Server) history(a args) (reply, error) {
	return s.list(a, func(m *Message) bool { return m.ThreadTS == "" || m.ThreadTS == m.TS }, true)
}

// replies gives a thread, oldest first, beginning with its parent.
func (s *Server) replies(a args) (reply, error) {
	if c := s.state.channels[a["channel"]]; c != nil && s.state.message(c.ID, a["ts"]) == nil {
		return nil, refuse("thread_not_found")
	}
	return s.list(a, func(m *Message) bool { return m.TS == a["ts"] || m.ThreadTS == a["ts"] }, false)
}

func (s *Server) list(a args, keep func(*Message) bool, newestFirst bool) (reply, error) {
	c, err := s.channel(a["channel"])
	if err != nil {
		return nil, err
	}
	inclusive := a["inclusive"] == "1" || a["inclusive"] == "true"
	inside := func(ts string) bool {
		after, before := a["oldest"] == "" || ts > a["oldest"], a["latest"] == "" || ts < a["latest"]
		return (after || inclusive && ts == a["oldest"]) && (before || inclusive && ts == a["latest"])
	}
	found := []Message{}
	for _, m := range s.state.messages {
		if m.Channel == c.ID && keep(m) && inside(m.TS) {
			found = append(found, m.asSlack(a["include_all_metadata"] == "1" || a["include_all_metadata"] == "true"))
		}
	}
	if newestFirst {
		slices.SortFunc(found, func(x, y Message) int { return cmp.Compare(y.TS, x.TS) })
	}
	return page(found, a["cursor"], a["limit"])
}

// page cuts a list by Slack's cursor and limit; our cursor is the number of messages already seen.
func page(all []Message, cursor, limit string) (reply, error) {
	from, size := 0, 100
	if cursor != "" {
		n, err := strconv.Atoi(cursor)
		if err != nil || n < 0 || n > len(all) {
			return nil, refuse("invalid_cursor")
		}
		from = n
	}
	if limit != "" {
		n, err := strconv.Atoi(limit)
		if err != nil || n < 1 {
			return nil, refuse("invalid_limit")
		}
		size = min(n, 999)
	}
	to := min(from+size, len(all))
	next := ""
	if to < len(all) {
		next = strconv.Itoa(to)
	}
	return reply{"messages": all[from:to], "has_more": to < len(all), "response_metadata": reply{"next_cursor": next}}, nil
}
