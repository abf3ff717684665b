package iampolicy_test

import (
	"errors"
	"strings"
	"testing"

	"tourniquet.dev/tourniquet/internal/blast/iampolicy"
)

func TestParseRefuses(t *testing.T) {
	for name, tc := range map[string]struct{ document, want string }{
		"no JSON":             {`x`, "read JSON"},
		"a torn document":     {`{"Statement":[`, "read JSON"},
		"no statement":        {`{"Version":"2012-10-17"}`, "no statement"},
		"another version":     {`{"Version":"2013-01-01","Statement":[]}`, "unknown version"},
		"duplicate keys":      {`{"Statement":{"Effect":"Deny","Effect":"Allow","Action":"*"}}`, "duplicate key"},
		"another case":        {`{"Statement":{"effect":"Allow","Action":"*"}}`, "unknown element"},
		"bytes behind":        {`{"Statement":{"Effect":"Allow","Action":"*"}} {}`, "bytes after"},
		"both lists":          {`{"Statement":{"Effect":"Allow","Action":"*","NotAction":"*"}}`, "one of Action"},
		"neither list":        {`{"Statement":{"Effect":"Allow"}}`, "one of Action"},
		"a wrong effect":      {`{"Statement":{"Effect":"allow","Action":"*"}}`, "effect"},
		"a wrong type":        {`{"Statement":{"Effect":"Allow","Action":{"a":1}}}`, "Action"},
		"a kind of principal": {`{"Statement":{"Effect":"Allow","Action":"*","Principal":{"GCP":"x"}}}`, "unknown kind"},
		"nested without end":  {`{"Statement":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`, "nested"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := iampolicy.Parse([]byte(tc.document))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
	if _, err := iampolicy.Parse(make([]byte, iampolicy.MaxBytes+1)); !errors.Is(err, iampolicy.ErrTooLarge) {
		t.Errorf("got %v, want ErrTooLarge", err)
	}
}

func TestCheck(t *testing.T) {
	for name, tc := range map[string]struct {
		place     iampolicy.Place
		statement string
		want      string
	}{
		"identity":               {iampolicy.IdentityPlace, allowAll, ""},
		"identity of someone":    {iampolicy.IdentityPlace, `{"Effect":"Allow","Action":"*","Resource":"*","Principal":"*"}`, "principal"},
		"identity of nothing":    {iampolicy.IdentityPlace, `{"Effect":"Allow","Action":"*"}`, "resources"},
		"action without vendor":  {iampolicy.IdentityPlace, `{"Effect":"Allow","Action":"GetObject","Resource":"*"}`, "vendor"},
		"resource without arn":   {iampolicy.IdentityPlace, `{"Effect":"Allow","Action":"*","Resource":"bucket"}`, "ARN"},
		"unknown operator":       {iampolicy.IdentityPlace, `{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"Is":{"a":"b"}}}`, "operator"},
		"sid":                    {iampolicy.IdentityPlace, `{"Sid":"a b","Effect":"Allow","Action":"*","Resource":"*"}`, "alpha-numeric"},
		"same sid twice":         {iampolicy.IdentityPlace, `{"Sid":"a","Effect":"Allow","Action":"*","Resource":"*"},{"Sid":"a","Effect":"Allow","Action":"*","Resource":"*"}`, "unique"},
		"trust":                  {iampolicy.TrustPlace, `{"Effect":"Allow","Principal":{"AWS":"` + account + `"},"Action":"sts:AssumeRole"}`, ""},
		"trust with a resource":  {iampolicy.TrustPlace, `{"Effect":"Allow","Principal":"*","Action":"sts:AssumeRole","Resource":"*"}`, "Resource"},
		"trust of nobody":        {iampolicy.TrustPlace, `{"Effect":"Allow","Action":"sts:AssumeRole"}`, "Principal"},
		"trust in other actions": {iampolicy.TrustPlace, `{"Effect":"Allow","Principal":"*","Action":"s3:GetObject"}`, "STS"},
	} {
		t.Run(name, func(t *testing.T) {
			document, err := iampolicy.Parse([]byte(`{"Version":"2012-10-17","Statement":[` + tc.statement + `]}`))
			if err != nil {
				t.Fatal(err)
			}
			err = document.Check(tc.place)
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

// FuzzParse wants of every document: no panic, and a document that was read never answers outside its bounds nor against an
// explicit deny beside it.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		allowAll, denyAll, revokeOlder,
		`{"Effect":"Allow","NotAction":["iam:*"],"NotResource":"arn:aws:s3:::${aws:username,'x'}/${*}"}`,
		`{"Effect":"Deny","NotPrincipal":{"AWS":["a","b"],"Federated":"c"},"Action":"*","Condition":{"ForAllValues:StringNotLikeIfExists":{"aws:TagKeys":["a*",true,1]}}}`,
		`{"Effect":"Allow","Principal":"*","Action":"sts:*","Condition":{"NotIpAddress":{"aws:SourceIp":"::/0"},"NumericLessThan":{"a":"1.5"}}}`,
	} {
		f.Add([]byte(`{"Version":"2012-10-17","Statement":` + seed + `}`))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		policy := iampolicy.Read("fuzz", raw)
		request := iampolicy.Request{Principal: userAlice, Action: "s3:GetObject", Resource: bucket, Context: iampolicy.NewContext(map[string]string{"aws:username": "alice"})}
		set := iampolicy.PolicySet{Identity: []iampolicy.Policy{policy}, Resource: []iampolicy.Policy{policy}}
		decision := iampolicy.Evaluate(request, set)
		if decision.Allowed() && !decision.Possible() {
			t.Errorf("allowed but not possible: %+v", decision)
		}
		if policy.Err != nil && decision.Decided() {
			t.Errorf("unreadable but decided: %+v", decision)
		}
		set.Identity = append(set.Identity, read(denyAll)...)
		if d := iampolicy.Evaluate(request, set); d.Possible() {
			t.Errorf("possible beside an explicit deny: %+v", d)
		}
	})
}
