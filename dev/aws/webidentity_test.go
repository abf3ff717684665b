package aws_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"tourniquet.dev/tourniquet/dev/aws"
)

const issuer = "https://oidc.example/id/1"

// token signs claims as a cluster signs a service account's token.
func token(t *testing.T, key crypto.Signer, algorithm string, claims map[string]any) string {
	t.Helper()
	part := func(v any) string {
		raw, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(raw)
	}
	signed := part(map[string]string{"alg": algorithm, "kid": "k1"}) + "." + part(claims)
	sum := sha256.Sum256([]byte(signed))
	var signature []byte
	if private, ok := key.(*ecdsa.PrivateKey); ok {
		r, s, err := ecdsa.Sign(rand.Reader, private, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		signature = append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	} else {
		var err error
		if signature, err = key.Sign(rand.Reader, sum[:], crypto.SHA256); err != nil {
			t.Fatal(err)
		}
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func TestWebIdentity(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	w := start(t, aws.Options{Issuers: []aws.Issuer{
		{URL: issuer, Keys: map[string]crypto.PublicKey{"k1": rsaKey.Public()}},
		{URL: "https://ec.example", Keys: map[string]crypto.PublicKey{"k1": ecKey.Public()}},
	}})
	provider := "arn:aws:iam::111122223333:oidc-provider/"
	trust := `{"Effect":"Allow","Principal":{"Federated":["` + provider + `oidc.example/id/1","` + provider + `ec.example"]},"Action":"sts:AssumeRoleWithWebIdentity",
		"Condition":{"StringEqualsIfExists":{"oidc.example/id/1:sub":"system:serviceaccount:shop:cart","oidc.example/id/1:aud":"sts.amazonaws.com"}}}`
	role := w.role("cart", document(trust), allowAll)
	claims := func(edit func(map[string]any)) map[string]any {
		c := map[string]any{"iss": issuer, "sub": "system:serviceaccount:shop:cart", "aud": []string{"sts.amazonaws.com"}, "exp": w.clock.Now().Add(time.Hour).Unix()}
		if edit != nil {
			edit(c)
		}
		return c
	}
	set := func(key string, value any) map[string]any { return claims(func(c map[string]any) { c[key] = value }) }
	good := token(t, rsaKey, "RS256", claims(nil))
	assume := func(raw string) (*sts.AssumeRoleWithWebIdentityOutput, error) {
		return w.as("", "", "").sts.AssumeRoleWithWebIdentity(w.ctx(), &sts.AssumeRoleWithWebIdentityInput{RoleArn: &role, RoleSessionName: sdk.String("pod"), WebIdentityToken: &raw})
	}
	for name, tc := range map[string]struct{ token, want string }{
		"a pod's token":           {good, ""},
		"one audience as text":    {token(t, rsaKey, "RS256", set("aud", "sts.amazonaws.com")), ""},
		"an elliptic curve":       {token(t, ecKey, "ES256", set("iss", "https://ec.example")), ""},
		"another service account": {token(t, rsaKey, "RS256", set("sub", "system:serviceaccount:shop:api")), "AccessDenied"},
		"another audience":        {token(t, rsaKey, "RS256", set("aud", "vault")), "InvalidIdentityToken"},
		"another issuer":          {token(t, rsaKey, "RS256", set("iss", "https://evil.example")), "InvalidIdentityToken"},
		"another key":             {token(t, ecKey, "ES256", claims(nil)), "InvalidIdentityToken"},
		"no algorithm":            {token(t, rsaKey, "none", claims(nil)), "InvalidIdentityToken"},
		"expired":                 {token(t, rsaKey, "RS256", set("exp", w.clock.Now().Unix())), "ExpiredTokenException"},
		"torn":                    {good[:len(good)/2], "InvalidIdentityToken"},
		"no token":                {"abcd", "InvalidIdentityToken"},
	} {
		t.Run(name, func(t *testing.T) {
			w := *w
			w.t = t
			_, err := assume(tc.token)
			w.refused(err, tc.want)
		})
	}
	out, err := assume(good)
	w.ok(err)
	w.ok(w.buckets(w.session(out.Credentials)))
	cut := document(trust + `,{"Effect":"Deny","Principal":{"Federated":"` + provider + `oidc.example/id/1"},"Action":"sts:AssumeRoleWithWebIdentity","Condition":{"StringEquals":{"oidc.example/id/1:sub":"system:serviceaccount:shop:cart"}}}`)
	_, err = w.admin.iam.UpdateAssumeRolePolicy(w.ctx(), &iam.UpdateAssumeRolePolicyInput{RoleName: sdk.String("cart"), PolicyDocument: &cut})
	w.ok(err)
	_, err = assume(good)
	w.refused(err, "AccessDenied")
	w.ok(w.buckets(w.session(out.Credentials))) // the session that is out stays out
	events, err := w.lookup(w.admin, "Username", "system:serviceaccount:shop:cart")
	w.ok(err)
	if len(events) == 0 || events[0].UserIdentity.Type != "WebIdentityUser" {
		t.Errorf("got %+v", events)
	}
}
