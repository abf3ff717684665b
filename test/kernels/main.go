// Command kernels boots stock kernels of Debian in an emulator and runs the sensor's tests there: the tiers, holds and
// rules that the kernel of a developer's machine may refuse. It needs no virtualization and installs nothing but qemu.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() { os.Exit(run(context.Background(), os.Args[1:])) }

// run returns 0 when every kernel that could be had passed, 1 when one failed, 2 for wrong use.
func run(ctx context.Context, args []string) int {
	flags := flag.NewFlagSet("kernels", flag.ContinueOnError)
	root := flags.String("root", ".", "the repository")
	only := flags.String("only", "", "run only this `NAME`")
	limit := flags.Duration("timeout", 15*time.Minute, "for each kernel")
	if err := flags.Parse(args); err != nil || flags.NArg() > 0 {
		return 2
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	h := harness{root: *root, cache: filepath.Join(*root, ".cache", "kernels"), limit: *limit}
	began, status := time.Now(), 0
	for _, m := range machines {
		if *only != "" && *only != m.name {
			continue
		}
		if err := h.test(ctx, m); err != nil {
			fmt.Printf("== %s: FAILED: %v\n", m.name, err)
			status = 1
		}
	}
	fmt.Printf("== kernels: %.1f minutes\n", time.Since(began).Minutes())
	return status
}
