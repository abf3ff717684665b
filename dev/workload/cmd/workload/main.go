// Command workload is what the demo is about, all in one static program: the pod's server (pod, serve), the stand-in for the
// instance metadata service (metadata), and, outside of the pod, the exfiltration server with the attacker (outside) and
// their way to the AWS stand-in and the API server (gateway). Each part prints one line of JSON when it is ready and ends
// on SIGTERM. It attacks nothing but the addresses it is given. The demo and the end-to-end tests start it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// parts by name; each blocks until ctx ends.
var parts = map[string]func(ctx context.Context, args []string, stdout io.Writer) error{
	"pod": pod, "serve": serve, "metadata": metadata, "outside": outside, "gateway": gateway,
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) < 2 || parts[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: workload pod|serve|metadata|outside|gateway [flags]")
		os.Exit(2)
	}
	if err := parts[os.Args[1]](ctx, os.Args[2:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) && !errors.Is(err, context.Canceled) {
		fmt.Fprintf(os.Stderr, "workload %s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
}

// ready says that a part works.
func ready(stdout io.Writer, part string) error {
	return json.NewEncoder(stdout).Encode(map[string]any{"ready": true, "part": part, "pid": os.Getpid()})
}
