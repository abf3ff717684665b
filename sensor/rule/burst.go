package rule

import (
	"container/list"
	"time"
)

const (
	maxBurst  = 32   // different names
	maxBursts = 4096 // trees with names in mind; the one that began longest ago goes first
)

type burstKey struct {
	rule string
	tree Tree
}

// bursts remembers which names a rule held for, in each process tree.
type bursts struct {
	seen  map[burstKey]*list.Element
	order *list.List // of *burstEntry
}

type burstEntry struct {
	key   burstKey
	names map[string]uint64 // when
}

func newBursts() bursts { return bursts{map[burstKey]*list.Element{}, list.New()} }

// burst reports whether with this name there were enough. After that it begins anew.
func (s *Set) burst(r *Rule, t Tree, name string, now uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.bursts
	key := burstKey{r.Rule, t}
	el := b.seen[key]
	if el == nil {
		if b.order.Len() >= maxBursts {
			delete(b.seen, b.order.Remove(b.order.Front()).(*burstEntry).key)
		}
		el = b.order.PushBack(&burstEntry{key, map[string]uint64{}})
		b.seen[key] = el
	}
	names := el.Value.(*burstEntry).names
	names[name] = now
	for other, at := range names {
		if now > at && time.Duration(now-at) > r.Burst.Within { //nolint:gosec // nanoseconds since boot
			delete(names, other)
		}
	}
	if len(names) < r.Burst.Distinct {
		return false
	}
	b.order.Remove(el)
	delete(b.seen, key)
	return true
}
