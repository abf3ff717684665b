// Command temporal-dev runs the embedded Temporal server with its Web UI until SIGTERM or SIGINT. When both answer, it
// prints one line of JSON on standard output: {"addr":"host:port","ui":"http://host:port","namespace":"…"}. Warnings go to
// standard error. It is started by the demo and by tests.
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
	"strings"
	"syscall"

	enumspb "go.temporal.io/api/enums/v1"

	"tourniquet.dev/tourniquet/dev/temporal"
)

func main() {
	// The Web UI's framework prints to standard output when it fails; that is for our one line.
	stdout := os.Stdout
	os.Stdout = os.Stderr
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	err := run(ctx, os.Args[1:], stdout, os.Stderr)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
	default:
		fmt.Fprintf(os.Stderr, "temporal-dev: %v\n", err)
		os.Exit(1)
	}
}

// ready is the line on standard output.
type ready struct {
	Addr      string `json:"addr"`
	UI        string `json:"ui"`
	Namespace string `json:"namespace"`
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	opts, err := parse(args, stderr)
	if err != nil {
		return err
	}
	server, err := temporal.Start(ctx, opts)
	if err != nil {
		return err
	}
	line := ready{Addr: server.Addr(), UI: server.UIURL(), Namespace: server.Namespace()}
	if err := json.NewEncoder(stdout).Encode(line); err != nil {
		return errors.Join(fmt.Errorf("tell that the server is ready: %w", err), server.Stop())
	}
	<-ctx.Done()
	return server.Stop()
}

func parse(args []string, stderr io.Writer) (temporal.Options, error) {
	opts := temporal.Options{Log: stderr, SearchAttributes: map[string]enumspb.IndexedValueType{}}
	flags := flag.NewFlagSet("temporal-dev", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&opts.Database, "db", "", "`path` of the SQLite file (required)")
	flags.IntVar(&opts.Port, "port", 0, "port of the frontend; 0 picks a free one")
	flags.IntVar(&opts.UIPort, "ui-port", 0, "port of the Web UI; 0 picks a free one")
	flags.BoolVar(&opts.NoUI, "no-ui", false, "leave the Web UI out")
	flags.BoolVar(&opts.ReadOnlyUI, "read-only-ui", false, "have the Web UI refuse what is not a read")
	flags.StringVar(&opts.Namespace, "namespace", temporal.DefaultNamespace, "namespace to make")
	flags.DurationVar(&opts.Retention, "retention", temporal.DefaultRetention, "how long closed workflows stay in a new namespace")
	flags.StringVar(&opts.CodecEndpoint, "codec", "", "`URL` of the codec server, as the browser sees it")
	flags.Func("search-attribute", "`Name=Type` to add, such as TqState=Keyword; may be repeated", func(v string) error {
		name, kind, ok := strings.Cut(v, "=")
		indexed, err := enumspb.IndexedValueTypeFromString(kind)
		if !ok || name == "" || err != nil {
			return fmt.Errorf("want Name=Type with Type one of Keyword, KeywordList, Text, Int, Double, Bool, Datetime")
		}
		opts.SearchAttributes[name] = indexed
		return nil
	})
	if err := flags.Parse(args); err != nil {
		return opts, err
	}
	if flags.NArg() != 0 {
		return opts, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	return opts, nil
}
