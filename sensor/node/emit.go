package node

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/internal/sys/spool"
	"tourniquet.dev/tourniquet/sensor/process"
)

// emitAll completes, signs and spools what was found, until there is no more. One whose pod is not known yet waits aside
// for it, so that it keeps no other back.
func (n *Node) emitAll(ctx context.Context) error {
	var aside sync.WaitGroup
	defer aside.Wait()
	failed := make(chan error, 1)
	fail := func(err error) {
		select {
		case failed <- err:
		default: // the first one is enough
		}
	}
	for {
		var f found
		var more bool
		select {
		case f, more = <-n.found:
		case err := <-failed:
			return err
		}
		if !more {
			aside.Wait()
			select {
			case err := <-failed:
				return err
			default:
				return nil
			}
		}
		pod, known := n.lookup(f.container)
		if known || n.o.Pods == nil || !n.wait() {
			if err := n.emit(ctx, f, pod, known); err != nil {
				fail(err)
			}
			continue
		}
		aside.Go(func() {
			defer func() { <-n.waiting }()
			waiting, cancel := context.WithTimeout(ctx, awaitPod)
			defer cancel()
			pod, err := n.o.Pods.Await(waiting, f.container)
			if err := n.emit(ctx, f, pod, err == nil); err != nil {
				fail(err)
			}
		})
	}
}

func (n *Node) lookup(c process.Container) (process.Pod, bool) {
	if n.o.Pods == nil {
		return process.Pod{}, false
	}
	return n.o.Pods.Lookup(c)
}

// wait takes a place among those that wait for their pod; false when all are taken.
func (n *Node) wait() bool {
	select {
	case n.waiting <- struct{}{}:
		return true
	default:
		return false
	}
}

// emit brings one detection into the spool. What ctx's end has overtaken is still written: it is local and short.
func (n *Node) emit(ctx context.Context, f found, pod process.Pod, known bool) error {
	d := f.detection
	if !known {
		n.count.nameless.Add(1)
	}
	locate(d.Workload, f.container, pod, known)
	d.Identities = n.identities(f, pod, known)
	err := n.send(ctx, d)
	switch {
	case errors.Is(err, errInvalid):
		n.lose(lossKey{Cause: causeInvalid})
		n.o.Log.Error("a detection was not told of", "detection_id", d.UID, "rule", d.Rule, "err", err)
		return nil
	case errors.Is(err, spool.ErrFull):
		n.lose(lossKey{Cause: causeSpoolFull, Class: laneOf(d).String()})
		n.o.Log.Error("a detection was lost: the spool is full", "detection_id", d.UID, "rule", d.Rule, "severity", d.Severity)
		return nil
	case err != nil:
		n.count.lost.Add(1)
		return fmt.Errorf("spool detection %s: %w", d.UID, err)
	}
	n.count.spooled.Add(1)
	n.o.Log.Info("detected", "detection_id", d.UID, "rule", d.Rule, "severity", d.Severity, "pod_uid", d.Workload.PodUID)
	return nil
}

var errInvalid = errors.New("the detection is not valid")

// send gives a detection its id, and has it on disk when it returns.
func (n *Node) send(ctx context.Context, d *detection.Detection) error {
	d.UID = fmt.Sprintf("%s-%d", n.o.Instance, n.seq.Add(1))
	d.Source = detection.Source{Kind: detection.Sensor, Name: n.o.Node, UID: d.UID}
	d.Redact()
	if err := d.Validate(); err != nil {
		return fmt.Errorf("%w: %w", errInvalid, err)
	}
	return n.put(ctx, authz.TypeDetection, laneOf(d), d)
}

func laneOf(d *detection.Detection) spool.Lane {
	if d.Severity.Rank() >= detection.High.Rank() {
		return spool.Critical
	}
	return spool.Normal
}

// put signs a statement and has it on disk when it returns.
func (n *Node) put(ctx context.Context, payloadType string, lane spool.Lane, body any) error {
	e, err := n.o.Signer.Sign(payloadType, body)
	if err != nil {
		return err
	}
	payload, err := e.Encode()
	if err != nil {
		return err
	}
	_, err = n.o.Spool.Append(context.WithoutCancel(ctx), lane, payload)
	return err
}
