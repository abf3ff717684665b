package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"tourniquet.dev/tourniquet/starter/intake/adapter"
	"tourniquet.dev/tourniquet/starter/intake/intaketest"
)

// trail is a queue's source, and watched returns the bench with its account, a key and a network known for long.
var trail = adapter.ThirdParty{Name: "scout", Kind: adapter.AWS, Attests: true, Learn: 24 * time.Hour}

func call(id, region, address string) []byte {
	return []byte(`{"version":"0","detail-type":"AWS API Call via CloudTrail","detail":{"eventID":"` + id + `","eventName":"InvokeModel","eventSource":"bedrock.amazonaws.com",` +
		`"eventTime":"2026-11-23T04:05:01Z","awsRegion":"` + region + `","sourceIPAddress":"` + address + `","userAgent":"Boto3/1.40","userIdentity":{"type":"IAMUser",` +
		`"arn":"arn:aws:iam::111122223333:user/ci","accountId":"111122223333","accessKeyId":"AKIAEXAMPLE000000001"}}}`)
}

func watched(t *testing.T) *bench {
	t.Helper()
	b := newBench(t)
	b.server.now = func() time.Time { return intaketest.Now.Add(-48 * time.Hour) }
	if err := b.server.takeQueued(t.Context(), call("0", "us-east-1", "198.51.100.7"), trail); err != nil {
		t.Fatal(err)
	}
	if len(b.spool.held) != 0 {
		t.Fatal("a detection while learning")
	}
	b.server.now = func() time.Time { return intaketest.Now }
	return b
}

func TestWhatIsNewIsToldOnceAndAfterLearning(t *testing.T) {
	b := watched(t)
	for id, wanted := range [][3]string{{"us-east-1", "198.51.100.8", ""}, {"eu-north-1", "198.51.100.8", "cloudtrail/model-new-region"},
		{"eu-north-1", "198.51.100.9", ""}, {"us-east-1", "203.0.113.1", "cloudtrail/key-new-network"}, {"us-east-1", "203.0.113.2", ""}} {
		before := len(b.spool.held)
		if err := b.server.takeQueued(t.Context(), call(string(rune('a'+id)), wanted[0], wanted[1]), trail); err != nil {
			t.Fatal(err)
		}
		told := ""
		if len(b.spool.held) > before {
			told = b.last(t).Rule
		}
		if told != wanted[2] {
			t.Errorf("%v: told %q", wanted, told)
		}
	}
}

// What a full spool refused stays in the queue, and is as new when it comes again.
func TestRefusedMessageIsNotLearned(t *testing.T) {
	b := watched(t)
	news := call("n", "eu-north-1", "198.51.100.7")
	b.spool.room = 0
	if err := b.server.takeQueued(t.Context(), news, trail); err == nil {
		t.Fatal("taken without room: the queue would delete it")
	}
	b.spool.room = 10
	for range 2 { // SQS delivers at least once
		if err := b.server.takeQueued(t.Context(), news, trail); err != nil {
			t.Fatal(err)
		}
	}
	if len(b.spool.held) != 1 || b.last(t).Rule != "cloudtrail/model-new-region" {
		t.Errorf("%d held", len(b.spool.held))
	}
}

func TestPoisonInAQueueIsKeptOnceAndThenStays(t *testing.T) {
	b := watched(t)
	for range 3 {
		for _, poison := range []string{"{", `{"detail-type":"Something Else","detail":{}}`, ""} {
			if err := b.server.takeQueued(t.Context(), []byte(poison), trail); err != nil {
				t.Errorf("%q would come for ever: %v", poison, err)
			}
		}
	}
	if n := b.server.dead.Len(); n != 3 {
		t.Errorf("%d dead letters, want 3", n)
	}
	for n := range 40 {
		err := b.server.takeQueued(t.Context(), []byte(strings.Repeat("x", 200<<10)+string(rune('a'+n))), trail)
		if err != nil && !errors.Is(err, errNotKept) {
			t.Fatal(err)
		}
		if err != nil {
			return // no room: it stays in the queue
		}
	}
	t.Error("more dead letters than there is room for")
}
