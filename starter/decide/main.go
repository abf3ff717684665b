// Command decide takes decisions in: it turns a click in Slack into a judged, signed decision, keeps it in its own ledger,
// and signals it to the workflows. It has the Slack secrets, the trust file, the playbooks and its own key; never a
// cloud or cluster credential. What it signs is worth what the trust file gives a click, and enforcers judge it again.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

func main() { os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr)) }

// run returns the exit code: 0 after a signal, 1 for a failure, 2 for wrong use.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("decide", flag.ContinueOnError)
	flags.SetOutput(stderr)
	path := flags.String("config", "", "configuration `FILE`")
	if err := flags.Parse(args); err != nil || *path == "" || flags.NArg() > 0 {
		fmt.Fprintln(stderr, "usage: decide --config FILE")
		return 2
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	log := slog.New(slog.NewJSONHandler(stderr, nil))
	c, err := loadConfig(*path)
	if err == nil {
		err = serve(ctx, c, log, stdout)
	}
	if err != nil {
		fmt.Fprintf(stderr, "decide: %v\n", err)
		return 1
	}
	return 0
}
