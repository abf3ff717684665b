package reflex

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"time"

	"tourniquet.dev/tourniquet/internal/sys/disk"
	"tourniquet.dev/tourniquet/internal/trust"
)

// purse is the node's budget, and the versions of playbooks it has seen, on disk. A reflex may not wait for a disk, and what
// it spends may not be forgotten by a crash either: so a few effects are paid for ahead. What a dead process had paid ahead
// counts as spent.
type purse struct {
	path   string
	budget trust.Budget
	within int // of one namespace

	write sync.Mutex // is taken before mu
	mu    sync.Mutex
	ahead int // paid on disk and not used
	book  ledger
}

type ledger struct {
	Highest map[string]int `json:"highest"` // playbook versions
	Spent   []spend        `json:"spent"`
	Ahead   int            `json:"ahead"`
}

type spend struct {
	At time.Time `json:"at"`
	// Namespace is empty where a crash has lost it: it counts in every one.
	Namespace string `json:"namespace,omitempty"`
}

const (
	payAhead = 4
	maxPurse = 1 << 20
)

func openPurse(dir string, c trust.ReflexCeiling, now time.Time) (*purse, error) {
	p := &purse{path: filepath.Join(dir, "reflex.json"), budget: c.Budget, within: c.Namespace, book: ledger{Highest: map[string]int{}}}
	data, err := disk.ReadFile(disk.OS, p.path, maxPurse)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &p.book)
	}
	if err != nil {
		return nil, fmt.Errorf("read budget of reflexes: %w", err)
	}
	if p.book.Highest == nil {
		p.book.Highest = map[string]int{}
	}
	for range min(p.book.Ahead, payAhead) {
		p.book.Spent = append(p.book.Spent, spend{At: now})
	}
	p.book.Ahead = 0
	return p, nil
}

// left is how many effects the node, and one namespace of it, may still have now. What lies in the future, by a clock that
// was set back, counts. The caller holds mu.
func (p *purse) left(namespace string, now time.Time) int {
	node, there := 0, 0
	for _, s := range p.book.Spent {
		if now.Sub(s.At) >= p.budget.Window {
			continue
		}
		node++
		if s.Namespace == "" || s.Namespace == namespace {
			there++
		}
	}
	return min(p.budget.Effects-node, p.within-there)
}

var errBudget = errors.New("budget-exhausted")

// spend takes one effect out. When it returns nil, no crash makes it unspent.
func (p *purse) spend(namespace string, now time.Time) error {
	p.mu.Lock()
	if p.left(namespace, now) <= 0 {
		p.mu.Unlock()
		return errBudget
	}
	p.book.Spent = append(p.book.Spent, spend{now, namespace})
	paid := p.ahead > 0
	if paid {
		p.ahead--
	}
	p.mu.Unlock()
	if paid {
		return nil
	}
	return p.save(now, 0)
}

// prepay is how many effects are paid ahead: a crash loses no more of the budget than that.
func (p *purse) prepay() int { return max(1, min(payAhead, p.budget.Effects/4)) }

// save writes what was spent, and pays up to so many effects ahead as the budget has.
func (p *purse) save(now time.Time, ahead int) error {
	p.write.Lock()
	defer p.write.Unlock()
	p.mu.Lock()
	kept := p.book.Spent[:0]
	for _, s := range p.book.Spent {
		if now.Sub(s.At) < p.budget.Window {
			kept = append(kept, s)
		}
	}
	p.book.Spent = kept
	more := 0
	if ahead > 0 {
		more = max(0, min(ahead, p.budget.Effects-len(kept))-p.ahead)
	}
	p.book.Ahead = p.ahead + more
	data, err := json.Marshal(p.book)
	p.mu.Unlock()
	if err == nil {
		err = disk.WriteFile(disk.OS, p.path, data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("save budget of reflexes: %w", err)
	}
	p.mu.Lock()
	p.ahead += more
	p.mu.Unlock()
	return nil
}

// giveBack ends a process in order: what was paid ahead was not spent.
func (p *purse) giveBack(now time.Time) error {
	p.mu.Lock()
	p.ahead = 0
	p.mu.Unlock()
	return p.save(now, 0)
}
