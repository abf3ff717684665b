package role

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/authz/authztest"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/sys/disk/disktest"
	"tourniquet.dev/tourniquet/internal/sys/journal"
	"tourniquet.dev/tourniquet/internal/trust"
)

// TestI10PoisonedJournalEndsTheProcess: an enforcer whose journal's disk has failed can promise nothing. It must end, so
// that it is started again; a healthy one tends until it is told to stop.
func TestI10PoisonedJournalEndsTheProcess(t *testing.T) {
	for name, fails := range map[string]bool{"a healthy disk": false, "a failed disk": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := authztest.New(time.Now())
				var failing atomic.Bool
				d := &disktest.Disk{Fail: func(op, _ string) error {
					if failing.Load() && (op == "write" || op == "truncate") {
						return syscall.EIO
					}
					return nil
				}}
				signer := w.Signers[trust.RoleContainAWS]
				j, err := journal.Open(journal.Options{Dir: t.TempDir(), Name: "tourniquet/test", Key: signer.Key(), FS: d})
				if err != nil {
					t.Fatal(err)
				}
				defer j.Close() //nolint:errcheck // it is poisoned
				gate, err := activities.NewGate(activities.GateOptions{By: trust.RoleContainAWS, Signer: signer, Journal: j,
					Policy:  func() activities.Policy { return activities.Policy{Trust: w.TrustFile, Books: []authz.Book{w.Book}} },
					Actions: map[plan.Action]activities.Action{}, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if fails {
					failing.Store(true)
					if _, err := j.Append("intent", struct{}{}); !errors.Is(err, journal.ErrPoisoned) {
						t.Fatalf("append: %v", err)
					}
				}
				err = tend(ctx, slog.New(slog.DiscardHandler), gate, j, time.Second)
				if got := errors.Is(err, journal.ErrPoisoned); got != fails {
					t.Errorf("tend ended with %v", err)
				}
			})
		})
	}
}
