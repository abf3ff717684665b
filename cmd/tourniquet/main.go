// Command tourniquet is the operator's command line: it shows incidents, signs decisions with its user's own key, checks
// and signs configuration, and exports and verifies the record of an incident. It judges before it signs, but grants
// nothing: the enforcers judge again. It never touches AWS, Kubernetes or Slack and holds no right of its own.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is the whole program. It returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{in: stdin, out: stdout, errs: stderr, now: time.Now}
	root := a.command()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err != nil && !a.ran { // cobra refused flags, arguments or the command before any of our code ran
		err = usage(err, "see tourniquet --help")
	}
	return report(stderr, err)
}
