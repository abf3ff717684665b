// Package temporalclient connects a process to Temporal so that whoever runs Temporal reads nothing: payloads and failures
// are encrypted with AES-256-GCM before they leave, each bound to its namespace and workflow.
//
// It is always on; there is no option that sends clear text. It does not encrypt what Temporal indexes: workflow ids, search
// attributes, names of signals and activities. It grants no authority: a decoded payload is still only data to be judged.
// Mains call Dial; the command line and audit read histories offline with DataConverter.
package temporalclient

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	sdklog "go.temporal.io/sdk/log"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Options say where Temporal is and who connects.
type Options struct {
	Address   string // host:port
	Namespace string
	Identity  string // in the clear in every history: the role and host, no person's name
	Ring      *KeyRing
	Logger    *slog.Logger

	// CertFile and KeyFile are this process's certificate for mTLS. CAFile is what the server's certificate is checked
	// against, the system's roots if empty. ServerName is checked instead of Address's host.
	CertFile, KeyFile, CAFile, ServerName string
	// APIKeyFile holds an API key of Temporal Cloud. It implies TLS and is read again for each call, so it may be rotated.
	APIKeyFile string
	// PollAgain is how long Dial waits between attempts; 250 ms if 0.
	PollAgain time.Duration
}

// Dial connects, and waits until the server answers for the namespace or ctx ends. What a wait cannot mend (credentials,
// certificates) fails at once. The caller closes the client.
func Dial(ctx context.Context, opts Options) (client.Client, error) {
	sdkOptions, err := opts.sdk()
	if err != nil {
		return nil, fmt.Errorf("dial Temporal: %w", err)
	}
	c, err := client.NewLazyClient(sdkOptions)
	if err != nil {
		return nil, fmt.Errorf("dial Temporal: %w", err)
	}
	again := opts.PollAgain
	if again <= 0 {
		again = 250 * time.Millisecond
	}
	for {
		attempt, cancel := context.WithTimeout(ctx, 10*time.Second)
		_, err := c.WorkflowService().DescribeNamespace(attempt, &workflowservice.DescribeNamespaceRequest{Namespace: opts.Namespace})
		cancel()
		if err == nil {
			return c, nil
		}
		if final(err) || ctx.Err() != nil {
			c.Close()
			return nil, fmt.Errorf("dial Temporal at %s, namespace %s: %w", opts.Address, opts.Namespace, err)
		}
		opts.Logger.DebugContext(ctx, "Temporal is not ready", "err", err)
		select {
		case <-time.After(again):
		case <-ctx.Done():
			c.Close()
			return nil, fmt.Errorf("dial Temporal at %s, namespace %s: %w: %w", opts.Address, opts.Namespace, ctx.Err(), err)
		}
	}
}

// final says whether waiting cannot help.
func final(err error) bool {
	var denied *serviceerror.PermissionDenied
	if errors.As(err, &denied) {
		return true
	}
	if code := status.Code(err); code == codes.Unauthenticated || code == codes.PermissionDenied {
		return true
	}
	var unknown x509.UnknownAuthorityError
	var wrongName x509.HostnameError
	if errors.As(err, &unknown) || errors.As(err, &wrongName) {
		return true
	}
	// gRPC flattens what went wrong in a TLS handshake into the text of Unavailable.
	return strings.Contains(err.Error(), "tls: ") || strings.Contains(err.Error(), "x509: ")
}

func (o Options) sdk() (client.Options, error) {
	if o.Ring == nil {
		return client.Options{}, errors.New("no key ring")
	}
	if o.Address == "" || o.Namespace == "" || o.Identity == "" || o.Logger == nil {
		return client.Options{}, errors.New("want address, namespace, identity and logger")
	}
	out := client.Options{
		HostPort:         o.Address,
		Namespace:        o.Namespace,
		Identity:         o.Identity,
		Logger:           Logger(o.Logger),
		DataConverter:    BoundDataConverter(o.Ring),
		FailureConverter: FailureConverter(o.Ring),
	}
	tlsConfig, err := o.tls()
	if err != nil {
		return client.Options{}, err
	}
	out.ConnectionOptions.TLS = tlsConfig
	if o.APIKeyFile != "" {
		if _, err := readAPIKey(o.APIKeyFile); err != nil {
			return client.Options{}, err
		}
		out.Credentials = client.NewAPIKeyDynamicCredentials(func(context.Context) (string, error) { return readAPIKey(o.APIKeyFile) })
	}
	return out, nil
}

// tls returns nil when nothing asks for TLS.
func (o Options) tls() (*tls.Config, error) {
	if o.CertFile == "" && o.KeyFile == "" && o.CAFile == "" && o.ServerName == "" && o.APIKeyFile == "" {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: o.ServerName}
	if o.CertFile != "" || o.KeyFile != "" {
		pair, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("client certificate: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("server's CA: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("server's CA: no certificate in %s", o.CAFile)
		}
	}
	return config, nil
}

func readAPIKey(path string) (string, error) {
	data, err := os.ReadFile(path) // #nosec G304 -- the path is the operator's own configuration
	if err != nil {
		return "", fmt.Errorf("API key: %w", err)
	}
	key := strings.TrimSpace(string(data))
	if key == "" {
		return "", fmt.Errorf("API key: %s is empty", path)
	}
	return key, nil
}

// Logger lets the SDK log through ours.
func Logger(l *slog.Logger) sdklog.Logger { return sdklog.NewStructuredLogger(l) }
