package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// metadata stands for the instance metadata service. It knows no credentials.
func metadata(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("metadata", flag.ContinueOnError)
	listen := flags.String("listen", "169.254.169.254:80", "`address`")
	if err := flags.Parse(args); err != nil {
		return err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", *listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	server := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Server", "metadata stand-in; not AWS")
		if r.Header.Get("X-aws-ec2-metadata-token") == "" { // as IMDSv2 does
			http.Error(w, "401 - Unauthorized", http.StatusUnauthorized)
			return
		}
		http.NotFound(w, r)
	})}
	if err := ready(stdout, "metadata"); err != nil {
		return err
	}
	go func() { // ends with the process
		<-ctx.Done()
		_ = server.Close()
	}()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
