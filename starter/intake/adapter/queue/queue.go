// Package queue takes the messages of an SQS queue. A message is deleted only after whoever takes it says that it is safe;
// one that could not be taken comes back after a while. It is the one place where intake links a client of AWS, and it asks
// for nothing but receiving, deleting and putting back.
package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"tourniquet.dev/tourniquet/internal/canonical"
	"tourniquet.dev/tourniquet/internal/sys/keys"
)

// Options is what a Poller needs.
type Options struct {
	URL, Region string
	Endpoint    string // empty: AWS's own
	Credentials string // file of mode 0600: access_key_id, secret_access_key, session_token
	// Take returns nil when the message is safe, or lies in the dead letters: then it is deleted.
	Take func(ctx context.Context, body []byte) error
	Log  *slog.Logger
}

const (
	wait       = 20 * time.Second // of a receive without a message
	visibility = 60 * time.Second // for Take and the delete
	comesBack  = 5 * time.Second  // the first time; longer each time
	latest     = 10 * time.Minute
	pause      = 2 * time.Second // after an error
	batch      = 10
)

// Poller receives from one queue.
type Poller struct {
	o      Options
	client *sqs.Client
}

// New returns a Poller. It calls nothing.
func New(o Options) *Poller {
	options := sqs.Options{Region: o.Region, Credentials: sdk.NewCredentialsCache(sdk.CredentialsProviderFunc(func(context.Context) (sdk.Credentials, error) { return credentials(o.Credentials) }))}
	if o.Endpoint != "" {
		options.BaseEndpoint = &o.Endpoint
	}
	return &Poller{o, sqs.New(options)}
}

// credentials reads the file again each minute, so that rotated ones are taken up. No error shows its content.
func credentials(path string) (sdk.Credentials, error) {
	text, err := keys.LoadText(path)
	if err != nil {
		return sdk.Credentials{}, fmt.Errorf("queue credentials: %w", err)
	}
	var in struct {
		ID      string `json:"access_key_id"`
		Secret  string `json:"secret_access_key"`
		Session string `json:"session_token"`
	}
	if err := canonical.Unmarshal([]byte(text), &in, 16<<10); err != nil || in.ID == "" || in.Secret == "" {
		return sdk.Credentials{}, fmt.Errorf("queue credentials %s: want a JSON object with access_key_id and secret_access_key", path)
	}
	return sdk.Credentials{AccessKeyID: in.ID, SecretAccessKey: in.Secret, SessionToken: in.Session, Source: "key file", CanExpire: true, Expires: time.Now().Add(time.Minute)}, nil
}

// Run works until ctx is done, which is no error. An error of AWS is no reason to end: the messages wait there.
func (p *Poller) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := p.Once(ctx); err != nil && ctx.Err() == nil {
			p.o.Log.Warn("queue not read, tried again", "pause", pause, "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
		}
	}
	return nil
}

// Once receives one batch and takes it.
func (p *Poller) Once(ctx context.Context) error {
	out, err := p.client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: &p.o.URL, MaxNumberOfMessages: batch,
		WaitTimeSeconds: int32(wait / time.Second), VisibilityTimeout: int32(visibility / time.Second),
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameApproximateReceiveCount}})
	if err != nil {
		return fmt.Errorf("receive from queue: %w", err)
	}
	var errs []error
	for _, m := range out.Messages {
		errs = append(errs, p.take(ctx, m))
	}
	return errors.Join(errs...)
}

func (p *Poller) take(ctx context.Context, m types.Message) error {
	reason := p.o.Take(ctx, []byte(sdk.ToString(m.Body)))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if reason == nil {
		if _, err := p.client.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: &p.o.URL, ReceiptHandle: m.ReceiptHandle}); err != nil {
			return fmt.Errorf("delete from queue: %w", err) // it comes again, and is known then
		}
		return nil
	}
	count, err := strconv.Atoi(m.Attributes[string(types.MessageSystemAttributeNameApproximateReceiveCount)])
	if err != nil {
		count = 1
	}
	back := min(comesBack*time.Duration(min(max(count, 1), 120)), latest)
	p.o.Log.Warn("message stays in the queue", "back", back, "err", reason)
	if _, err := p.client.ChangeMessageVisibility(ctx, &sqs.ChangeMessageVisibilityInput{QueueUrl: &p.o.URL, ReceiptHandle: m.ReceiptHandle,
		VisibilityTimeout: int32(back / time.Second)}); err != nil { // #nosec G115 -- at most latest
		return fmt.Errorf("put back into queue: %w", err)
	}
	return nil
}
