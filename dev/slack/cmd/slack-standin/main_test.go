package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	client "github.com/slack-go/slack"
)

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestServesFromTheReadyLineUntilStopped(t *testing.T) {
	workspace := write(t, "workspace.json", `{"users":[{"id":"U1","name":"ann","real_name":"Ann"}],"channels":[{"id":"C1","name":"war-room","app_is_member":true}]}`)
	env := write(t, "env", "# settings\nSLACK_STANDIN_BOT_TOKEN_FILE="+write(t, "token", "xoxb-cmd\n")+"\nSLACK_STANDIN_TEAM_ID=T-from-env\nSLACK_STANDIN_APP_NAME=Cutter\n")
	out, in := io.Pipe()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan error, 1)
	go func() {
		done <- run(ctx, []string{"-env", env, "-team-id", "T-from-flag", "-signing-secret-file", write(t, "secret", "s"), "-workspace", workspace}, in, io.Discard)
		_ = in.Close()
	}()
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		t.Fatalf("no ready line: %v, %v", err, <-done)
	}
	var ready struct{ Ready, Page, API, Admin string }
	if err := json.Unmarshal(line, &ready); err != nil || ready.Ready != "slack-standin" {
		t.Fatalf("ready line %s: %v", line, err)
	}
	api := client.New("xoxb-cmd", client.OptionAPIURL(ready.API))
	who, err := api.AuthTest()
	if err != nil || who.TeamID != "T-from-flag" || who.User != "cutter" {
		t.Errorf("auth.test = %+v, %v", who, err)
	}
	if _, _, err := api.PostMessage("#war-room", client.MsgOptionText("hello", false)); err != nil {
		t.Error(err)
	}
	resp, err := http.Get(ready.Page + "page/events") // an open page must not keep it from stopping
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	stop()
	if err := <-done; err != nil {
		t.Errorf("stopped with %v", err)
	}
}

func TestRefusesWhatItCannotUse(t *testing.T) {
	secret, token := write(t, "s", "s"), write(t, "t", "t")
	files := []string{"-signing-secret-file", secret, "-bot-token-file", token}
	for name, tc := range map[string]struct {
		args  []string
		says  string
		usage bool
	}{
		"no secret":         {[]string{"-bot-token-file", token}, "-signing-secret-file is required", true},
		"no token":          {[]string{"-signing-secret-file", secret}, "-bot-token-file is required", true},
		"empty secret":      {[]string{"-signing-secret-file", write(t, "e", "\n"), "-bot-token-file", token}, "is empty", false},
		"public address":    {append(files, "-listen", "0.0.0.0:0"), "not a loopback address", true},
		"no port":           {append(files, "-listen", "127.0.0.1"), "missing port", true},
		"unknown flag":      {append(files, "-colour", "red"), "not defined", true},
		"an argument":       {append(files, "serve"), `unexpected argument "serve"`, true},
		"unknown setting":   {append(files, "-env", write(t, "env", "SLACK_STANDIN_COLOUR=red")), ":1: no such setting", true},
		"missing workspace": {append(files, "-workspace", "/nonexistent"), "read -workspace", false},
		"bad workspace":     {append(files, "-workspace", write(t, "w", `{"people":[]}`)), `unknown field "people"`, false},
		"user twice":        {append(files, "-workspace", write(t, "w", `{"users":[{"id":"U1"},{"id":"U1"}]}`)), "not unique", false},
	} {
		t.Run(name, func(t *testing.T) {
			err := run(t.Context(), tc.args, io.Discard, io.Discard)
			var usage usageError
			if err == nil || !strings.Contains(err.Error(), tc.says) || errors.As(err, &usage) != tc.usage {
				t.Errorf("%v (usage error: %v), want %q", err, errors.As(err, &usage), tc.says)
			}
		})
	}
	if err := run(t.Context(), []string{"-help"}, io.Discard, io.Discard); err != nil {
		t.Errorf("-help = %v", err)
	}
}
