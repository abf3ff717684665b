// Command intake takes detections in: the sensors' and those of third parties. It verifies, keeps them on its own disk
// before it answers, gathers them by correlation key and hands them to Temporal; what cannot be taken lies in the dead
// letters with a reason. It has the listener, the trust file, its own key and the store; never Slack, a cloud or a cluster.
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

	"tourniquet.dev/tourniquet/internal/sys/telemetry"
)

func main() { os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr)) }

// run returns the exit code: 0 after a signal, 1 for a failure, 2 for wrong use.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("intake", flag.ContinueOnError)
	flags.SetOutput(stderr)
	path := flags.String("config", "", "configuration `FILE`")
	if err := flags.Parse(args); err != nil || *path == "" || flags.NArg() > 0 {
		fmt.Fprintln(stderr, "usage: intake --config FILE")
		return 2
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	c, err := loadConfig(*path)
	if err == nil {
		err = serve(ctx, c, telemetry.NewLogger(stderr, "intake", slog.LevelInfo), stdout)
	}
	if err != nil {
		fmt.Fprintf(stderr, "intake: %v\n", err)
		return 1
	}
	return 0
}
