// Command sensor watches the processes of one node: it turns what the kernel tells into signed detections, keeps them on
// disk until intake has them, and carries out signed orders on the node's pods. It has the kernel's probes, the trust
// file, its node's key and read access to its node's pods; never Temporal, a cloud credential or a write to the cluster.
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

// run returns the exit code: 0 after a signal, 1 for a failure, 2 for wrong use; the doctor has more.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 && args[0] == "doctor" {
		return doctor(args[1:], stdout, stderr)
	}
	flags := flag.NewFlagSet("sensor", flag.ContinueOnError)
	flags.SetOutput(stderr)
	path := flags.String("config", "", "configuration `FILE`")
	if err := flags.Parse(args); err != nil || *path == "" || flags.NArg() > 0 {
		fmt.Fprintln(stderr, "usage: sensor --config FILE | sensor doctor [--json]")
		return 2
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	c, err := loadConfig(*path)
	if err == nil {
		err = serve(ctx, c, telemetry.NewLogger(stderr, "sensor", slog.LevelInfo), stdout)
	}
	if err != nil {
		fmt.Fprintf(stderr, "sensor: %v\n", err)
		return 1
	}
	return 0
}
