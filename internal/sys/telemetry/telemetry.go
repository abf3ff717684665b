// Package telemetry is how every process logs and is measured.
//
// It owns the keys of log records, the type that keeps secrets from being printed, the redaction that catches what slips
// through all the same, and the handler for /metrics and /healthz. It holds no global logger or registry: a main makes them
// and hands them down. It never logs by itself.
package telemetry

import (
	"io"
	"log/slog"
)

// Keys of log records. Untrusted text is a value under one of them, never a key or a message.
const (
	KeyRole        = "role"
	KeyIncidentID  = "incident_id"
	KeyDetectionID = "detection_id"
	KeyPlanDigest  = "plan_digest"
	KeyStep        = "step"
	KeyAction      = "action"
	KeyResource    = "resource"
	KeyIdentity    = "identity"
	KeyErr         = "err"
)

// NewLogger returns a logger that writes JSON lines to w, without secrets. level may be a *slog.LevelVar.
func NewLogger(w io.Writer, role string, level slog.Leveler) *slog.Logger {
	handler := slog.NewJSONHandler(redactingWriter{w}, &slog.HandlerOptions{Level: level, ReplaceAttr: utc})
	return slog.New(handler).With(KeyRole, role)
}

// utc makes the records of processes in different zones sort by their text.
func utc(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey && a.Value.Kind() == slog.KindTime {
		a.Value = slog.TimeValue(a.Value.Time().UTC())
	}
	return a
}

// A redactingWriter redacts whole lines, so that nothing gets past it by being a key, a group or a nested value. slog's
// handlers write each record with one call.
type redactingWriter struct{ w io.Writer }

func (r redactingWriter) Write(line []byte) (int, error) {
	if _, err := r.w.Write(redact(line)); err != nil {
		return 0, err
	}
	return len(line), nil
}
