// Command aws-standin serves one account of the AWS stand-in until it gets SIGTERM or SIGINT. It prints one line of JSON on its
// standard output when it is ready. It takes all settings from its flags: no AWS_* variable, profile or credential file.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(os.Stderr, "aws-standin: %v\n", err)
		os.Exit(1)
	}
}

// run serves until ctx is done.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	c, err := parse(args, stderr)
	if err != nil {
		return err
	}
	server, key, err := c.server()
	if err != nil {
		return err
	}
	return c.serve(ctx, server, key, stdout)
}
