package aws

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"tourniquet.dev/tourniquet/internal/blast/iampolicy"
)

const (
	algorithm  = "AWS4-HMAC-SHA256"
	signedTime = "20060102T150405Z"
	maxSkew    = 15 * time.Minute
)

// signature is an Authorization header taken apart.
type signature struct {
	keyID, day, region, service string
	headers                     []string
}

func parseSignature(header string) (signature, bool) {
	rest, ok := strings.CutPrefix(header, algorithm+" ")
	if !ok {
		return signature{}, false
	}
	fields := map[string]string{}
	for part := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		fields[name] = value
	}
	credential := strings.Split(fields["Credential"], "/")
	if len(credential) != 5 || credential[4] != "aws4_request" || fields["Signature"] == "" || fields["SignedHeaders"] == "" {
		return signature{}, false
	}
	return signature{
		keyID: credential[0], day: credential[1], region: credential[2], service: credential[3],
		headers: strings.Split(fields["SignedHeaders"], ";"),
	}, true
}

func scope(header string) (region, service string) {
	s, _ := parseSignature(header)
	return s.region, s.service
}

// session is a set of temporary credentials. They cannot be revoked: only what stands behind them can change.
type session struct {
	keyID, secret, token string
	kind                 iampolicy.PrincipalKind // RoleSession, User (GetSessionToken), FederatedUser or Root
	owner, ownerID       string                  // the entity behind it: its key and its unique id
	name                 string                  // of the session, or of the federated user
	issued, expires      time.Time
	policies             []iampolicy.Policy
	tags                 map[string]string
	transitive           []string // keys of the tags that go along a chain
	sourceIdentity       string
	mfa                  bool
	provider             string // of a web identity
}

// authenticate finds the caller, or the reason not to believe it. Keys and entities are those that authorization sees by now.
func (c *call) authenticate() *failure {
	signed, ok := parseSignature(c.request.Header.Get("Authorization"))
	if !ok {
		return fail(http.StatusBadRequest, "IncompleteSignature", "Authorization header requires 'Credential', 'Signature' and 'SignedHeaders'.")
	}
	credentials, found := c.credentials(signed.keyID)
	if !found || c.caller == nil || credentials.SessionToken != c.request.Header.Get("X-Amz-Security-Token") {
		c.caller = nil
		return errUnknownKey
	}
	if failed := c.checkSignature(signed, credentials); failed != nil {
		c.caller = nil
		return failed
	}
	if c.caller.session != nil && !c.now.Before(c.caller.session.expires) {
		return errExpired
	}
	return nil
}

// credentials looks a key up and sets the caller that it stands for.
func (c *call) credentials(keyID string) (sdk.Credentials, bool) {
	s := c.server
	if held, ok := s.sessions[keyID]; ok {
		c.caller = s.sessionCaller(held)
		return sdk.Credentials{AccessKeyID: keyID, SecretAccessKey: held.secret, SessionToken: held.token}, true
	}
	key, ok := s.state.keys.seen[keyID]
	if !ok || !key.active {
		return sdk.Credentials{}, false
	}
	if key.owner == string(iampolicy.Root) {
		c.caller = &caller{keyID: keyID, who: s.rootUser()}
	} else if owner, ok := s.state.entities.seen[key.owner]; ok {
		c.caller = &caller{keyID: keyID, entity: owner, who: s.userPrincipal(owner)}
	}
	return sdk.Credentials{AccessKeyID: keyID, SecretAccessKey: key.secret}, true
}

func (s *Server) rootUser() iampolicy.Principal {
	return iampolicy.Principal{Kind: iampolicy.Root, Account: s.options.Account, ARN: "arn:aws:iam::" + s.options.Account + ":root", ID: s.options.Account}
}

func (s *Server) userPrincipal(e *entity) iampolicy.Principal {
	return iampolicy.Principal{Kind: iampolicy.User, Account: s.options.Account, ARN: e.arn, ID: e.id}
}

// sessionCaller is who a session acts as; nil where what stood behind it was deleted, or made anew under the same name.
func (s *Server) sessionCaller(held *session) *caller {
	if held.kind == iampolicy.Root {
		return &caller{keyID: held.keyID, who: s.rootUser(), session: held}
	}
	owner, ok := s.state.entities.seen[held.owner]
	if !ok || owner.id != held.ownerID {
		return nil
	}
	who := s.userPrincipal(owner)
	sts := "arn:aws:sts::" + s.options.Account
	switch held.kind {
	case iampolicy.RoleSession:
		who = iampolicy.Principal{Kind: held.kind, Account: s.options.Account, ARN: sts + ":assumed-role/" + owner.name + "/" + held.name, RoleARN: owner.arn, ID: owner.id + ":" + held.name}
	case iampolicy.FederatedUser:
		who = iampolicy.Principal{Kind: held.kind, Account: s.options.Account, ARN: sts + ":federated-user/" + held.name, UserARN: owner.arn, ID: s.options.Account + ":" + held.name}
	}
	return &caller{keyID: held.keyID, who: who, entity: owner, session: held}
}

// checkSignature signs the request again with the SDK's own signer and compares.
func (c *call) checkSignature(signed signature, credentials sdk.Credentials) *failure {
	at, err := time.Parse(signedTime, c.request.Header.Get("X-Amz-Date"))
	if err != nil || at.Format("20060102") != signed.day {
		return fail(http.StatusBadRequest, "IncompleteSignature", "Date must be in ISO-8601 'basic format' and in the credential scope.")
	}
	if skew := c.now.Sub(at); skew > maxSkew || skew < -maxSkew {
		return fail(http.StatusForbidden, "SignatureDoesNotMatch", "Signature expired: %s is not within 15 min of %s", at.Format(signedTime), c.now.Format(signedTime))
	}
	again := c.request.Clone(c.request.Context())
	again.URL.Scheme, again.URL.Host = "http", c.request.Host
	again.Header = http.Header{}
	again.ContentLength = 0
	for _, name := range signed.headers {
		switch name {
		case "host":
		case "content-length":
			again.ContentLength = int64(len(c.body))
		default:
			again.Header[http.CanonicalHeaderKey(name)] = slices.Clone(c.request.Header[http.CanonicalHeaderKey(name)])
		}
	}
	sum := sha256.Sum256(c.body)
	hash := hex.EncodeToString(sum[:])
	err = c.server.signer.SignHTTP(c.request.Context(), credentials, again, hash, signed.service, signed.region, at, func(o *v4.SignerOptions) {
		o.DisableURIPathEscaping = signed.service == "s3"
	})
	want, got := again.Header.Get("Authorization"), c.request.Header.Get("Authorization")
	if err != nil || subtle.ConstantTimeCompare([]byte(want), []byte(got)) != 1 {
		return errBadSignature
	}
	return nil
}

// tags are the principal tags of the caller: the entity's, and over them the session's.
func (c *caller) tags() map[string]string {
	out := map[string]string{}
	if c.entity != nil {
		maps.Copy(out, c.entity.tags)
	}
	if c.session != nil {
		maps.Copy(out, c.session.tags)
	}
	return out
}
