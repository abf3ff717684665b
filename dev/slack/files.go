package slack

import (
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"
)

func isImage(mimeType string) bool {
	return mimeType == "image/png" || mimeType == "image/jpeg" || mimeType == "image/gif"
}

// uploadURL is the first of the three steps of an upload.
func (s *Server) uploadURL(a args) (reply, error) {
	size, err := strconv.Atoi(a["length"])
	if a["filename"] == "" || err != nil || size <= 0 || size > maxFileBytes {
		return nil, &apiError{code: "invalid_arguments", messages: []string{"filename and a length of 1 byte to 32 MiB are required"}}
	}
	now := s.opts.Now().Unix()
	f := &File{
		ID: s.state.id("F"), Created: now, Timestamp: now, Name: a["filename"], Title: a["filename"], AltText: a["alt_txt"],
		FileType: strings.TrimPrefix(path.Ext(a["filename"]), "."), User: botUserID, Size: size, Channels: []string{},
	}
	f.URLPrivate = s.state.learnedURL + "/files-pri/" + f.ID
	f.Permalink = s.baseURL() + "/page/files/" + f.ID
	s.state.files[f.ID] = f
	key := secret()
	s.state.uploads[key] = f.ID
	return reply{"upload_url": s.state.learnedURL + "/upload/v1/" + key, "file_id": f.ID}, nil
}

// serveUpload is the second step: the bytes, as a multipart form or as they are.
func (s *Server) serveUpload(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxFileBytes+maxAPIBody)
	var data []byte
	var err error
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind == "multipart/form-data" {
		data, err = firstPart(r)
	} else {
		data, err = io.ReadAll(r.Body)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	key := r.PathValue("key")
	f := s.state.files[s.state.uploads[key]]
	switch {
	case f == nil:
		http.Error(w, "no such upload", http.StatusNotFound)
		return
	case err != nil:
		http.Error(w, "unreadable body", http.StatusBadRequest)
		return
	case len(data) != f.Size:
		http.Error(w, "the length is not what files.getUploadURLExternal was told", http.StatusBadRequest)
		return
	}
	delete(s.state.uploads, key)
	f.Data, f.uploaded, f.MIMEType = data, true, http.DetectContentType(data)
	_, _ = io.WriteString(w, "OK - "+strconv.Itoa(len(data)))
}

func firstPart(r *http.Request) ([]byte, error) {
	parts, err := r.MultipartReader()
	if err != nil {
		return nil, err
	}
	for {
		part, err := parts.NextPart()
		if err != nil {
			return nil, err
		}
		if part.FileName() != "" {
			return io.ReadAll(part)
		}
	}
}

// completeUpload is the third step: titles, and the message that shares the files where a channel is named.
func (s *Server) completeUpload(a args) (reply, error) {
	var wanted []struct{ ID, Title string }
	if json.Unmarshal([]byte(a["files"]), &wanted) != nil || len(wanted) == 0 {
		return nil, &apiError{code: "invalid_arguments", messages: []string{"files must be a list of id and title [json-pointer:/files]"}}
	}
	var files []*File
	for _, w := range wanted {
		f := s.state.files[w.ID]
		if f == nil || !f.uploaded || f.complete {
			return nil, refuse("file_not_found")
		}
		files = append(files, f)
	}
	if a["channels"] != "" && a["channel_id"] == "" {
		a["channel_id"], _, _ = strings.Cut(a["channels"], ",")
	}
	var m *Message
	if a["channel_id"] != "" {
		c, err := s.channel(a["channel_id"])
		if err != nil {
			return nil, err
		}
		if a["initial_comment"] == "" && a["blocks"] == "" {
			a["initial_comment"] = " " // a shared file needs no text
		}
		if m, err = s.newMessage(c, args{"text": a["initial_comment"], "blocks": a["blocks"], "thread_ts": a["thread_ts"]}); err != nil {
			return nil, err
		}
		m.Text, m.Subtype = strings.TrimSpace(m.Text), "file_share"
	}
	summaries := []reply{}
	for i, f := range files {
		f.complete = true
		if wanted[i].Title != "" {
			f.Title = wanted[i].Title
		}
		if m != nil {
			f.Channels = append(f.Channels, m.Channel)
			m.Files = append(m.Files, *f)
		}
		summaries = append(summaries, reply{"id": f.ID, "title": f.Title})
	}
	if m != nil {
		s.state.addMessage(m)
	}
	return reply{"files": summaries}, nil
}

// servePrivateFile answers GET /files-pri/{id} to the app, by its token.
func (s *Server) servePrivateFile(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer "+s.opts.BotToken {
		http.Error(w, "sign in", http.StatusForbidden)
		return
	}
	s.servePageFile(w, r)
}

// servePageFile answers GET /page/files/{id} to the page. Only images are shown, the rest is a download.
func (s *Server) servePageFile(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	var f File
	if stored := s.state.files[r.PathValue("id")]; stored != nil {
		f = *stored
	}
	s.mu.Unlock()
	if len(f.Data) == 0 {
		http.NotFound(w, r)
		return
	}
	kind := f.MIMEType
	if !isImage(kind) {
		kind = "application/octet-stream"
		w.Header().Set("Content-Disposition", "attachment")
	}
	w.Header().Set("Content-Type", kind)
	_, _ = w.Write(f.Data)
}
