// Package fault names the points at which a process may die, so that a test can kill it at each of them.
//
// Point costs nothing in a normal build. Built with the tag faultpoints, a process kills itself (SIGKILL, so no deferred call
// runs) at the point that TOURNIQUET_FAULT names: "spool.fsync/after", or "spool.fsync/after#3" for the third time it comes
// there. TOURNIQUET_FAULT_LOG names a file to which it appends each point that it reaches. It never changes a result and
// never returns an error.
package fault

// Names returns every declared point. At a call site a name stands alone or with /before, /during or /after behind it.
func Names() []string {
	return []string{
		// sensor
		"ring.read", "spool.append", "spool.fsync", "spool.roll", "send.post", "send.ack", "cursor.write", "hold.put", "hold.lift", "freeze.save", "order.once",
		// starter
		"intake.decode", "correlate.flush", "temporal.signal-with-start", "ack.reply", "decide.verify", "decide.sign",
		"ledger.append", "temporal.signal", "slack.ack",
		// worker
		"evidence.put", "evidence.seal", "assess.result", "plan.store", "authorize.verify", "ledger.intent", "budget.take",
		"apply.call", "ledger.result", "verify.probe", "lease.write", "lease.renew", "undo.call", "undo.verify", "history.export",
		"card.post", "card.update",
		// ledger, store, reconciler
		"leaf.write", "checkpoint.sign", "checkpoint.rename", "store.put", "reconcile.scan", "reconcile.undo",
	}
}
