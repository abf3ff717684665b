// Command demo is `make demo`: it starts the whole stack on this machine, runs a real attack in a real workload, shows what
// happens while it does, and waits for the button in Slack. With AUTO=1 it presses the button itself, releases everything,
// checks the end state from outside the product's code, and prints figures. It never uses a cluster, an account or a Slack
// of the person who runs it, and leaves nothing behind.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"tourniquet.dev/tourniquet/dev/stack"
)

func main() { os.Exit(run(os.Args[1:])) }

// run returns the exit code: 0 all is well, 1 something is not as it should be, 2 wrong use.
func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch strings.Join(args, " ") {
	case "up":
		err = up(ctx, os.Stdout, os.Getenv("AUTO") == "1")
	case "down":
		err = down()
	default:
		fmt.Fprintln(os.Stderr, "usage: demo up|down (AUTO=1 presses the button itself)")
		return 2
	}
	switch {
	case err == nil:
		return 0
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "ended as told; nothing is left behind")
		return 0
	}
	fmt.Fprintf(os.Stderr, "tourniquet demo: %v\n", err)
	return 1
}

func down() error {
	removed, err := stack.Clean("")
	for _, what := range removed {
		fmt.Println("removed", what)
	}
	if err == nil && len(removed) == 0 {
		fmt.Println("nothing was left behind")
	}
	return err
}
