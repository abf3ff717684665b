package aws

import (
	"crypto/md5" // #nosec G501 -- the protocol's checksum of a message
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// A message waits in a queue until somebody who received it deletes it.
type message struct {
	id, body string
	sent     time.Time
	visible  time.Time // from then on it can be received
	received int
	again    int // so often it is delivered without being hidden: SQS delivers at least once
}

// maxMessages bounds a queue.
const maxMessages = 10_000

// Enqueue puts a body, such as an event of EventBridge, into a queue, which is made if missing. It is delivered duplicates
// times more than once, whatever the receiver does in between.
func (s *Server) Enqueue(queue, body string, duplicates int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !namePattern.MatchString(queue) || len(s.queues[queue]) >= maxMessages || len(body) > maxBody {
		return fail(http.StatusBadRequest, "InvalidParameterValue", "queue %q, or its messages, or the body are not possible", queue)
	}
	s.queues[queue] = append(s.queues[queue], &message{id: newUUID(), body: body, sent: s.now(), again: duplicates})
	close(s.enqueued)
	s.enqueued = make(chan struct{})
	return nil
}

// Queued returns how many messages a queue holds, hidden ones too.
func (s *Server) Queued(queue string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queues[queue])
}

type queueInput struct {
	QueueName, QueueUrl, ReceiptHandle string //nolint:revive // names of the protocol
	MaxNumberOfMessages                int
	VisibilityTimeout, WaitTimeSeconds *int
}

func (c *call) queue() (queueInput, string) {
	var in queueInput
	if json.Unmarshal(c.body, &in) != nil {
		return in, ""
	}
	if in.QueueName != "" {
		return in, in.QueueName
	}
	return in, in.QueueUrl[strings.LastIndexByte(in.QueueUrl, '/')+1:]
}

func queueOperations() map[string]operation {
	at := func(c *call) target {
		_, name := c.queue()
		return target{resource: "arn:aws:sqs:" + c.region + ":" + c.server.options.Account + ":" + name}
	}
	out := map[string]operation{}
	for name, run := range map[string]func(*call, queueInput, string) (any, error){
		"GetQueueUrl": getQueueURL, "GetQueueAttributes": getQueueAttributes, "ReceiveMessage": receiveMessage,
		"DeleteMessage": deleteMessage, "ChangeMessageVisibility": changeVisibility,
	} {
		out["sqs:"+name] = operation{readOnly: strings.HasPrefix(name, "Get"), target: at, json: func(c *call) (any, error) {
			in, queue := c.queue()
			if _, ok := c.server.queues[queue]; !ok {
				return nil, fail(http.StatusBadRequest, "com.amazonaws.sqs#QueueDoesNotExist", "The specified queue does not exist.")
			}
			return run(c, in, queue)
		}}
	}
	return out
}

func getQueueURL(c *call, _ queueInput, queue string) (any, error) {
	return map[string]string{"QueueUrl": "http://" + c.request.Host + "/" + c.server.options.Account + "/" + queue}, nil
}

func getQueueAttributes(c *call, _ queueInput, queue string) (any, error) {
	hidden := 0
	for _, m := range c.server.queues[queue] {
		if c.now.Before(m.visible) {
			hidden++
		}
	}
	return map[string]any{"Attributes": map[string]string{
		"ApproximateNumberOfMessages":           strconv.Itoa(len(c.server.queues[queue]) - hidden),
		"ApproximateNumberOfMessagesNotVisible": strconv.Itoa(hidden), "VisibilityTimeout": "30",
		"QueueArn": "arn:aws:sqs:" + c.region + ":" + c.server.options.Account + ":" + queue,
	}}, nil
}

func receiveMessage(c *call, in queueInput, queue string) (any, error) {
	hide := 30
	if in.VisibilityTimeout != nil {
		hide = *in.VisibilityTimeout
	}
	out := []map[string]any{}
	kept := c.server.queues[queue][:0:0]
	for _, m := range c.server.queues[queue] {
		if len(out) == min(max(in.MaxNumberOfMessages, 1), 10) || c.now.Before(m.visible) {
			kept = append(kept, m)
			continue
		}
		m.received++
		kept = append(kept, m)
		if m.again > 0 { // deleting this delivery leaves the other one
			m.again--
			twin := *m
			twin.id, twin.visible = m.id, c.now
			kept = append(kept, &twin)
		}
		m.visible = c.now.Add(time.Duration(hide) * time.Second)
		sum := md5.Sum([]byte(m.body)) // #nosec G401 -- the protocol's checksum
		out = append(out, map[string]any{"MessageId": m.id, "Body": m.body, "MD5OfBody": hex.EncodeToString(sum[:]),
			"ReceiptHandle": m.id + "#" + strconv.Itoa(m.received),
			"Attributes":    map[string]string{"ApproximateReceiveCount": strconv.Itoa(m.received), "SentTimestamp": strconv.FormatInt(m.sent.UnixMilli(), 10)}})
	}
	c.server.queues[queue] = kept
	c.found = len(out)
	return map[string]any{"Messages": out}, nil
}

// held finds the message that a receipt handle of the caller's stands for.
func (c *call) held(queue, handle string) (int, error) {
	for n, m := range c.server.queues[queue] {
		if handle == m.id+"#"+strconv.Itoa(m.received) {
			return n, nil
		}
	}
	id, _, _ := strings.Cut(handle, "#")
	if len(id) != len(newUUID()) {
		return -1, fail(http.StatusBadRequest, "com.amazonaws.sqs#ReceiptHandleIsInvalid", "The specified receipt handle isn't valid.")
	}
	return -1, nil // deleted already, or received by somebody else since: SQS answers as if it had worked
}

func deleteMessage(c *call, in queueInput, queue string) (any, error) {
	n, err := c.held(queue, in.ReceiptHandle)
	if n >= 0 {
		all := c.server.queues[queue]
		c.server.queues[queue] = append(all[:n:n], all[n+1:]...)
	}
	return map[string]any{}, err
}

func changeVisibility(c *call, in queueInput, queue string) (any, error) {
	n, err := c.held(queue, in.ReceiptHandle)
	if n >= 0 && in.VisibilityTimeout != nil {
		c.server.queues[queue][n].visible = c.now.Add(time.Duration(*in.VisibilityTimeout) * time.Second)
	}
	return map[string]any{}, err
}

// await holds a long poll until something is put into a queue; false when there is nothing to wait for, or no time.
func (s *Server) await(c *call, until time.Time) bool {
	in, _ := c.queue()
	if c.service != "sqs" || c.action != "ReceiveMessage" || !c.applied || c.found > 0 || in.WaitTimeSeconds == nil {
		return false
	}
	left := min(time.Until(until.Add(time.Duration(*in.WaitTimeSeconds)*time.Second)), 20*time.Second)
	if left <= 0 {
		return false
	}
	timer := time.NewTimer(min(left, time.Second)) // a hidden message comes back without a word
	defer timer.Stop()
	select {
	case <-c.enqueued:
	case <-timer.C:
	case <-c.request.Context().Done():
		return false
	}
	return true
}
