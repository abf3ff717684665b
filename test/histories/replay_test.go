// Package histories_test replays every recorded history on the code as it is now. A change to a workflow that breaks
// one of them would break the incidents that are open when it is rolled out.
package histories_test

import (
	"path/filepath"
	"strings"
	"testing"

	"go.temporal.io/sdk/worker"

	"tourniquet.dev/tourniquet/workflows"
)

func TestRecordedHistoriesReplay(t *testing.T) {
	files, err := filepath.Glob("*.json")
	if err != nil {
		t.Fatal(err)
	}
	good, bad := 0, 0
	for _, f := range files {
		t.Run(f, func(t *testing.T) {
			r := worker.NewWorkflowReplayer()
			r.RegisterWorkflow(workflows.Incident)
			r.RegisterWorkflow(workflows.Containment)
			r.RegisterWorkflow(workflows.Archive)
			err := r.ReplayWorkflowHistoryFromJSONFile(nil, f)
			if strings.HasPrefix(f, "bad-") {
				bad++
				if err == nil {
					t.Error("a history that this code cannot have made replays")
				}
				return
			}
			good++
			if err != nil {
				t.Error(err)
			}
		})
	}
	if good < 3 || bad < 1 {
		t.Errorf("%d good and %d bad histories: recordings are missing", good, bad)
	}
}
