package build

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// A teller prints what a long step is doing, each line with the step's name and the time since its start.
type teller struct {
	mu    sync.Mutex
	to    io.Writer
	name  string
	start time.Time
}

func newTeller(to io.Writer, name string) *teller {
	if to == nil {
		to = io.Discard
	}
	return &teller{to: to, name: name, start: time.Now()}
}

func (t *teller) say(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(t.to, "%s [%s] %s\n", t.name, time.Since(t.start).Round(time.Second), fmt.Sprintf(format, args...))
}

// every says status at each interval until the returned function is called; that waits for the last line.
func (t *teller) every(interval time.Duration, status func() string) (stop func()) {
	done := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				t.say("%s", status())
			case <-done:
				return
			}
		}
	})
	return func() {
		close(done)
		running.Wait()
	}
}
