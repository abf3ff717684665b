// Command appender appends to a spool and reads from it until it is killed. It prints +n when the append of payload n was
// acknowledged, -n before it acknowledges having read it.
package main

import (
	"context"
	"fmt"
	"os"
	"strconv"

	"tourniquet.dev/tourniquet/internal/sys/spool"
)

func main() {
	start, err := strconv.Atoi(os.Args[2])
	if err == nil {
		err = run(context.Background(), os.Args[1], start)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func run(ctx context.Context, dir string, n int) error {
	s, err := spool.Open(spool.Options{Dir: dir, MaxBytes: 1 << 20, SegmentBytes: 2 << 10})
	if err != nil {
		return err
	}
	for ; ; n++ {
		if _, err := s.Append(ctx, spool.Lane(n%2), strconv.AppendInt(make([]byte, 0, 300), int64(n), 10)[:300]); err != nil {
			return err
		}
		fmt.Printf("+%d\n", n)
		if n%3 != 0 {
			continue
		}
		r, err := s.Next(ctx)
		if err != nil {
			return err
		}
		fmt.Printf("-%d\n", number(r.Payload))
		if err := s.Ack(ctx, r); err != nil {
			return err
		}
	}
}

// number reads the digits that a payload begins with.
func number(payload []byte) (n int) {
	for _, c := range payload {
		if c < '0' || c > '9' {
			break
		}
		n = 10*n + int(c-'0')
	}
	return n
}
