package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"math/rand/v2"
	"os"
	"path"
	"runtime"
	"strings"
	"sync"
	"testing"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/sys/bundle"
	"tourniquet.dev/tourniquet/internal/trust"
)

func seed(s *authz.Signer) string {
	return base64.StdEncoding.EncodeToString(s.Key().Seed()) + "\n"
}

// exported is the bundle of a lab's incident.
func (l *lab) exported() []byte {
	l.t.Helper()
	code, out, errs := l.run("audit", "export", l.stop.IncidentID, "--without-histories", "-o", l.path("b.json"))
	if code != codeOK || !strings.Contains(out, "signed by ana") {
		l.t.Fatal(code, out, errs)
	}
	data, err := os.ReadFile(l.path("b.json"))
	l.must(err)
	return data
}

func (l *lab) verifyBytes(data []byte) []result {
	ring, err := loadRing(l.path("ring.json"))
	l.must(err)
	return verifyBundle(context.Background(), data, public(l.w.Root), ring)
}

func holds(results []result) bool {
	for _, r := range results {
		if r.Is == "failed" {
			return false
		}
	}
	return len(results) > 0
}

func TestBundleOfAnIncidentVerifiesOffline(t *testing.T) {
	l := newLab(t)
	l.live()
	l.exported()
	for range 2 { // the same lines each time
		code, out, errs := l.run("audit", "verify", l.path("b.json"))
		if code != codeOK {
			t.Fatalf("exit code %d\n%s%s", code, out, errs)
		}
		for _, want := range []string{
			"ok      manifest    incident " + l.stop.IncidentID + ", exported by ana with key ",
			"ok      playbooks   stolen-credentials v2\n",
			"ok      ledger      tourniquet/contain-kubernetes/demo: 6 of its 7 entries are here and stand in it\n",
			"ok      ledger      tourniquet/decide: 2 of its 3 entries are here and stand in it\n",
			"ok      judged      tourniquet/contain-kubernetes/demo: 3 effects and endings by the same judge, 3 receipts by their signatures\n",
			"ok      judged      tourniquet/decide: 1 decisions by the same judge\n",
			"verified: everything that is claimed holds\n",
		} {
			if !strings.Contains(out, want) {
				t.Errorf("%q is missing in\n%s", want, out)
			}
		}
	}
	for name, args := range map[string][]string{
		"another root": {"--root", l.path("other.pub")},
	} {
		if code, out, _ := l.run(append([]string{"audit", "verify", l.path("b.json")}, args...)...); code != codeRefused || !strings.Contains(out, "failed  trust") {
			t.Errorf("%s: exit code %d\n%s", name, code, out)
		}
	}
	if code, _, errs := l.run("audit", "export", l.stop.IncidentID, "--without-histories", "-o", l.path("c.json"), "--key", l.path("stranger.key")); code != codeRefused {
		t.Errorf("a stranger exports: %d %s", code, errs)
	}
	if code, _, errs := l.run("audit", "export", l.stop.IncidentID, "--without-histories", "-o", l.path("b.json")); code != codeUsage {
		t.Errorf("a bundle is overwritten: %d %s", code, errs)
	}
}

// I31: any change of any one byte of the record is detected offline, wherever it is; so is a byte more or less. The
// incident is a small one: a step of the stop plan, and its receipt.
func TestI31EveryOneByteEditOfAnExportIsDetected(t *testing.T) {
	l := newLab(t)
	l.enforce(func(g *activities.Gate) {
		stop, err := l.stop.Digest()
		l.must(err)
		_, err = g.ApplyStep(context.Background(), activities.StepInput{IncidentID: l.stop.IncidentID, Plan: stop})
		l.must(err)
	})
	l.journal("decide", "tourniquet/decide", l.w.Signers[trust.RoleDecide]).Close()
	good := l.exported()
	if !holds(l.verifyBytes(good)) {
		t.Fatalf("the bundle itself is refused: %+v", l.verifyBytes(good))
	}
	ring, err := loadRing(l.path("ring.json"))
	l.must(err)
	root := public(l.w.Root)
	var wg sync.WaitGroup
	workers := runtime.GOMAXPROCS(0)
	for n := range workers {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(n)))
			for i := n; i < len(good); i += workers {
				for _, edit := range edits(good, i, random) {
					if holds(verifyBundle(context.Background(), edit, root, ring)) {
						t.Errorf("byte %d: …%s… verifies", i, edit[max(0, i-20):min(len(edit), i+20)])
					}
				}
			}
		})
	}
	wg.Wait()
	if holds(l.verifyBytes(append(bytes.Clone(good), '\n'))) || holds(l.verifyBytes(append([]byte{' '}, good...))) {
		t.Error("a byte before or behind it verifies")
	}
	t.Logf("%d bytes, each changed and each left out", len(good))
}

