package evidence_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"tourniquet.dev/tourniquet/internal/canonical"
	"tourniquet.dev/tourniquet/internal/evidence"
)

var now = time.Date(2026, 11, 23, 4, 0, 0, 0, time.UTC)

func items() []evidence.Item {
	var out []evidence.Item
	for i, k := range []evidence.Kind{evidence.Detection, evidence.Facts, evidence.Assessment, evidence.Plan} {
		out = append(out, evidence.Item{Digest: canonical.DigestOf([]byte(k)), Kind: k, Source: "a test", Collector: "investigate", At: now.Add(time.Duration(i) * time.Second)})
	}
	return out
}

func seal(t *testing.T, all []evidence.Item) string {
	t.Helper()
	m, err := evidence.Seal("iabcdefghijkl", all, now.Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	digest, err := canonical.Digest(m)
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

func TestSealFixesTheListAndNotItsOrder(t *testing.T) {
	want := seal(t, items())
	turned := items()
	slices.Reverse(turned)
	if got := seal(t, append(turned, items()[1])); got != want {
		t.Error("order, or an item that stands twice, changed the seal")
	}
	for name, change := range map[string]func([]evidence.Item) []evidence.Item{
		"dropped": func(all []evidence.Item) []evidence.Item { return all[1:] },
		"swapped": func(all []evidence.Item) []evidence.Item {
			all[0].Digest = canonical.DigestOf([]byte("other"))
			return all
		},
		"another time":   func(all []evidence.Item) []evidence.Item { all[2].At = all[2].At.Add(time.Millisecond); return all },
		"another source": func(all []evidence.Item) []evidence.Item { all[2].Source = "else"; return all },
	} {
		if seal(t, change(items())) == want {
			t.Errorf("%s: the seal is the same", name)
		}
	}
}

func TestBadEvidenceIsNotSealed(t *testing.T) {
	for want, change := range map[string]func(*evidence.Item){
		"items[3].digest":  func(it *evidence.Item) { it.Digest = "sha256:x" },
		"items[3].kind":    func(it *evidence.Item) { it.Kind = "gossip" },
		"items[3]: source": func(it *evidence.Item) { it.Collector = "" },
		"after the seal":   func(it *evidence.Item) { it.At = now.Add(time.Hour) },
	} {
		all := items()
		change(&all[3])
		if _, err := evidence.Seal("iabcdefghijkl", all, now.Add(time.Minute)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}
