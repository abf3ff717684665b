// Package probe turns what the kernel programs write into typed events, and says how many are missing. Events come from
// the live kernel (Reader) or from a recording (Player); what follows cannot tell the two apart. It judges nothing and
// remembers no process: sensor/node runs it, sensor/process and sensor/rule take its events.
package probe

import (
	"context"
	"time"
)

// A Source brings events, in the order of their happening as nearly as it can be had at no delay: a consumer must bear a
// process's exit that overtakes its last open.
type Source interface {
	// Run sends events until ctx is done or the source has ended, which are no errors. It closes nothing and leaves no
	// goroutine behind. It may be called once.
	Run(ctx context.Context, out chan<- Event) error
	// Wall returns when an event of this source happened, by the wall clock.
	Wall(at time.Duration) time.Time
}
