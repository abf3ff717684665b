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

// stateEnv names another folder than .state/demo, so that two demos can stand side by side.
const stateEnv = "DEMO_STATE"

func main() { os.Exit(run(os.Args[1:])) }

// run returns the exit code: 0 all is well, 1 something is not as it should be, 2 wrong use, 130 told to stop before all was
// checked.
func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	auto := os.Getenv("AUTO") == "1"
	var err error
	switch strings.Join(args, " ") {
	case "up":
		err = up(ctx, os.Stdout, auto)
	case "down":
		err = down()
	default:
		fmt.Fprintln(os.Stderr, "usage: demo up|down (AUTO=1 presses the button itself, RECORDED=1 leaves the kernel alone, DEMO_STATE=DIR stands elsewhere)")
		return 2
	}
	code, word := ending(err, ctx.Err() != nil, auto)
	if word != "" {
		fmt.Fprintln(os.Stderr, word)
	}
	return code
}

// errLeft says that something could not be taken down.
var errLeft = errors.New("not everything could be taken down; make demo-down tries again")

// ending is the exit code and the last word. A run that was told to stop has done its work only if there was nothing to check.
func ending(err error, told, auto bool) (code int, word string) {
	switch {
	case err == nil:
		return 0, ""
	case !told || !errors.Is(err, context.Canceled) || errors.Is(err, errLeft):
		return 1, "tourniquet demo: " + err.Error()
	case auto:
		return 130, "ended as told, before everything was checked; nothing is left behind"
	}
	return 0, "ended as told; nothing is left behind"
}

func down() error {
	removed, err := stack.Clean(os.Getenv(stateEnv))
	for _, what := range removed {
		fmt.Println("removed", what)
	}
	if err == nil && len(removed) == 0 {
		fmt.Println("nothing was left behind")
	}
	return err
}
