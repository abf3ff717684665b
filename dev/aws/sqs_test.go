package aws_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"

	"tourniquet.dev/tourniquet/dev/aws"
	"tourniquet.dev/tourniquet/starter/intake/adapter/queue"
)

const events = "events"

// queueWorld is a stand-in with a queue, its administrator's key and the unmodified client.
func queueWorld(t *testing.T) (*world, aws.AccessKey, func(id, secret string) *sqs.Client) {
	w := start(t, aws.Options{})
	key, err := w.server.SeedAdmin("queue-admin", aws.AccessKey{})
	if err != nil {
		t.Fatal(err)
	}
	return w, key, func(id, secret string) *sqs.Client {
		return sqs.New(sqs.Options{Region: "eu-central-1", BaseEndpoint: &w.url, Credentials: credentials.NewStaticCredentialsProvider(id, secret, ""), RetryMaxAttempts: 1})
	}
}

func enqueue(t *testing.T, w *world, body string, duplicates int) {
	t.Helper()
	if err := w.server.Enqueue(events, body, duplicates); err != nil {
		t.Fatal(err)
	}
}

func receive(t *testing.T, c *sqs.Client, url string) []types.Message {
	t.Helper()
	out, err := c.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &url, MaxNumberOfMessages: 10, VisibilityTimeout: 30})
	if err != nil {
		t.Fatal(err)
	}
	return out.Messages
}

func TestQueueHidesUntilDeleted(t *testing.T) {
	w, key, client := queueWorld(t)
	enqueue(t, w, `{"a":1}`, 0)
	c := client(key.ID, key.Secret)
	found, err := c.GetQueueUrl(t.Context(), &sqs.GetQueueUrlInput{QueueName: sdk.String(events)})
	if err != nil {
		t.Fatal(err)
	}
	url := *found.QueueUrl
	first := receive(t, c, url)
	if len(first) != 1 || *first[0].Body != `{"a":1}` || len(receive(t, c, url)) != 0 {
		t.Fatalf("%+v, and again while it is hidden", first)
	}
	attributes, err := c.GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{QueueUrl: &url, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameAll}})
	if err != nil || attributes.Attributes["ApproximateNumberOfMessagesNotVisible"] != "1" {
		t.Errorf("%v, %v", attributes, err)
	}
	w.clock.advance(31 * time.Second)
	second := receive(t, c, url)
	if len(second) != 1 {
		t.Fatal("it did not come back")
	}
	if _, err := c.DeleteMessage(t.Context(), &sqs.DeleteMessageInput{QueueUrl: &url, ReceiptHandle: first[0].ReceiptHandle}); err != nil || w.server.Queued(events) != 1 {
		t.Errorf("an old receipt: %v, %d left", err, w.server.Queued(events))
	}
	if _, err := c.ChangeMessageVisibility(t.Context(), &sqs.ChangeMessageVisibilityInput{QueueUrl: &url, ReceiptHandle: second[0].ReceiptHandle, VisibilityTimeout: 0}); err != nil {
		t.Fatal(err)
	}
	third := receive(t, c, url)
	if len(third) != 1 {
		t.Fatal("it was put back and is not there")
	}
	if _, err := c.DeleteMessage(t.Context(), &sqs.DeleteMessageInput{QueueUrl: &url, ReceiptHandle: third[0].ReceiptHandle}); err != nil || w.server.Queued(events) != 0 {
		t.Errorf("%v, %d left", err, w.server.Queued(events))
	}
}

func TestQueueAsksForTheRightAndTheSignature(t *testing.T) {
	w, key, client := queueWorld(t)
	enqueue(t, w, "x", 0)
	url := w.url + "/" + account + "/" + events
	code := func(c *sqs.Client, url string) string {
		_, err := c.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &url})
		var answer smithy.APIError
		if !errors.As(err, &answer) {
			return "none"
		}
		return answer.ErrorCode()
	}
	if _, err := w.admin.iam.CreateUser(t.Context(), &iam.CreateUserInput{UserName: sdk.String("nobody")}); err != nil {
		t.Fatal(err)
	}
	made, err := w.admin.iam.CreateAccessKey(t.Context(), &iam.CreateAccessKeyInput{UserName: sdk.String("nobody")})
	if err != nil {
		t.Fatal(err)
	}
	w.server.Settle()
	if got := code(client(*made.AccessKey.AccessKeyId, *made.AccessKey.SecretAccessKey), url); !strings.Contains(got, "AccessDenied") {
		t.Errorf("without a policy: %s", got)
	}
	if got := code(client(key.ID, "not-the-secret-of-that-key"), url); got != "InvalidSignatureException" {
		t.Errorf("another secret: %s", got)
	}
	if got := code(client(key.ID, key.Secret), url+"-2"); !strings.Contains(got, "QueueDoesNotExist") {
		t.Errorf("no such queue: %s", got)
	}
}

func TestOperatorPutsEventsIntoAQueue(t *testing.T) {
	w, _, _ := queueWorld(t)
	door := httptest.NewServer(w.server.AdminHandler())
	defer door.Close()
	response, err := http.Post(door.URL+"/queues/"+events+"?duplicates=2", "application/json", strings.NewReader(`{"detail-type":"GuardDuty Finding"}`))
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK || w.server.Queued(events) != 1 {
		t.Errorf("status %d, %d queued", response.StatusCode, w.server.Queued(events))
	}
}

// A message goes only when whoever takes it has it; a duplicate of one that is gone comes all the same.
func TestPollerDeletesAfterAcceptance(t *testing.T) {
	w, key, _ := queueWorld(t)
	path := filepath.Join(t.TempDir(), "keys.json")
	if err := os.WriteFile(path, []byte(`{"access_key_id":"`+key.ID+`","secret_access_key":"`+key.Secret+`"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	enqueue(t, w, "good", 1)
	enqueue(t, w, "later", 0)
	taken, full := map[string]int{}, true
	p := queue.New(queue.Options{URL: w.url + "/" + account + "/" + events, Region: "eu-central-1", Endpoint: w.url, Credentials: path, Log: slog.New(slog.DiscardHandler),
		Take: func(_ context.Context, body []byte) error {
			if string(body) == "later" && full {
				return errors.New("the spool is full")
			}
			if w.server.Queued(events) == 0 {
				t.Error("deleted before it was taken")
			}
			taken[string(body)]++
			return nil
		}})
	once := func() {
		t.Helper()
		if err := p.Once(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	once()
	if taken["good"] == 0 || taken["later"] != 0 {
		t.Fatalf("taken %v", taken)
	}
	once()
	if left := w.server.Queued(events); left != 1 || taken["good"] != 2 {
		t.Fatalf("%d left, taken %v: a duplicate, and the one that was not taken", left, taken)
	}
	full = false
	w.clock.advance(10 * time.Second)
	once()
	if left := w.server.Queued(events); left != 0 || taken["later"] != 1 {
		t.Errorf("%d left, taken %v", left, taken)
	}
}
