package slack

import (
	"bytes"
	_ "embed" // for the default workspace
	"encoding/json"
	"fmt"
	"io"
)

// A Workspace is who and what exists at the start.
type Workspace struct {
	Users      []User      `json:"users"`
	UserGroups []UserGroup `json:"user_groups"`
	Channels   []Channel   `json:"channels"`
}

// A User has Slack's field names. An empty TeamID means our team; another one is a Slack Connect stranger.
type User struct {
	ID                string `json:"id"`
	TeamID            string `json:"team_id,omitempty"`
	Name              string `json:"name"`
	RealName          string `json:"real_name"`
	Email             string `json:"email,omitempty"`
	Deleted           bool   `json:"deleted,omitempty"`
	IsBot             bool   `json:"is_bot,omitempty"`
	IsRestricted      bool   `json:"is_restricted,omitempty"`
	IsUltraRestricted bool   `json:"is_ultra_restricted,omitempty"`
}

// A UserGroup is a named list of user ids.
type UserGroup struct {
	ID       string   `json:"id"`
	Handle   string   `json:"handle"`
	Name     string   `json:"name"`
	Users    []string `json:"users"`
	Disabled bool     `json:"disabled,omitempty"`
}

// A Channel takes the app's messages only while AppIsMember.
type Channel struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	Topic       string `json:"topic,omitempty"`
	IsPrivate   bool   `json:"is_private,omitempty"`
	IsArchived  bool   `json:"is_archived,omitempty"`
	AppIsMember bool   `json:"app_is_member"`
	DirectUser  string `json:"direct_user,omitempty"` // set for the conversation with one user
}

//go:embed workspace.json
var defaultWorkspace []byte

// DefaultWorkspace has two approvers, a lead, an ordinary member, and one each of the users who must not decide anything: a guest,
// a deleted one, a bot and one of another team; with a group, an incident channel and a channel without the app.
func DefaultWorkspace() Workspace {
	w, err := DecodeWorkspace(bytes.NewReader(defaultWorkspace))
	if err != nil {
		panic(err) // the embedded file is wrong
	}
	return w
}

// DecodeWorkspace reads a workspace file and refuses unknown fields and entries without an id.
func DecodeWorkspace(r io.Reader) (Workspace, error) {
	var w Workspace
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	if err := d.Decode(&w); err != nil {
		return Workspace{}, fmt.Errorf("decode workspace: %w", err)
	}
	seen := map[string]bool{botUserID: true}
	check := func(kind, id string) error {
		if id == "" || seen[id] {
			return fmt.Errorf("decode workspace: %s id %q is empty or not unique", kind, id)
		}
		seen[id] = true
		return nil
	}
	for _, u := range w.Users {
		if err := check("user", u.ID); err != nil {
			return Workspace{}, err
		}
	}
	for _, g := range w.UserGroups {
		if err := check("user group", g.ID); err != nil {
			return Workspace{}, err
		}
	}
	for _, c := range w.Channels {
		if err := check("channel", c.ID); err != nil {
			return Workspace{}, err
		}
	}
	return w, nil
}
