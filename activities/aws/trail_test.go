package aws

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const assumed = `{"eventVersion":"1.11","eventTime":"2026-11-22T23:40:01Z","eventName":"AssumeRole","sourceIPAddress":"198.51.100.7",` +
	`"userIdentity":{"type":"AssumedRole","accessKeyId":"ASIAABCDEFGHIJKLMNOP","sessionContext":{"sessionIssuer":{"arn":"arn:aws:iam::111122223333:role/app/shop"}}},` +
	`"requestParameters":{"roleArn":"arn:aws:iam::111122223333:role/reader"},"responseElements":{"credentials":{"accessKeyId":"ASIAZYXWVUTSRQPONMLK"}}}`

func TestReadEvent(t *testing.T) {
	at := time.Date(2026, 11, 22, 23, 40, 1, 0, time.UTC)
	for name, tc := range map[string]struct {
		body string
		want trailEvent
		ok   bool
	}{
		"a chained session": {assumed, trailEvent{Name: "AssumeRole", Time: at, SourceIP: "198.51.100.7", KeyID: "ASIAABCDEFGHIJKLMNOP",
			Minted: "ASIAZYXWVUTSRQPONMLK", RoleARN: "arn:aws:iam::111122223333:role/reader", Issuer: "arn:aws:iam::111122223333:role/app/shop"}, true},
		"what others wrote is cleaned": {`{"eventName":"x\u202e\n","eventTime":"2026-11-22T23:40:01Z","requestParameters":{"roleArn":"arn:aws:iam::1:role/<b>"},` +
			`"userIdentity":{"accessKeyId":"'; drop"}}`, trailEvent{Name: "x\uFFFD\uFFFD", Time: at}, true},
		"parameters of another shape": {`{"eventName":"x","requestParameters":[]}`, trailEvent{}, false},
		"no event":                    {`[]`, trailEvent{}, false},
		"nothing":                     {``, trailEvent{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := readEvent(tc.body)
			if diff := cmp.Diff(tc.want, got, cmp.AllowUnexported(trailEvent{})); diff != "" || ok != tc.ok {
				t.Errorf("ok %t, want %t (-want +got):\n%s", ok, tc.ok, diff)
			}
		})
	}
}

func FuzzReadEvent(f *testing.F) {
	f.Add(assumed)
	f.Add(`{"eventName":"x","responseElements":null}`)
	f.Fuzz(func(t *testing.T, body string) {
		e, ok := readEvent(body)
		if !ok {
			if e != (trailEvent{}) {
				t.Errorf("refused, and yet read %+v", e)
			}
			return
		}
		if e.Name == "" || len(e.Name) > 128+3 || len(e.SourceIP) > 128+3 || len(e.Error) > 128+3 {
			t.Errorf("unbounded: %+v", e)
		}
		for _, id := range []string{e.KeyID, e.Minted} {
			if id != "" && !keyIDForm.MatchString(id) {
				t.Errorf("key id %q", id)
			}
		}
	})
}

func TestSessionsInKeepsEachOnce(t *testing.T) {
	e, _ := readEvent(assumed)
	if got := sessionsIn([]trailEvent{e, e, {Name: "ListUsers"}}); len(got) != 1 || got[0].ParentKey != "ASIAABCDEFGHIJKLMNOP" {
		t.Errorf("%+v", got)
	}
}
