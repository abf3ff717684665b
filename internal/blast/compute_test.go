package blast_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tourniquet.dev/tourniquet/internal/blast"
)

const (
	allowBuckets = `{"Version":"2012-10-17","Statement":[{"Sid":"Read","Effect":"Allow","Action":["s3:GetObject","s3:ListAllMyBuckets"],"Resource":["arn:aws:s3:::orders/*","*"]}]}`
	allowAssume  = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sts:AssumeRole","Resource":"arn:aws:iam::123456789012:role/data-export"}]}`
	allowAdmin   = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`
	trustUser    = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::123456789012:user/cart-ci"},"Action":"sts:AssumeRole"}]}`
)

func facts() blast.Facts {
	role := blast.Principal{Kind: "role", Name: "data-export", ARN: "arn:aws:iam::123456789012:role/data-export", ID: "AROA1", Trust: trustUser,
		Policies: []blast.Document{{Name: "secrets", Document: `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"secretsmanager:GetSecretValue","Resource":"*"}]}`}}}
	return blast.Facts{
		Kubernetes: &blast.KubernetesFacts{Cluster: "demo", Namespace: "shop", Pod: "cart", PodUID: "u", ServiceAccount: "cart",
			Rules:   []blast.Rule{{Namespace: "shop", Binding: "RoleBinding cart", Role: "Role reader", Verbs: []string{"get", "list", "create"}, APIGroups: []string{""}, Resources: []string{"secrets", "pods"}}},
			Secrets: []blast.Object{{Namespace: "shop", Name: "db"}, {Namespace: "other", Name: "x"}}},
		AWS: []blast.AWSFacts{{Account: "123456789012", KeyID: "AKIA1", Roles: []blast.Principal{role}, Sessions: []blast.Session{{RoleARN: role.ARN, IssuedAt: time.Unix(1, 0)}},
			Owner: blast.Principal{Kind: "user", Name: "cart-ci", ARN: "arn:aws:iam::123456789012:user/cart-ci", ID: "AIDA1", Keys: []blast.Key{{ID: "AKIA1", Status: "Active"}},
				Policies: []blast.Document{{Name: "buckets", Document: allowBuckets}, {Name: "assume", Document: allowAssume}}}}},
	}
}

var (
	keyCut     = blast.Cut{Keys: []string{"AKIA1"}}
	sessionCut = blast.Cut{Sessions: []string{"arn:aws:iam::123456789012:role/data-export"}}
)

// TestCutsTakeAwayWhatTheyCut: the pod alone changes nothing, since credentials outlive it; each further cut helps.
func TestCutsTakeAwayWhatTheyCut(t *testing.T) {
	before := blast.Compute(facts(), blast.Cut{})
	if before.Score != 100 || before.Counts["secret"] != 2 {
		t.Fatalf("before: %+v", before)
	}
	if got := blast.Compute(facts(), blast.Cut{PodNetwork: true}); got.Score != before.Score {
		t.Errorf("cutting only the pod's network leaves %v of %v", got.Score, before.Score)
	}
	key := blast.Compute(facts(), keyCut)
	if key.Score >= before.Score || !strings.Contains(strings.Join(paths(key), "\n"), "a session of role data-export was minted and lives on") {
		t.Errorf("a dead key leaves the sessions it minted: %+v", key)
	}
	all := blast.Compute(facts(), blast.Cut{Keys: keyCut.Keys, Sessions: sessionCut.Sessions, ServiceAccount: true})
	if all.Score != 0 || len(all.Assets) != 0 {
		t.Errorf("after every cut: %+v", all)
	}
	if diff := cmp.Diff(before, blast.Compute(facts(), blast.Cut{})); diff != "" {
		t.Errorf("the same facts gave another answer:\n%s", diff)
	}
}

func paths(r blast.Radius) []string {
	var out []string
	for _, a := range r.Assets {
		out = append(out, a.Path...)
	}
	return out
}

// TestUndecidableWidensTheBounds: a policy that cannot be read is never "no reach".
func TestUndecidableWidensTheBounds(t *testing.T) {
	f := facts()
	f.AWS[0].Owner.Policies = []blast.Document{{Name: "broken", Document: `{"Version`}}
	got := blast.Compute(f, blast.Cut{})
	if got.Lower >= got.Upper || got.Score <= got.Lower || got.Score >= got.Upper {
		t.Errorf("bounds %v %v %v", got.Lower, got.Score, got.Upper)
	}
}

func TestAdminIsNamedWithItsPath(t *testing.T) {
	f := facts()
	f.AWS[0].Owner.Policies = []blast.Document{{Name: "AdministratorAccess", Document: allowAdmin}}
	got := blast.Compute(f, blast.Cut{})
	if !got.Admin || got.Assets[0].Kind != "admin" || !strings.Contains(strings.Join(got.Assets[0].Path, " "), "AdministratorAccess") {
		t.Errorf("admin: %+v", got.Assets)
	}
}
