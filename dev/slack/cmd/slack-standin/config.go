package main

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"tourniquet.dev/tourniquet/dev/slack"
)

// config is what the flags, or the environment file behind them, say.
type config struct {
	listen string
	slack  slack.Options
}

type usageError struct{ error }

var errHelp = errors.New("help was asked for")

// configure reads the flags. A flag that is not given is looked up in the file of -env: listen there is SLACK_STANDIN_LISTEN, and so on.
func configure(args []string, stderr io.Writer) (config, error) {
	flags := flag.NewFlagSet("slack-standin", flag.ContinueOnError)
	flags.SetOutput(stderr)
	var c config
	var secretFile, tokenFile, usersFile, scopes, env string
	var anyAddress bool
	flags.StringVar(&env, "env", "", "`file` with NAME=value lines, such as SLACK_STANDIN_LISTEN=127.0.0.1:7080, for flags that are not given")
	flags.StringVar(&c.listen, "listen", "127.0.0.1:0", "`address` to listen on; loopback only unless -any-address is given")
	flags.BoolVar(&anyAddress, "any-address", false, "allow an address that is not loopback: the page acts as anybody, for anybody")
	flags.StringVar(&c.slack.InteractivityURL, "interactivity-url", "", "`URL` that receives callbacks")
	flags.StringVar(&secretFile, "signing-secret-file", "", "`file` with the signing secret (required)")
	flags.StringVar(&tokenFile, "bot-token-file", "", "`file` with the bot token (required)")
	flags.StringVar(&c.slack.AppID, "app-id", "", "`id` of the app")
	flags.StringVar(&c.slack.AppName, "app-name", "", "`name` of the app")
	flags.StringVar(&c.slack.TeamID, "team-id", "", "`id` of the team")
	flags.StringVar(&scopes, "scopes", "", "comma-separated bot scopes; empty grants all")
	flags.StringVar(&usersFile, "workspace", "", "JSON `file` with users, user groups and channels; a small workspace of its own unless given")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return c, errHelp
		}
		return c, usageError{err}
	}
	if flags.NArg() > 0 {
		return c, usageError{fmt.Errorf("unexpected argument %q", flags.Arg(0))}
	}
	if err := fromFile(flags, env); err != nil {
		return c, err
	}
	if err := onLoopback(c.listen, anyAddress); err != nil {
		return c, usageError{err}
	}
	if scopes != "" {
		c.slack.Scopes = strings.Split(scopes, ",")
	}
	var err error
	if c.slack.SigningSecret, err = readSecret("signing-secret-file", secretFile); err != nil {
		return c, err
	}
	if c.slack.BotToken, err = readSecret("bot-token-file", tokenFile); err != nil {
		return c, err
	}
	if usersFile != "" {
		c.slack.Workspace, err = readWorkspace(usersFile)
	}
	return c, err
}

// fromFile sets the flags that were not given from NAME=value lines.
func fromFile(flags *flag.FlagSet, path string) error {
	if path == "" {
		return nil
	}
	data, err := os.ReadFile(path) //nolint:gosec // the caller's own file
	if err != nil {
		return fmt.Errorf("read -env: %w", err)
	}
	given := map[string]bool{}
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		key, ours := strings.CutPrefix(strings.TrimSpace(key), "SLACK_STANDIN_")
		name := strings.ReplaceAll(strings.ToLower(key), "_", "-")
		if !ok || !ours || name == "env" || flags.Lookup(name) == nil {
			return usageError{fmt.Errorf("%s:%d: no such setting", path, n)}
		}
		if given[name] {
			continue
		}
		if err := flags.Set(name, strings.TrimSpace(value)); err != nil {
			return usageError{fmt.Errorf("%s:%d: %w", path, n, err)}
		}
	}
	return lines.Err()
}

func onLoopback(address string, anyAddress bool) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("-listen: %w", err)
	}
	if ip := net.ParseIP(host); anyAddress || host == "localhost" || ip != nil && ip.IsLoopback() {
		return nil
	}
	return fmt.Errorf("-listen %s is not a loopback address", address)
}

func readSecret(name, path string) (string, error) {
	if path == "" {
		return "", usageError{fmt.Errorf("-%s is required", name)}
	}
	data, err := os.ReadFile(path) //nolint:gosec // the caller's own file
	if err != nil {
		return "", fmt.Errorf("read -%s: %w", name, err)
	}
	text := strings.TrimSpace(string(data))
	if text == "" {
		return "", fmt.Errorf("read -%s: %s is empty", name, path)
	}
	return text, nil
}

func readWorkspace(path string) (slack.Workspace, error) {
	f, err := os.Open(path) //nolint:gosec // the caller's own file
	if err != nil {
		return slack.Workspace{}, fmt.Errorf("read -workspace: %w", err)
	}
	defer f.Close()
	w, err := slack.DecodeWorkspace(f)
	if err != nil {
		return slack.Workspace{}, fmt.Errorf("%s: %w", path, err)
	}
	return w, nil
}
