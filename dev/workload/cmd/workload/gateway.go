package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// gateway listens inside a network namespace and carries each connection to an address outside of it: the way by which the
// attacker's namespace reaches the AWS stand-in and the API server on this machine's loopback, and nothing else.
func gateway(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("gateway", flag.ContinueOnError)
	netns := flags.String("netns", "", "`path` of the network namespace to listen in")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var all sync.WaitGroup
	defer all.Wait()
	for _, arg := range flags.Args() {
		from, to, ok := strings.Cut(arg, "=")
		if !ok {
			return fmt.Errorf("%q is not LISTEN=TARGET", arg)
		}
		l, err := listenIn(*netns, from)
		if err != nil {
			return err
		}
		all.Go(func() {
			<-ctx.Done()
			_ = l.Close()
		})
		all.Go(func() { carryAll(ctx, l, to) })
	}
	if err := ready(stdout, "gateway"); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// listenIn opens a listener from a thread that has gone to the namespace. The socket stays there; the thread ends.
func listenIn(netns, address string) (l net.Listener, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
		if err = enterNetns(netns); err != nil {
			return
		}
		l, err = net.Listen("tcp", address)
	}()
	<-done
	return l, err
}

// enterNetns takes the calling thread, which must be locked, to a network namespace.
func enterNetns(path string) error {
	ns, err := os.Open(path)
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter %s: %w", path, err)
	}
	return nil
}

func carryAll(ctx context.Context, l net.Listener, to string) {
	for {
		in, err := l.Accept()
		if err != nil {
			return
		}
		go carry(ctx, in, to) // ends with the connection
	}
}

func carry(ctx context.Context, in net.Conn, to string) {
	defer func() { _ = in.Close() }()
	out, err := new(net.Dialer).DialContext(ctx, "tcp", to)
	if err != nil {
		return
	}
	defer func() { _ = out.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = errors.Join(in.Close(), out.Close()) })
	defer stop()
	var both sync.WaitGroup
	both.Go(func() { _, _ = io.Copy(out, in); closeWrite(out) })
	both.Go(func() { _, _ = io.Copy(in, out); closeWrite(in) })
	both.Wait()
}

func closeWrite(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.CloseWrite()
	}
}
