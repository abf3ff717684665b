package authz

import (
	"fmt"

	"tourniquet.dev/tourniquet/internal/plan"
)

// reassert allows a broken hold to be put back within the playbook's rule, while it is open.
func (c *hearing) reassert() (Verdict, *Refusal) {
	h := c.spent.Held
	if h == nil || c.spent.Ended {
		return Verdict{}, refuse(CodeSpent, "there is no open hold")
	}
	if h.Expiry == plan.Release && !c.now.Before(h.Ends) {
		return Verdict{}, refuse(CodeExpired, "the hold ended %s", h.Ends.Format("15:04:05"))
	}
	if h.Reasserted >= c.book.Playbook.Reassert {
		return Verdict{}, refuse(CodeReassertLimit, "put back %d times already", h.Reasserted)
	}
	return Verdict{Authority: fmt.Sprintf("open hold, %s v%d", c.book.Playbook.Playbook, c.book.Playbook.Version)}, nil
}

// end judges undo and retire. Undo has three reasons and no others: a signed release, the enforcer's clock for a
// step that comes off by itself, and the journalled failure of its atomic group. A cancelled, reset or terminated
// workflow is none.
func (c *hearing) end(books []Book) (Verdict, error) {
	h := c.spent.Held
	if h == nil {
		return Verdict{}, refuse(CodeNoUndoReason, "there is no open hold of this step")
	}
	if c.req.Verb == VerbUndo {
		if h.GroupFailed {
			return Verdict{Authority: "failed group"}, nil
		}
		if h.Expiry == plan.Release && !c.now.Before(h.Ends) {
			return Verdict{Authority: "clock"}, nil
		}
	}
	kind := Release
	if c.req.Verb == VerbRetire {
		kind = Retire
	}
	if r := c.findBook(books); r != nil && r.Code != CodeRollback && r.Code != CodeForbidden {
		return Verdict{}, r
	}
	v, r := c.people(kind)
	if r != nil {
		return Verdict{}, r
	}
	v.Authority = fmt.Sprintf("%s by %s", map[DecisionKind]string{Release: "released", Retire: "retired"}[kind], joinPeople(v.Nonces))
	return v, nil
}

func joinPeople(nonces []string) string {
	var names []string
	for _, n := range nonces {
		names = append(names, n[33:])
	}
	return joinNames(names)
}