// edits changes byte i to a letter that JSON or base64 might take, and leaves it out.
func edits(good []byte, i int, random *rand.Rand) [][]byte {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=\"{}[]:, "
	a := bytes.Clone(good)
	for a[i] == good[i] {
		a[i] = letters[random.IntN(len(letters))]
	}
	return [][]byte{a, append(bytes.Clone(good[:i]), good[i+1:]...)}
}

// reseal changes the files of a bundle and signs it again, as an exporter who lies would.
func (l *lab) reseal(data []byte, s *authz.Signer, change func(files map[string][]byte)) []byte {
	l.t.Helper()
	b, err := bundle.Open(data)
	l.must(err)
	m, _, err := b.Verify(map[string]ed25519.PublicKey{l.w.Own["ana"].KeyID(): public(l.w.Own["ana"])})
	l.must(err)
	change(b.Files)
	out, err := bundle.Seal(s, m, b.Files)
	l.must(err)
	return out
}

// An exporter signs the list of files, and can leave things out; what is there, the processes' own signatures hold.
func TestExporterCannotForgeTheRecord(t *testing.T) {
	l := newLab(t)
	l.live()
	good := l.exported()
	ana := l.w.Own["ana"]
	enforcer, decide := "ledgers/contain-kubernetes/1.json", "ledgers/decide/1.json"
	forged := l.plan(plan.Full)
	forged.Steps[0].Target.Name = "somebody-else"
	for name, tc := range map[string]struct {
		signer *authz.Signer
		change func(map[string][]byte)
		check  string
	}{
		"a stranger signs":           {l.w.Signers[trust.RoleDecide], func(map[string][]byte) {}, "manifest"},
		"another person's name":      {l.w.Own["ben"], func(map[string][]byte) {}, "manifest"},
		"another trust file":         {ana, func(f map[string][]byte) { f[fileTrust] = l.resign(f[fileTrust], ana) }, "trust"},
		"a playbook signed by ana":   {ana, func(f map[string][]byte) { n := "playbooks/stolen-credentials.v2.json"; f[n] = l.resign(f[n], ana) }, "playbooks"},
		"a playbook left out":        {ana, func(f map[string][]byte) { delete(f, "playbooks/stolen-credentials.v2.json") }, "judged"},
		"an object under other name": {ana, func(f map[string][]byte) { f["store/"+strings.Repeat("0", 64)] = []byte("{}") }, "store"},
		"a ledger's entry edited": {ana, func(f map[string][]byte) {
			f[enforcer] = bytes.Replace(f[enforcer], []byte("approved by ana"), []byte("approved by ben"), 1)
		}, "ledger"},
		"a ledger of another role":   {ana, func(f map[string][]byte) { f["ledgers/contain-aws/1.json"] = f[enforcer] }, "ledger"},
		"a file that nobody exports": {ana, func(f map[string][]byte) { f["notes/x"] = []byte("x") }, "form"},
		"a plan left out": {ana, func(f map[string][]byte) {
			d, err := l.full.Digest()
			l.must(err)
			delete(f, path.Join("store", strings.TrimPrefix(d, "sha256:")))
		}, "judged"},
		"the first intent left out": {ana, func(f map[string][]byte) { f[enforcer] = dropEntry(t, f[enforcer], 0) }, "judged"},
		"decide's ledger for another incident": {ana, func(f map[string][]byte) {
			f[decide] = bytes.Replace(f[decide], []byte("signalled"), []byte("signaIled"), 1)
		}, "ledger"},
	} {
		t.Run(name, func(t *testing.T) {
			results := l.verifyBytes(l.reseal(good, tc.signer, tc.change))
			found := false
			for _, r := range results {
				found = found || r.Is == "failed" && r.Check == tc.check
			}
			if !found {
				t.Errorf("want a failed %s, got %+v", tc.check, results)
			}
		})
	}
}

// resign signs what an envelope holds with another key.
func (l *lab) resign(data []byte, s *authz.Signer) []byte {
	e, err := authz.DecodeEnvelope(data)
	l.must(err)
	raw, err := e.Raw()
	l.must(err)
	again, err := s.SignBytes(e.PayloadType, raw)
	l.must(err)
	out, err := again.Encode()
	l.must(err)
	return out
}

// dropEntry cuts one entry out of the text of a ledger bundle, so that the rest keeps its spelling.
func dropEntry(t *testing.T, data []byte, i int) []byte {
	t.Helper()
	const marker = "\n  {\n   \"index\":"
	parts := strings.Split(string(data), marker)
	if i+2 >= len(parts) {
		t.Fatalf("%d entries", len(parts)-1)
	}
	return []byte(strings.Join(append(parts[:i+1:i+1], parts[i+2:]...), marker))
}
