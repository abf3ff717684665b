package e2e_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/authz/authztest"
	"tourniquet.dev/tourniquet/internal/sys/bundle"
	"tourniquet.dev/tourniquet/internal/sys/keys"
	"tourniquet.dev/tourniquet/internal/sys/temporalclient"
	"tourniquet.dev/tourniquet/internal/trust"
	"tourniquet.dev/tourniquet/workflows"
)

// operator is a person at the command line, with the ground's trust file, store and ledger.
type operator struct {
	g            *ground
	program, dir string
}

func (g *ground) must(err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
}

func newOperator(g *ground) *operator {
	g.t.Helper()
	o := &operator{g: g, dir: g.t.TempDir()}
	o.program = o.path("tourniquet")
	if out, err := exec.Command("go", "build", "-o", o.program, "tourniquet.dev/tourniquet/cmd/tourniquet").CombinedOutput(); err != nil {
		g.t.Fatalf("%v: %s", err, out)
	}
	doc, err := yaml.Marshal(g.w.TrustFile)
	g.must(err)
	o.sign("trust.json", g.w.Root, authz.TypeTrust, doc)
	g.must(os.Mkdir(o.path("playbooks"), 0o750))
	o.sign("playbooks/p.json", g.w.Signers[trust.RolePlaybookSigner], authz.TypePlaybook, []byte(authztest.Playbook))
	g.must(keys.WritePublic(o.path("root.pub"), g.w.Root.Key().Public().(ed25519.PublicKey)))
	for _, person := range []string{"ana", "cleo"} {
		g.must(os.WriteFile(o.path(person+".key"), []byte(base64.StdEncoding.EncodeToString(g.w.Own[person].Key().Seed())), 0o600))
	}
	g.must(os.WriteFile(o.path("config.yaml"), fmt.Appendf(nil, `temporal: {address: "%s", key_ring: %s}
trust: trust.json
root: root.pub
playbooks: playbooks
store: %s
key: ana.key
journals:
  - {role: contain-kubernetes, name: tourniquet/contain/e2e, dir: %s}
`, shared.address, shared.ring, g.folders["store"], g.folders["journal"]), 0o600))
	return o
}

func (o *operator) path(name string) string { return filepath.Join(o.dir, name) }

func (o *operator) sign(name string, s *authz.Signer, payloadType string, raw []byte) {
	e, err := s.SignBytes(payloadType, raw)
	o.g.must(err)
	data, err := e.Encode()
	o.g.must(err)
	o.g.must(os.WriteFile(o.path(name), data, 0o600))
}

// types runs the command line, wants an exit code, and returns what was printed.
func (o *operator) types(code int, args ...string) string {
	o.g.t.Helper()
	cmd := exec.Command(o.program, append([]string{"--config", "config.yaml"}, args...)...)
	cmd.Dir = o.dir
	out, err := cmd.CombinedOutput()
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		o.g.t.Fatal(err)
	}
	if got != code {
		o.g.t.Fatalf("tourniquet %s: exit code %d, want %d\n%s", strings.Join(args, " "), got, code, out)
	}
	return string(out)
}

func (o *operator) sees(text string, want ...string) {
	o.g.t.Helper()
	for _, w := range want {
		if !strings.Contains(text, w) {
			o.g.t.Errorf("%q is missing in\n%s", w, text)
		}
	}
}

// TestI32OperatorDecidesAndAudits takes an incident from its offer to its account with the command line alone: without Slack,
// a person approves, extends and releases with their own key, and a third party verifies the record offline.
func TestI32OperatorDecidesAndAudits(t *testing.T) {
	if *record {
		t.Skip("SKIP-REASON: the recordings are in the clear, which the command line refuses")
	}
	g := prepare(t)
	o := newOperator(g)
	g.detect(g.w.Envelope)
	v := g.await("offer", func(v workflows.StateView) bool { return offered(v) && len(g.done()) == 3 })
	p := g.offer(v)
	id := p.IncidentID
	o.sees(o.types(0, "incidents", "list"), id, "stolen-credentials", g.w.Detection.Key())
	o.sees(o.types(0, "incidents", "show", id), "detected: t", v.Options[0].Plan, "kubernetes/block-writes")
	o.types(3, "incidents", "show", "izzzzzzzzzzzz")
	o.types(2, "incidents", "show", "nonsense")
	o.sees(o.types(0, "doctor"), "ok       temporal")

	forged, err := authztest.Signer("mallory").Sign(authz.TypeDecision, g.w.Decision(authz.Approve, p, "ana", trust.OwnKey))
	g.must(err)
	g.must(shared.client.SignalWorkflow(g.ctx(), g.incidentID(), "", workflows.SignalDecisionMade, workflows.DecisionMade{Decision: forged}))
	g.await("refusal", func(v workflows.StateView) bool { return len(v.Refused) > 0 })

	o.types(2, "approve", id, "--reason", "nobody answers")
	o.types(2, "approve", id, "--yes", "--plan", "abc", "--reason", "too short a digest")
	o.types(3, "release", id, "--yes", "--plan", strings.Repeat("0", 64), "--reason", "no such plan")
	o.sees(o.types(0, "approve", id, "--yes", "--reason", "confirmed with the team"), "ana decides: approve", v.Options[0].Plan, "approved by ana")
	g.await("containment", func(v workflows.StateView) bool {
		return len(v.Containments) == 2 && len(v.Containments[1].Steps) > 0 && v.Containments[1].Steps[0].State == "verified"
	})
	o.types(3, "approve", id, "--yes", "--reason", "nothing is on offer")
	o.sees(o.types(4, "approve", id, "--yes", "--plan", v.Options[0].Plan, "--reason", "once more"), "had no effect")
	o.sees(o.types(0, "extend", id, "--yes", "--by", "1h", "--plan", v.Options[0].Plan, "--reason", "needs the evening"), "extend of plan")

	o.sees(o.types(0, "audit", "export", id, "-o", "open.json"), "signed by ana")
	open := o.types(0, "audit", "verify", "open.json")
	o.sees(open, "verified: everything that is claimed holds", "note", "had no effect")
	if again := o.types(0, "audit", "verify", "open.json"); again != open {
		t.Errorf("two runs print other lines:\n%s\n%s", open, again)
	}

	o.sees(o.types(0, "release", id, "--yes", "--wait", "30s", "--reason", "key was rotated"), "ana decides: release", "nothing of it is on any more")
	g.must(shared.client.GetWorkflow(g.ctx(), g.incidentID(), "").Get(g.ctx(), nil))
	archived := workflows.ArchiveWorkflowID(id)
	g.must(shared.client.GetWorkflow(g.ctx(), archived, "").Get(g.ctx(), nil))
	o.types(3, "release", id, "--yes", "--reason", "nothing is on")
	o.types(0, "audit", "export", id, "-o", "closed.json", "--key", "cleo.key")
	began := time.Now()
	out := o.types(0, "audit", "verify", "closed.json")
	if info, err := os.Stat(o.path("closed.json")); err == nil {
		t.Logf("%d bytes verified in %s\n%s", info.Size(), time.Since(began).Round(time.Millisecond), out)
	}
	o.sees(out, "exported by cleo", "replay      "+archived, "replay      "+g.incidentID(), "replay      containment/"+id)
	o.forgeries()
}

