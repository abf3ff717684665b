package slack

import (
	"encoding/json"
	"io"
	"net/http"
)

// serveResponseURL answers POST /actions/{team}/{key}: five uses within 30 minutes of the click.
func (s *Server) serveResponseURL(w http.ResponseWriter, r *http.Request) {
	var fields map[string]json.RawMessage
	if json.NewDecoder(http.MaxBytesReader(w, r.Body, maxAPIBody)).Decode(&fields) != nil {
		http.Error(w, "invalid_payload", http.StatusBadRequest)
		return
	}
	a := args{}
	for k, v := range fields {
		a[k] = unquote(v)
	}
	if a["blocks"] == "null" || a["blocks"] == "[]" {
		delete(a, "blocks") // slack-go sends it always
	}
	delete(a, "attachments")
	delete(a, "metadata")
	s.mu.Lock()
	defer s.mu.Unlock()
	call := Call{At: s.opts.Now(), Method: "response_url", Args: a}
	if err := s.respond(r.PathValue("key"), a); err != nil {
		call.Error = err.Error()
		writeJSON(w, http.StatusNotFound, errorReply(err))
	} else {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(w, "ok")
	}
	s.state.calls = append(s.state.calls, call)
	s.changed()
}

func (s *Server) respond(key string, a args) error {
	u := s.state.responses[key]
	switch {
	case u == nil:
		return refuse("invalid_url")
	case u.uses >= responseURLUses:
		return refuse("used_url")
	case s.opts.Now().After(u.expires):
		return refuse("expired_url")
	}
	u.uses++
	in := u.interaction
	original := s.state.message(in.Channel, in.TS)
	switch {
	case a["delete_original"] == "true":
		if original != nil {
			s.state.dropMessage(original)
		}
		return nil
	case a["replace_original"] == "true" && original != nil:
		_, err := s.updateMessage(args{"channel": in.Channel, "ts": in.TS, "text": a["text"], "blocks": a["blocks"]})
		return err
	}
	c := s.state.channels[in.Channel] // a response URL works where the app is no member, too
	m, err := s.newMessage(c, a)
	if err != nil {
		return err
	}
	if a["response_type"] == "in_channel" {
		s.state.addMessage(m)
		return nil
	}
	s.state.ephemerals = append(s.state.ephemerals, &Ephemeral{Message: *m, For: in.User})
	return nil
}
