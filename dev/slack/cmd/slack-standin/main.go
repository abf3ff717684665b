// Command slack-standin serves the Slack stand-in on one address, for the demo and for looking at it by hand. It prints one line
// of JSON when it is ready and stops on SIGTERM. It is never deployed with the product.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"tourniquet.dev/tourniquet/dev/slack"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	var usage usageError
	switch {
	case err == nil:
	case errors.As(err, &usage):
		fmt.Fprintf(os.Stderr, "slack-standin: %v\nhint: slack-standin -help\n", err)
		os.Exit(2)
	default:
		fmt.Fprintf(os.Stderr, "slack-standin: %v\n", err)
		os.Exit(1)
	}
}

// run serves until ctx ends.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	c, err := configure(args, stderr)
	if errors.Is(err, errHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	base := "http://" + listener.Addr().String()
	c.slack.BaseURL = base
	standIn := slack.New(c.slack)
	server := &http.Server{Handler: standIn.Handler(), ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()

	ready := map[string]string{"ready": "slack-standin", "page": base + "/", "api": base + "/api/", "admin": base + "/admin/"}
	if err := json.NewEncoder(stdout).Encode(ready); err != nil {
		return fmt.Errorf("say ready: %w", err)
	}
	select {
	case err = <-served:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	standIn.Close()
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		return server.Close() // somebody held on to a connection
	}
	return nil
}
