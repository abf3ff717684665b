package spool_test

import (
	"fmt"
	"sync"
	"testing"

	"tourniquet.dev/tourniquet/internal/sys/spool"
)

// BenchmarkAppend waits for the fsync of each payload of 1 KiB, as an appender does.
func BenchmarkAppend(b *testing.B) {
	for _, appenders := range []int{1, 64, 512} {
		b.Run(fmt.Sprintf("appenders=%d", appenders), func(b *testing.B) {
			s := benchSpool(b)
			payload := make([]byte, kib)
			b.SetBytes(kib)
			work := make(chan struct{})
			var wg sync.WaitGroup
			for range appenders {
				wg.Go(func() {
					for range work {
						if _, err := s.Append(b.Context(), spool.Normal, payload); err != nil {
							b.Error(err)
						}
					}
				})
			}
			for b.Loop() {
				work <- struct{}{}
			}
			close(work)
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "appends/s")
		})
	}
}

// BenchmarkDrain reads payloads of 1 KiB and acknowledges them 128 at a time.
func BenchmarkDrain(b *testing.B) {
	const backlog = 8192
	s := benchSpool(b)
	fill := func() {
		var wg sync.WaitGroup
		for range 256 {
			wg.Go(func() {
				for range backlog / 256 {
					if _, err := s.Append(b.Context(), spool.Normal, make([]byte, kib)); err != nil {
						b.Error(err)
					}
				}
			})
		}
		wg.Wait()
	}
	b.SetBytes(kib)
	left, read := 0, 0
	for b.Loop() {
		if left == 0 {
			b.StopTimer()
			fill()
			left = backlog
			b.StartTimer()
		}
		r, err := s.Next(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		left--
		if read++; read%128 == 0 {
			if err := s.Ack(b.Context(), r); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func benchSpool(b *testing.B) *spool.Spool {
	s, err := spool.Open(spool.Options{Dir: b.TempDir(), MaxBytes: 8 << 30})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	return s
}
