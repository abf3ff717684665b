package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"time"

	"tourniquet.dev/tourniquet/dev/aws"
)

type config struct {
	listen, admin string
	bootstrap     string
	bootstrapUser string
	buckets       string
	options       aws.Options
}

var accountPattern = regexp.MustCompile(`^[0-9]{12}$`)

func parse(args []string, stderr io.Writer) (config, error) {
	var c config
	flags := flag.NewFlagSet("aws-standin", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&c.listen, "listen", "127.0.0.1:0", "address of the AWS protocols")
	flags.StringVar(&c.admin, "admin", "", "address of the admin endpoint, or unix:PATH for a socket file of mode 0600; empty: none")
	flags.StringVar(&c.bootstrap, "bootstrap", "", `file of mode 0600 with {"accessKeyId","secretAccessKey"} of the first administrator (required)`)
	flags.StringVar(&c.bootstrapUser, "bootstrap-user", "bootstrap-admin", "name of the first administrator")
	flags.StringVar(&c.buckets, "buckets", "", "names of buckets that ListBuckets shows, by comma")
	flags.StringVar(&c.options.Account, "account", aws.DefaultAccount, "account id, 12 digits")
	flags.DurationVar(&c.options.Lag, "lag", aws.DefaultLag, "from a change to its effect on authorization")
	flags.DurationVar(&c.options.Jitter, "jitter", aws.DefaultJitter, "by how much the lag varies, both ways")
	flags.DurationVar(&c.options.DeliveryDelay, "delivery-delay", aws.DefaultDeliveryDelay, "from a call to its CloudTrail event")
	flags.IntVar(&c.options.LookupRate, "lookup-rate", aws.DefaultLookupRate, "LookupEvents a second and region; 0: no limit")
	flags.Uint64Var(&c.options.Seed, "seed", uint64(time.Now().UnixNano()), "of the jitter")
	if err := flags.Parse(args); err != nil {
		return c, err
	}
	switch {
	case flags.NArg() > 0:
		return c, fmt.Errorf("unknown argument %q", flags.Arg(0))
	case !accountPattern.MatchString(c.options.Account):
		return c, fmt.Errorf("-account %q: want 12 digits", c.options.Account)
	case c.bootstrap == "":
		return c, errors.New("-bootstrap is required")
	case c.options.Lag < 0 || c.options.Jitter < 0 || c.options.DeliveryDelay < 0 || c.options.LookupRate < 0:
		return c, errors.New("-lag, -jitter, -delivery-delay and -lookup-rate are not negative")
	}
	return c, nil
}

// server makes the account with its first administrator.
func (c config) server() (*aws.Server, aws.AccessKey, error) {
	var key aws.AccessKey
	info, err := os.Stat(c.bootstrap)
	if err != nil {
		return nil, key, fmt.Errorf("read bootstrap credentials: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, key, fmt.Errorf("read bootstrap credentials %s: mode is %o, want 600", c.bootstrap, info.Mode().Perm())
	}
	raw, err := os.ReadFile(c.bootstrap)
	if err == nil {
		err = json.Unmarshal(raw, &key)
	}
	if err != nil {
		return nil, key, fmt.Errorf("read bootstrap credentials %s: %w", c.bootstrap, err)
	}
	if key.ID == "" || key.Secret == "" {
		return nil, key, fmt.Errorf("read bootstrap credentials %s: accessKeyId and secretAccessKey must be set", c.bootstrap)
	}
	server := aws.New(c.options)
	for name := range strings.SplitSeq(c.buckets, ",") {
		if name != "" {
			server.SeedBucket(name)
		}
	}
	_, err = server.SeedAdmin(c.bootstrapUser, key)
	return server, key, err
}

// serve listens, says so, and closes everything when ctx is done.
func (c config) serve(ctx context.Context, server *aws.Server, key aws.AccessKey, stdout io.Writer) error {
	public, err := new(net.ListenConfig).Listen(ctx, "tcp", c.listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	servers := []*http.Server{{Handler: server.Handler(), ReadHeaderTimeout: 10 * time.Second}}
	listeners := []net.Listener{public}
	ready := map[string]any{
		"ready": true, "name": aws.Label, "url": "http://" + public.Addr().String(), "account": server.Account(),
		"accessKeyId": key.ID, "lag": c.options.Lag.String(), "seed": c.options.Seed, "pid": os.Getpid(),
	}
	if c.admin != "" {
		admin, err := listenAdmin(ctx, c.admin)
		if err != nil {
			_ = public.Close()
			return err
		}
		servers = append(servers, &http.Server{Handler: server.AdminHandler(), ReadHeaderTimeout: 10 * time.Second})
		listeners = append(listeners, admin)
		ready["admin"] = c.admin
		if !strings.HasPrefix(c.admin, "unix:") {
			ready["admin"] = "http://" + admin.Addr().String()
		}
	}
	failed := make(chan error, len(servers))
	for i, s := range servers {
		go func() { failed <- s.Serve(listeners[i]) }()
	}
	if err := json.NewEncoder(stdout).Encode(ready); err != nil {
		return fmt.Errorf("say ready: %w", err)
	}
	var first error
	running := len(servers)
	select {
	case <-ctx.Done():
	case first = <-failed:
		running--
	}
	for _, s := range servers {
		_ = s.Close() // ends every connection; Serve below returns
	}
	for range running {
		if err := <-failed; !errors.Is(err, http.ErrServerClosed) && first == nil {
			first = err
		}
	}
	return first
}

// listenAdmin opens the admin endpoint. A socket file that a killed stand-in left behind is replaced.
func listenAdmin(ctx context.Context, address string) (net.Listener, error) {
	path, ok := strings.CutPrefix(address, "unix:")
	if !ok {
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
		if err != nil {
			return nil, fmt.Errorf("listen on the admin endpoint: %w", err)
		}
		return listener, nil
	}
	if info, err := os.Stat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
		_ = os.Remove(path)
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on the admin endpoint: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = listener.Close()
		return nil, fmt.Errorf("close the admin endpoint to others: %w", err)
	}
	return listener, nil
}
