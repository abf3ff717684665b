package aws

import (
	"context"
	"fmt"
	"io"
	"os"
	"regexp"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"

	"tourniquet.dev/tourniquet/internal/canonical"
)

// keyFile reads our own credentials from a file of mode 0600 (or 0400): a JSON object with access_key_id,
// secret_access_key and, for temporary ones, session_token. It is read again every minute, so that a rotated file is
// taken up without a restart.
type keyFile struct {
	path  string
	clock func() time.Time
}

const (
	maxKeyFile = 16 << 10
	reread     = time.Minute
)

var keyIDForm = regexp.MustCompile(`^(AKIA|ASIA)[A-Z0-9]{12,124}$`)

// Retrieve implements the SDK's provider of credentials. No error shows any content of the file.
func (f keyFile) Retrieve(context.Context) (sdk.Credentials, error) {
	file, err := os.Open(f.path)
	if err != nil {
		return sdk.Credentials{}, fmt.Errorf("aws key file: %w", err)
	}
	defer file.Close() // read only
	info, err := file.Stat()
	if err != nil {
		return sdk.Credentials{}, fmt.Errorf("aws key file: %w", err)
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 {
		return sdk.Credentials{}, fmt.Errorf("aws key file %s: mode %s is open to others, want 0600", f.path, info.Mode())
	}
	raw, err := io.ReadAll(io.LimitReader(file, maxKeyFile))
	if err != nil {
		return sdk.Credentials{}, fmt.Errorf("aws key file: %w", err)
	}
	var keys struct {
		ID      string `json:"access_key_id"`
		Secret  string `json:"secret_access_key"`
		Session string `json:"session_token"`
	}
	if err := canonical.Unmarshal(raw, &keys, maxKeyFile); err != nil || !keyIDForm.MatchString(keys.ID) || keys.Secret == "" {
		return sdk.Credentials{}, fmt.Errorf("aws key file %s: want a JSON object with access_key_id and secret_access_key", f.path)
	}
	return sdk.Credentials{AccessKeyID: keys.ID, SecretAccessKey: keys.Secret, SessionToken: keys.Session, Source: "key file",
		CanExpire: true, Expires: f.clock().Add(reread)}, nil
}
