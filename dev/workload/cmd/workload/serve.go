package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	streamEvery = 5 * time.Millisecond
	beaconEvery = 10 * time.Millisecond
)

// serve is a web shop's server with a hole: whoever reaches /debug/exec runs a shell in the pod. It has one long open TCP
// connection to the outside, and sends datagrams there, both with sequence numbers: the peer measures when they stop.
func serve(ctx context.Context, args []string, stdout io.Writer) error {
	var listen, stream, beacon string
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	flags.StringVar(&listen, "listen", "", "`address` of the web server")
	flags.StringVar(&stream, "stream", "", "`address` of the peer's TCP port")
	flags.StringVar(&beacon, "beacon", "", "`address` of the peer's UDP port")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var d net.Dialer
	long, err := d.DialContext(ctx, "tcp", stream)
	if err != nil {
		return fmt.Errorf("open stream: %w", err)
	}
	defer func() { _ = long.Close() }()
	retryOften(long)
	datagrams, err := d.DialContext(ctx, "udp", beacon)
	if err != nil {
		return fmt.Errorf("open beacon: %w", err)
	}
	defer func() { _ = datagrams.Close() }()
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() { count(ctx, long, streamEvery) })
	all.Go(func() { count(ctx, datagrams, beaconEvery) })
	mux := http.NewServeMux()
	mux.HandleFunc("POST /debug/exec", execute)
	mux.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "cart: 3 items") })
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	all.Go(func() {
		<-ctx.Done()
		_ = server.Close()
		_ = long.Close() // a blocked write returns
	})
	if err := ready(stdout, "serve"); err != nil {
		return err
	}
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// retryOften bounds the time between probes of a cut connection, where the kernel knows how (6.15 and newer), so that the peer
// sees soon that it lives on. How many there may be, pod has said for its whole network namespace.
func retryOften(c net.Conn) {
	const rtoMax = 44 // TCP_RTO_MAX_MS
	if raw, err := c.(*net.TCPConn).SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, rtoMax, 3000) })
	}
}

// count writes numbers until ctx ends. A datagram that the kernel refuses is one that nobody gets.
func count(ctx context.Context, to net.Conn, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		_, err := fmt.Fprintf(to, "%012d\n", n)
		if err != nil && to.LocalAddr().Network() == "tcp" {
			return
		}
	}
}

// execute is the hole: the request's body goes to a shell.
func execute(w http.ResponseWriter, r *http.Request) {
	script, err := io.ReadAll(io.LimitReader(r.Body, 64<<10))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	shell := exec.Command("/bin/bash", "-c", string(script)) // #nosec G204 -- this is the vulnerability that the demo is about
	if err := shell.Start(); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	go func() { _ = shell.Wait() }() // ends with the shell
	w.WriteHeader(http.StatusAccepted)
}
