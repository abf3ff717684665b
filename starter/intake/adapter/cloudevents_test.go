package adapter_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/internal/identity"
	"tourniquet.dev/tourniquet/starter/intake/adapter"
)

var (
	now    = time.Date(2026, 11, 23, 4, 5, 6, 0, time.UTC)
	window = adapter.Window{Now: now, MaxAge: 24 * time.Hour}
	scout  = adapter.ThirdParty{Name: "scout", Cluster: "east", Account: "111122223333"}
	json10 = http.Header{"Content-Type": {"application/cloudevents+json; charset=utf-8"}}
)

func sample(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "cloudevents", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func translate(header http.Header, body []byte, from adapter.ThirdParty) (*detection.Detection, error) {
	e, err := adapter.CloudEvent(header, body)
	if err != nil {
		return nil, err
	}
	return e.Detection(from, window)
}

func TestFindingBecomesDetection(t *testing.T) {
	got, err := translate(json10, sample(t, "finding.json"), scout)
	if err != nil {
		t.Fatal(err)
	}
	want := &detection.Detection{
		V: 1, UID: "scout:" + got.Source.UID, Time: time.UnixMilli(1795406700123).UTC(),
		Source: detection.Source{Kind: detection.ThirdParty, Name: "scout", UID: got.Source.UID},
		Rule:   "UnauthorizedAccess:IAMUser/Key-Outside", Title: "Key used from outside", Severity: detection.High, Confidence: 80,
		Attacks:  []detection.Attack{{TechniqueID: "T1078.004", TacticID: "TA0001", Version: "19"}},
		Workload: &detection.Workload{Cluster: "east", Namespace: "shop", Pod: "checkout-1", PodUID: "0c0ffee0-1111-4222-8333-444455556666", OwnerKind: "ReplicaSet", OwnerName: "checkout", OwnerUID: "0c0ffee0-aaaa-4222-8333-444455556666"},
		Identities: []identity.Identity{
			{Kind: identity.AccessKey, Scope: "111122223333", Name: "AKIAEXAMPLE000000001", Link: identity.Claimed, Evidence: "reported by a third party"},
		},
	}
	kept := got.Unmapped
	got.Unmapped = nil
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for path, value := range map[string]string{
		"source": "urn:scout:eu", "id": "f-1", "event.traceparent": "00-1", "data.vendor.score": "123456789012345678901234567890",
		"data.vendor.list.1.deep": "true", "data.resources.2.type": "Laptop", "data.activity_id": "1",
	} {
		if kept[path] != value {
			t.Errorf("unmapped %s is %q, want %q", path, kept[path], value)
		}
	}
}

func TestSameEventHasOneKey(t *testing.T) {
	a, err := adapter.CloudEvent(json10, sample(t, "finding.json"))
	if err != nil {
		t.Fatal(err)
	}
	var structured struct{ Data json.RawMessage }
	if err := json.Unmarshal(sample(t, "finding.json"), &structured); err != nil {
		t.Fatal(err)
	}
	header := http.Header{"Content-Type": {"application/json"}, "Ce-Specversion": {"1.0"}, "Ce-Id": {"f-1"}, "Ce-Source": {"urn:scout:eu"}, "Ce-Type": {"finding"}}
	b, err := adapter.CloudEvent(header, structured.Data)
	if err != nil {
		t.Fatal(err)
	}
	encoded := `{"specversion":"1.0","id":"f-1","source":"urn:scout:eu","type":"finding","data_base64":"` + base64.StdEncoding.EncodeToString(structured.Data) + `"}`
	c, err := adapter.CloudEvent(json10, []byte(encoded))
	if err != nil {
		t.Fatal(err)
	}
	if a.Key() != b.Key() || b.Key() != c.Key() {
		t.Errorf("keys %s, %s, %s of one event in three modes", a.Key(), b.Key(), c.Key())
	}
	for _, e := range []adapter.Event{b, c} {
		if d, err := e.Detection(scout, window); err != nil || d.Workload.Pod != "checkout-1" {
			t.Errorf("%+v, %v", d, err)
		}
	}
}

func TestSecretsAndControlCharactersDoNotStay(t *testing.T) {
	body := strings.Replace(string(sample(t, "finding.json")), `"traceparent"`, `"note":"a\u0000\u202eb password=hunter2hunter2","traceparent"`, 1)
	d, err := translate(json10, []byte(body), scout)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := d.Unmapped["event.note"], "a\uFFFD\uFFFDb <redacted>"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestBadEventIsRefusedWithItsCode(t *testing.T) {
	good := string(sample(t, "finding.json"))
	swap := func(old, with string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("sample lacks %s", old)
		}
		return strings.ReplaceAll(good, old, with)
	}
	for name, tc := range map[string]struct {
		body  string
		from  adapter.ThirdParty
		code  adapter.Code
		field string
	}{
		"not JSON":                {"{", scout, adapter.Malformed, ""},
		"an array":                {"[]", scout, adapter.Malformed, ""},
		"two documents":           {good + good, scout, adapter.Malformed, ""},
		"not UTF-8":               {swap("f-1", "f\xff"), scout, adapter.Malformed, ""},
		"a key twice":             {swap(`"id": "f-1",`, `"id": "f-1", "id": "f-2",`), scout, adapter.Malformed, "id"},
		"deep":                    {swap(`"00-1"`, strings.Repeat("[", 40)+strings.Repeat("]", 40)), scout, adapter.TooDeep, ""},
		"large":                   {swap(`"00-1"`, `"`+strings.Repeat("x", adapter.MaxItem)+`"`), scout, adapter.TooLarge, ""},
		"another version":         {swap(`"1.0"`, `"0.3"`), scout, adapter.Unsupported, "specversion"},
		"no id":                   {swap(`"id": "f-1"`, `"id": ""`), scout, adapter.Invalid, "id"},
		"no data":                 {swap(`"data"`, `"daten"`), scout, adapter.Invalid, "data"},
		"another OCSF class":      {swap(`2004`, `3002`), scout, adapter.Unsupported, "data.class_uid"},
		"a huge class":            {swap(`2004`, `1e400`), scout, adapter.Unsupported, "data.class_uid"},
		"no technique":            {swap(`"attacks"`, `"angriffe"`), scout, adapter.Invalid, "attacks"},
		"nothing it is about":     {swap(`"resources"`, `"sachen"`), scout, adapter.Invalid, "workload, identities"},
		"a namespace that is not": {swap(`"namespace": "shop"`, `"namespace": "../.."`), scout, adapter.Invalid, "workload.cluster, workload.namespace"},
		"old":                     {swap(`1795406700123`, `1700000000000`), scout, adapter.TooOld, "time"},
		"from the future":         {swap(`1795406700123`, `1895406700123`), scout, adapter.InFuture, "time"},
	} {
		t.Run(name, func(t *testing.T) {
			body := tc.body
			if name == "nothing it is about" {
				body = strings.Replace(body, "credential_uid", "x", 1)
			}
			_, err := translate(json10, []byte(body), tc.from)
			var r *adapter.Refusal
			if !errors.As(err, &r) || r.Code != tc.code || r.Field != tc.field {
				t.Errorf("error %v, want code %s of field %q", err, tc.code, tc.field)
			}
		})
	}
	if _, err := translate(http.Header{"Content-Type": {"text/plain"}}, []byte(good), scout); err == nil {
		t.Error("text/plain was taken")
	}
}

func TestOperatorNamesTechniqueWhereTheSourceDoesNot(t *testing.T) {
	from := scout
	from.Technique, from.AttackVersion = "T1078.004", "19"
	d, err := translate(json10, []byte(strings.Replace(string(sample(t, "finding.json")), `"attacks"`, `"angriffe"`, 1)), from)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]detection.Attack{{TechniqueID: "T1078.004", Version: "19"}}, d.Attacks); diff != "" {
		t.Error(diff)
	}
}

func FuzzCloudEvent(f *testing.F) {
	f.Add("application/cloudevents+json", sample(f, "finding.json"))
	f.Add("application/json", []byte(`{"class_uid":2004}`))
	f.Add("application/cloudevents+json", []byte(`{"specversion":"1.0","id":1e999,"data":{"resources":[null,[],{"type":{}}]}}`))
	f.Fuzz(func(t *testing.T, media string, body []byte) {
		header := http.Header{"Content-Type": {media}, "Ce-Specversion": {"1.0"}, "Ce-Id": {"1"}, "Ce-Source": {"s"}, "Ce-Type": {"t"}}
		d, err := translate(header, body, scout)
		if err != nil {
			var r *adapter.Refusal
			if !errors.As(err, &r) || r.Code == "" {
				t.Fatalf("%v is not a refusal with a code", err)
			}
			return
		}
		if err := d.Validate(); err != nil {
			t.Fatalf("taken, but not valid: %v", err)
		}
		for _, id := range d.Identities {
			if id.Link != identity.Claimed {
				t.Fatalf("a third party attested %+v", id)
			}
		}
		if d.Source.Kind != detection.ThirdParty || d.Source.Name != scout.Name {
			t.Fatalf("speaks as %+v", d.Source)
		}
	})
}