// forgeries changes the exported histories as somebody could who has the codec's key, and signs the bundle again.
func (o *operator) forgeries() {
	g := o.g
	data, err := os.ReadFile(o.path("closed.json"))
	g.must(err)
	edit := bytes.Clone(data)
	edit[len(edit)/2] ^= 1
	g.must(os.WriteFile(o.path("edited.json"), edit, 0o600))
	o.types(4, "audit", "verify", "edited.json")
	ring, err := temporalclient.LoadKeyRing(shared.ring)
	g.must(err)
	for name, tc := range map[string]struct {
		change func(e *historypb.HistoryEvent, dc converter.DataConverter) bool
		check  string
	}{
		"an approver's name in a verdict":    {replaceIn("JudgeDecision", `"person":"ana"`, `"person":"ben"`), "failed  statements"},
		"an observation's finding":           {replaceIn("VerifyStep", `"finding":"verified"`, `"finding":"asserted"`), "failed  statements"},
		"a receipt's phase":                  {replaceIn("ApplyStep", `"phase":"applied"`, `"phase":"undone"`), "failed  statements"},
		"the plan that a step is taken from": {replaceIn("request ApplyStep", `"step":0`, `"step":1`), "failed  replay"},
	} {
		b, err := bundle.Open(data)
		g.must(err)
		m, _, err := b.Verify(map[string]ed25519.PublicKey{g.w.Own["cleo"].KeyID(): g.w.Own["cleo"].Key().Public().(ed25519.PublicKey)})
		g.must(err)
		changed := false
		for _, file := range b.Under("histories") {
			h, err := client.HistoryFromJSON(bytes.NewReader(b.Files[file]), client.HistoryJSONOptions{})
			g.must(err)
			activities := map[int64]string{}
			for _, e := range h.Events {
				if a := e.GetActivityTaskScheduledEventAttributes(); a != nil {
					activities[e.EventId] = a.GetActivityType().GetName()
				}
				named = activities
				dc := converter.WithDataConverterSerializationContext(temporalclient.DataConverter(ring),
					converter.WorkflowSerializationContext{Namespace: "default", WorkflowID: strings.TrimPrefix(filepath.Dir(file), "histories/")})
				changed = !changed && tc.change(e, dc) || changed
			}
			b.Files[file], err = protojson.Marshal(h)
			g.must(err)
		}
		if !changed {
			g.t.Errorf("%s: nothing was changed", name)
		}
		out, err := bundle.Seal(g.w.Own["cleo"], m, b.Files)
		g.must(err)
		file := fmt.Sprintf("forged-%d.json", len(name))
		g.must(os.WriteFile(o.path(file), out, 0o600))
		if said := o.types(4, "audit", "verify", file); !strings.Contains(said, tc.check) {
			g.t.Errorf("%s: want %q in\n%s", name, tc.check, said)
		}
	}
}

// named are the activities of the history that is being changed, by the event that scheduled them.
var named map[int64]string

// replaceIn replaces text in the payload of the first event of an activity's result, or of its request.
func replaceIn(what, old, now string) func(*historypb.HistoryEvent, converter.DataConverter) bool {
	activity, request := strings.CutPrefix(what, "request ")
	return func(e *historypb.HistoryEvent, dc converter.DataConverter) bool {
		done := e.GetActivityTaskCompletedEventAttributes()
		asked := e.GetActivityTaskScheduledEventAttributes()
		payloads := done.GetResult()
		if request {
			payloads = asked.GetInput()
		}
		if payloads == nil || (request && asked.GetActivityType().GetName() != activity) || (!request && named[done.GetScheduledEventId()] != activity) {
			return false
		}
		var raw json.RawMessage
		if err := dc.FromPayload(payloads.Payloads[0], &raw); err != nil || !bytes.Contains(raw, []byte(old)) {
			return false
		}
		p, err := dc.ToPayload(json.RawMessage(bytes.Replace(raw, []byte(old), []byte(now), 1)))
		if err != nil {
			return false
		}
		payloads.Payloads[0] = p
		return true
	}
}
