package node

import (
	"container/list"
	"strconv"
	"time"

	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/sensor/rule"
)

const (
	// coalesceFor is how long a rule that holds again for the same process tree is not told of again.
	coalesceFor = 10 * time.Second
	maxRecent   = 4096
)

// recent coalesces: of one rule and one process tree the first detection goes on at once, those that follow within
// coalesceFor are counted, and the next one after that says how many they were. One goroutine uses it.
type recent struct {
	seen  map[recentKey]*list.Element
	order *list.List // of *recentEntry, the oldest in front
}

type recentKey struct {
	rule string
	tree rule.Tree
}

type recentEntry struct {
	key      recentKey
	since    time.Duration
	repeated int
}

func newRecent() *recent { return &recent{seen: map[recentKey]*list.Element{}, order: list.New()} }

// take reports whether the detection is to be told of.
func (r *recent) take(d *detection.Detection, tree rule.Tree, now time.Duration) bool {
	key := recentKey{d.Rule, tree}
	if el, ok := r.seen[key]; ok {
		e := el.Value.(*recentEntry)
		if now-e.since < coalesceFor {
			e.repeated++
			return false
		}
		if e.repeated > 0 {
			d.Evidence["repeated"] = strconv.Itoa(e.repeated)
		}
		r.order.Remove(el)
	}
	r.seen[key] = r.order.PushBack(&recentEntry{key: key, since: now})
	for r.order.Len() > maxRecent {
		delete(r.seen, r.order.Remove(r.order.Front()).(*recentEntry).key)
	}
	return true
}
