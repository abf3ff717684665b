// Package archive reads workflow histories from Temporal for the account of an incident. It changes nothing there.
// The orchestrate worker and the operator's command line use it.
package archive

import (
	"context"
	"fmt"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/history/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/protobuf/encoding/protojson"
)

// Histories reads histories through a Temporal client.
type Histories struct{ client client.Client }

// New returns a reader of histories.
func New(c client.Client) *Histories { return &Histories{c} }

// History returns the execution's history as Temporal's own JSON, with the number of its events. Payloads stay as the
// server holds them: encrypted. An empty runID means the latest run.
func (h *Histories) History(ctx context.Context, workflowID, runID string) ([]byte, int, error) {
	var all history.History
	it := h.client.GetWorkflowHistory(ctx, workflowID, runID, false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for it.HasNext() {
		e, err := it.Next()
		if err != nil {
			return nil, 0, fmt.Errorf("read history: %w", err)
		}
		all.Events = append(all.Events, e)
	}
	data, err := protojson.Marshal(&all)
	if err != nil {
		return nil, 0, fmt.Errorf("write history: %w", err)
	}
	return data, len(all.Events), nil
}
