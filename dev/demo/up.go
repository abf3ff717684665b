package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"sync"
	"time"

	"tourniquet.dev/tourniquet/dev/stack"
	"tourniquet.dev/tourniquet/dev/workload"
	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/workflows"
)

// demo is one run.
type demo struct {
	out     io.Writer
	auto    bool
	machine machine
	begin   time.Time
	stack   *stack.Stack
	shop    *shop
	outside *workload.Workload
	show    *show
	setup   time.Duration // until all was ready
	figures []figure
	failed  []string // what was not as it should be
}

// up runs the demo from nothing to the end.
func up(ctx context.Context, out io.Writer, auto bool) (err error) {
	d := &demo{out: out, auto: auto, machine: look(), begin: began(os.Getenv("DEMO_BEGAN"), time.Now())}
	d.machine.say(d.say)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	d.stack, err = stack.Start(ctx, stack.Options{Dir: os.Getenv(stateEnv), Log: out, BindRoles: []string{account}, NoNodeCut: !d.machine.whole()})
	if err != nil {
		return err
	}
	defer func() {
		d.say("taking everything down")
		if left := d.stack.Stop(); left != nil {
			err = errors.Join(err, errLeft, left)
		}
	}()
	go func() { // ends with the run
		select {
		case died := <-d.stack.Died():
			cancel(fmt.Errorf("a part of the stack died: %w", died))
		case <-ctx.Done():
		}
	}()
	if err := d.play(ctx); err != nil {
		if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
			return cause
		}
		return err
	}
	return nil
}

// began is when the person gave the command: seconds since 1970, as the script that built this program says.
func began(seconds string, now time.Time) time.Time {
	at, err := strconv.ParseFloat(seconds, 64)
	if t := time.UnixMicro(int64(at * 1e6)); err == nil && t.Before(now) && now.Sub(t) < time.Hour {
		return t
	}
	return now
}

func (d *demo) say(format string, args ...any) {
	fmt.Fprintf(d.out, "%6.1fs  %s\n", time.Since(d.begin).Seconds(), fmt.Sprintf(format, args...))
}

// play opens the shop, attacks it, and stays with the incident.
func (d *demo) play(ctx context.Context) error {
	var err error
	if d.shop, err = openShop(ctx, d.stack); err != nil {
		return err
	}
	d.say("pod %s/%s, its service account, IAM user %s with key %s and role %s are made", namespace, podName, awsUser, d.shop.keyID, awsRole)
	if err := d.watchPod(ctx); err != nil {
		return err
	}
	temporal, err := d.stack.Temporal(ctx)
	if err != nil {
		return err
	}
	defer temporal.Close()
	d.show = newShow(d.out, temporal, d.key())
	d.setup = time.Since(d.begin)
	d.say("ready. Temporal: %s   Slack: %s", d.stack.UIURL, d.stack.SlackURL)
	before, err := d.snapshot(ctx)
	if err != nil {
		return err
	}
	return d.attack(ctx, before)
}

// watchPod starts the sensor, then the pod's process, and waits until data flows. A recording begins only with the attack.
func (d *demo) watchPod(ctx context.Context) (err error) {
	if d.machine.whole() {
		if err := d.stack.StartSensor(ctx); err != nil {
			return err
		}
	}
	if d.outside, err = d.shop.start(ctx, d.machine); err != nil || !d.machine.whole() {
		return err
	}
	if err := d.awaitFlow(ctx); err != nil {
		return err
	}
	d.say("the pod's process runs in its cgroup and network namespace, with an open connection to the outside")
	return nil
}

// recorded is a stream of kernel events of the same attack; it happens so long after the beginning.
const (
	recorded     = "sensor/testdata/attack.jsonl"
	recordedAt   = 3 * time.Second
	recordedLoot = 700 * time.Millisecond
)

// strike has the attack happen: in the pod, or in a recording beside which the attacker is given his loot.
func (d *demo) strike(ctx context.Context) error {
	if d.machine.whole() {
		d.show.begin = time.Now()
		d.say("the attack begins: a shell in the pod reads credentials, asks the metadata service and sends the loot home")
		return d.outside.Attack(ctx)
	}
	d.stack.Play(recorded, map[string]string{"${POD_UID}": string(d.shop.podUID), "${CONTAINER_ID}": d.shop.containerID, "${HOME}": "/home/cart",
		"${SINK}": "198.18.77.66:4445"})
	if err := d.stack.StartSensor(ctx); err != nil {
		return err
	}
	d.show.begin = time.Now().Add(recordedAt)
	select {
	case <-time.After(recordedAt):
	case <-ctx.Done():
		return ctx.Err()
	}
	d.say("the attack begins, in a recording: a shell in the pod reads credentials, asks the metadata service and sends the loot home")
	time.Sleep(recordedLoot)
	return d.outside.Steal(ctx)
}

// page is the incident's page in the Web UI.
func (d *demo) page() string {
	return d.stack.UIURL + "/namespaces/default/workflows/" + url.PathEscape(workflows.IncidentWorkflowID(d.key()))
}

// key is the correlation key of the pod's owner.
func (d *demo) key() string {
	w := detection.Detection{Workload: &detection.Workload{Cluster: stack.Cluster, OwnerUID: string(d.shop.ownerUID)}}
	return w.Key()
}

func (d *demo) attack(ctx context.Context, before snapshot) error {
	if err := d.strike(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	watching.Go(func() { d.show.run(ctx) })
	if d.auto {
		return d.decideAlone(ctx, before)
	}
	if _, err := d.show.until(ctx, "a person is asked", 2*time.Minute, offered); err != nil {
		return err
	}
	d.say("the pod is stopped, for a time. Now it is yours: open %s and press Approve…, later Release…", d.stack.SlackURL)
	d.say("the incident in Temporal: %s", d.page())
	d.say("the command line: go run ./cmd/tourniquet --config %s incidents list   (Ctrl-C ends the demo)", d.stack.Operator("alice"))
	<-ctx.Done()
	return ctx.Err()
}

// offered reports whether people are asked to decide on plans.
func offered(v workflows.StateView) bool { return len(v.Options) > 0 && v.Tier != "" }
