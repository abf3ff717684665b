package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"tourniquet.dev/tourniquet/internal/card"
	"tourniquet.dev/tourniquet/internal/incident"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/workflows"
)

// decideAlone presses the buttons itself: approve, and once everything holds, release. Then it looks at what came of it.
func (d *demo) decideAlone(ctx context.Context, before snapshot) error {
	f := finger{url: d.stack.SlackURL, user: "U0ALICE0000"}
	if _, err := d.show.until(ctx, "a person is asked", 2*time.Minute, offered); err != nil {
		return err
	}
	approve, err := f.await(ctx, card.ActionApprove, 1)
	if err != nil {
		return err
	}
	d.say("AUTO=1: Alice presses Approve… in Slack, reads the plan and submits")
	clicked, err := f.press(ctx, approve, "the key was used from outside: contain everything")
	if err != nil {
		return err
	}
	d.line(clicked, "Alice approves (Slack)")
	held, err := d.show.until(ctx, "every step is verified, or asserted where nothing can observe it", 2*time.Minute, allHold)
	if err != nil {
		return err
	}
	d.say("every step holds; looking from outside of the product's code")
	d.checkHeld(ctx)
	if err := d.releaseAll(ctx, f); err != nil {
		return err
	}
	closed, err := d.show.until(ctx, "the incident is closed", time.Minute, func(v workflows.StateView) bool { return v.State == string(incident.Closed) })
	if err != nil {
		return err
	}
	d.say("the incident is closed; looking from outside again")
	d.checkReleased(ctx, before)
	d.audit(ctx, closed.IncidentID)
	if err := d.measure(ctx, held, closed, clicked); err != nil {
		return err
	}
	return d.conclude()
}

// allHold reports whether every step of the stop plan and the full plan is on and was looked at.
func allHold(v workflows.StateView) bool {
	purposes := map[string]bool{}
	for _, c := range v.Containments {
		for _, s := range c.Steps {
			entry, _ := plan.Lookup(plan.Action(s.Action))
			if s.State != workflows.StepVerified && (entry.Observable || s.State != workflows.StepAsserted) {
				return false
			}
			purposes[c.Purpose] = true
		}
	}
	return purposes[string(plan.Stop)] && purposes[string(plan.Full)]
}

// releaseAll presses Release… of each plan that is on, until none is. The last one put on comes off first.
func (d *demo) releaseAll(ctx context.Context, f finger) error {
	for {
		v, _ := d.show.state()
		on := slices.DeleteFunc(slices.Clone(v.Containments), func(c workflows.ContainmentChanged) bool { return c.Done })
		if len(on) == 0 {
			return nil
		}
		release, err := f.await(ctx, card.ActionRelease, len(on))
		if err != nil {
			return err
		}
		d.say("AUTO=1: Alice presses Release…")
		at, err := f.press(ctx, release, "the key was rotated: back to normal")
		if err != nil {
			return err
		}
		d.line(at, "Alice releases (Slack)")
		_, err = d.show.until(ctx, "a plan is off", time.Minute, func(v workflows.StateView) bool {
			still := 0
			for _, c := range v.Containments {
				if !c.Done {
					still++
				}
			}
			return still < len(on)
		})
		if err != nil {
			return err
		}
	}
}

func (d *demo) line(at time.Time, format string, args ...any) { d.show.line(at, format, args...) }

// audit has the command line export the incident into one file and verify that file on its own.
func (d *demo) audit(ctx context.Context, incidentID string) {
	if err := d.auditWith(ctx, incidentID); err != nil {
		d.fail("audit: %v", err)
		return
	}
	d.pass("the incident was exported into one bundle, and the bundle verifies on its own")
}

func (d *demo) auditWith(ctx context.Context, incidentID string) error {
	tool, bundle := d.stack.Program("tourniquet"), d.stack.Path("bundle.json")
	for _, args := range [][]string{{"audit", "export", incidentID, "-o", bundle}, {"audit", "verify", bundle}} {
		cmd := exec.CommandContext(ctx, tool, append(args, "--config", d.stack.Operator("alice"))...) // #nosec G204 -- our own program
		cmd.Env = []string{}                                                                          // nothing of the person's
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("tourniquet %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
		}
	}
	return nil
}

func (d *demo) pass(format string, args ...any) {
	fmt.Fprintf(d.out, "     ok  %s\n", fmt.Sprintf(format, args...))
}

func (d *demo) fail(format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	d.failed = append(d.failed, what)
	fmt.Fprintf(d.out, " NOT OK  %s\n", what)
}

// expect is pass or fail.
func (d *demo) expect(ok bool, format string, args ...any) {
	if ok {
		d.pass(format, args...)
	} else {
		d.fail(format, args...)
	}
}

func (d *demo) conclude() error {
	if len(d.failed) > 0 {
		return errors.New(fmt.Sprint(len(d.failed), " things are not as they should be:\n  ", strings.Join(d.failed, "\n  ")))
	}
	d.say("all of it is as it should be")
	return nil
}
