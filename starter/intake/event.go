package main

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/internal/sys/fault"
	"tourniquet.dev/tourniquet/starter/intake/adapter"
	"tourniquet.dev/tourniquet/starter/intake/correlate"
)

// Waiting for a sensor to tell of a container that a third party was quicker to report. Few may wait at once, so that
// unknown containers hold up nobody.
const (
	placeWait  = time.Second
	maxWaiting = 8
)

// outcomePassedOver is of an item that is no finding: telemetry, a resolved alert. It is counted and not kept.
const outcomePassedOver = "passed-over"

// takeEvent serves one request of a third party.
func (s *server) takeEvent(w http.ResponseWriter, r *http.Request) {
	from, ok := s.sources[r.PathValue("source")]
	if !ok {
		s.refuse(w, http.StatusNotFound, problem{Code: codeUnknownSource, Error: "no such source is configured"})
		return
	}
	data, ok := s.body(w, r)
	if !ok {
		return
	}
	if !from.authentic(r, data, s.now()) {
		s.refuse(w, http.StatusUnauthorized, problem{Code: codeUnauthorized, Error: "the source's signature or bearer token is needed"})
		return
	}
	fault.Point("intake.decode")
	if from.Kind.Batched() {
		s.takeBatch(w, r, data, from.ThirdParty)
		return
	}
	window := adapter.Window{Now: s.now(), MaxAge: s.maxAge}
	found, err := adapter.ReadEvent(r.Header, data, from.ThirdParty, window)
	var item taken
	if err == nil {
		item, err = s.sealed(r.Context(), found, window)
	}
	if err != nil {
		kept := s.aside(correlate.Detections, from.Name, data, err)
		s.refuse(w, statusOf(kept.Code), kept.problem)
		return
	}
	kept, err := s.keep(r.Context(), item)
	s.answer(w, []result{kept}, err)
}

// errNotKept says that an item found room neither in the spool nor in the dead letters.
var errNotKept = errors.New("no room for dead letters")

// takeBatch judges each item of a request on its own. The answer is 200 when every one is on disk or passed over, so that
// a sender repeats what is not, and only that counts again.
func (s *server) takeBatch(w http.ResponseWriter, r *http.Request, data []byte, from adapter.ThirdParty) {
	items, err := adapter.Split(from.Kind, data)
	if err != nil {
		kept := s.aside(correlate.Detections, from.Name, data, err)
		s.refuse(w, statusOf(kept.Code), kept.problem)
		return
	}
	results, failed := make([]result, len(items)), make([]error, len(items))
	slots := make(chan struct{}, maxAppends)
	var all sync.WaitGroup
	for i, item := range items {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			results[i], failed[i] = s.takeItem(r.Context(), item, from)
		})
	}
	all.Wait()
	s.answer(w, results, errors.Join(failed...))
}

func (s *server) takeItem(ctx context.Context, item adapter.Item, from adapter.ThirdParty) (result, error) {
	window := adapter.Window{Now: s.now(), MaxAge: s.maxAge}
	found, err := item.Read(from, window, s.recall)
	if err == nil && found.PassedOver != "" {
		s.passed.add(adapter.Code(found.PassedOver))
		s.learn(found, window)
		return result{Status: outcomePassedOver, problem: problem{Error: found.PassedOver}}, nil
	}
	var next taken
	if err == nil {
		next, err = s.sealed(ctx, found, window)
	}
	if err == nil {
		kept, err := s.keep(ctx, next)
		if err == nil {
			s.learn(found, window)
		}
		return kept, err
	}
	kept := s.aside(correlate.Detections, from.Name, item.Body, err)
	if kept.Status == outcomeRefused {
		return kept, errNotKept
	}
	return kept, nil
}

// learn remembers what an item told, now that it is safe.
func (s *server) learn(found adapter.Finding, window adapter.Window) {
	for _, what := range found.Learn {
		if err := s.recall.Met(what, window.Now); err != nil { // then it is new again, and said again
			s.log.Warn("what was seen was not kept", "err", err)
		}
	}
}

// takeQueued takes one message of a source's queue. Without an error it is safe, passed over, or in the dead letters.
func (s *server) takeQueued(ctx context.Context, body []byte, from adapter.ThirdParty) error {
	items, err := adapter.Split(from.Kind, body)
	if err != nil {
		if kept := s.aside(correlate.Detections, from.Name, body, err); kept.Status == outcomeRefused {
			return errNotKept
		}
		return nil
	}
	var errs []error
	for _, item := range items {
		_, err := s.takeItem(ctx, item, from)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// sealed finds the place of a finding, completes it and signs it.
func (s *server) sealed(ctx context.Context, found adapter.Finding, window adapter.Window) (taken, error) {
	s.place(ctx, found.Detection)
	d, err := found.Seal(window)
	if err != nil {
		return taken{}, err
	}
	e, err := s.signer.Sign(authz.TypeDetection, d)
	if err != nil {
		return taken{}, &adapter.Refusal{Code: adapter.Invalid, Err: err}
	}
	return detectionItem(e, d)
}

// place gives a third party's detection the workload that sensors have told of, so that both come to one incident. What
// cannot be resolved says so, and has a key of its own.
func (s *server) place(ctx context.Context, d *detection.Detection) {
	w := d.Workload
	if w == nil || w.OwnerUID != "" {
		return
	}
	found, how := s.lookUp(ctx, *w)
	if how == "" {
		if !adapter.StandIn(d) {
			d.Evidence = with(d.Evidence, "named by the event: its owner is not known")
		}
		return
	}
	said := "resolved by " + how + " from a sensor's detection"
	if (w.Pod != "" && w.Pod != found.Pod) || (w.Namespace != "" && w.Namespace != found.Namespace) || (w.PodUID != "" && w.PodUID != found.PodUID) {
		said += "; the event names another pod: " + w.Namespace + "/" + w.Pod
	}
	d.Workload, d.Evidence = &found, with(d.Evidence, said)
}

func with(evidence map[string]string, said string) map[string]string {
	if evidence == nil {
		evidence = map[string]string{}
	}
	evidence[adapter.EvidencePlace] = said
	return evidence
}

// lookUp asks the index, and waits a little for a container or cgroup that it does not know yet.
func (s *server) lookUp(ctx context.Context, w detection.Workload) (detection.Workload, string) {
	told := s.places.Told()
	found, how := s.places.Resolve(w)
	if how != "" || (w.ContainerID == "" && w.CgroupID == 0) {
		return found, how
	}
	select {
	case s.waiting <- struct{}{}:
		defer func() { <-s.waiting }()
	default:
		return found, how
	}
	ctx, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	for how == "" {
		select {
		case <-ctx.Done():
			return found, how
		case <-told:
		}
		told = s.places.Told()
		found, how = s.places.Resolve(w)
	}
	return found, how
}
