package aws

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net/http"
	"slices"
	"strings"

	"tourniquet.dev/tourniquet/internal/blast/iampolicy"
)

// An Issuer is an OIDC identity provider of the account. AWS fetches its keys; the stand-in is given them.
type Issuer struct {
	URL       string                      // https://…, as in the token's iss
	Audiences []string                    // client ids; empty: sts.amazonaws.com
	Keys      map[string]crypto.PublicKey // by kid: *rsa.PublicKey or *ecdsa.PublicKey on P-256
}

// provider is the issuer as it stands in ARNs and condition keys.
func (i Issuer) provider() string { return strings.TrimPrefix(i.URL, "https://") }

// claims are those that the stand-in reads.
type claims struct {
	Issuer   string          `json:"iss"`
	Subject  string          `json:"sub"`
	Audience json.RawMessage `json:"aud"` // a string or a list
	Expires  float64         `json:"exp"`
	Azp      string          `json:"azp"`
}

func (c claims) audiences() []string {
	var list []string
	var one string
	if json.Unmarshal(c.Audience, &list) == nil {
		return list
	}
	if json.Unmarshal(c.Audience, &one) == nil {
		return []string{one}
	}
	return nil
}

func badToken(format string, args ...any) *failure {
	return fail(http.StatusBadRequest, "InvalidIdentityToken", format, args...)
}

// assumeRoleWithWebIdentity believes the token's signature and its time, nothing else: whether the pod or the service account
// still exists is not asked, on AWS neither.
func assumeRoleWithWebIdentity(c *call) (element, error) {
	issuer, token, err := c.webIdentity()
	if err != nil {
		return element{}, err
	}
	held, err := c.newRoleSession()
	if err != nil {
		return element{}, err
	}
	held.provider = issuer.provider()
	arn := "arn:aws:iam::" + c.server.options.Account + ":oidc-provider/" + issuer.provider()
	c.caller = &caller{who: iampolicy.Principal{Kind: iampolicy.WebIdentity, ARN: arn, ID: token.Subject}}
	role, trust := c.role()
	at := c.assumeTarget(held)
	at.keys[issuer.provider()+":sub"] = token.Subject
	at.lists[issuer.provider()+":aud"] = token.audiences()
	if failed := c.authorize("sts:AssumeRoleWithWebIdentity", at, trust); failed != nil {
		return element{}, accessDenied("Not authorized to perform sts:AssumeRoleWithWebIdentity")
	}
	out, err := c.startRoleSession(role, held)
	if err != nil {
		return element{}, err
	}
	c.answer["subjectFromWebIdentityToken"], c.answer["provider"] = token.Subject, arn
	out.children = append(out.children, txt("SubjectFromWebIdentityToken", token.Subject), txt("Provider", arn), txt("Audience", token.audiences()[0]))
	return out, nil
}

// webIdentity checks the token against the account's providers.
func (c *call) webIdentity() (Issuer, claims, error) {
	parts := strings.Split(c.form.Get("WebIdentityToken"), ".")
	if len(parts) != 3 {
		return Issuer{}, claims{}, badToken("The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)")
	}
	var head struct{ Alg, Kid string }
	var token claims
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || !decodePart(parts[0], &head) || !decodePart(parts[1], &token) {
		return Issuer{}, claims{}, badToken("The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)")
	}
	at := slices.IndexFunc(c.server.options.Issuers, func(i Issuer) bool { return i.URL == token.Issuer })
	if at < 0 {
		return Issuer{}, claims{}, badToken("No OpenIDConnect provider found in your account for %s", token.Issuer)
	}
	issuer := c.server.options.Issuers[at]
	if !verified(head.Alg, issuer.Keys[head.Kid], parts[0]+"."+parts[1], signature) {
		return Issuer{}, claims{}, badToken("Couldn't retrieve verification key from your identity provider,  please reference AssumeRoleWithWebIdentity documentation for requirements")
	}
	accepted := issuer.Audiences
	if len(accepted) == 0 {
		accepted = []string{"sts.amazonaws.com"}
	}
	switch {
	case float64(c.now.Unix()) >= token.Expires:
		return Issuer{}, claims{}, fail(http.StatusBadRequest, "ExpiredTokenException", "Token expired: current date/time %d must be before the expiration date/time %d", c.now.Unix(), int64(token.Expires))
	case !slices.ContainsFunc(token.audiences(), func(a string) bool { return slices.Contains(accepted, a) }):
		return Issuer{}, claims{}, badToken("Incorrect token audience")
	case token.Subject == "":
		return Issuer{}, claims{}, badToken("Missing a required claim: sub")
	}
	return issuer, token, nil
}

func decodePart(part string, into any) bool {
	raw, err := base64.RawURLEncoding.DecodeString(part)
	return err == nil && json.Unmarshal(raw, into) == nil
}

// verified checks an RS256 or ES256 signature; any other algorithm is refused.
func verified(algorithm string, key crypto.PublicKey, signed string, signature []byte) bool {
	sum := sha256.Sum256([]byte(signed))
	switch key := key.(type) {
	case *rsa.PublicKey:
		return algorithm == "RS256" && rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], signature) == nil
	case *ecdsa.PublicKey:
		return algorithm == "ES256" && len(signature) == 64 &&
			ecdsa.Verify(key, sum[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:]))
	}
	return false
}
