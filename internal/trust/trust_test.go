package trust_test

import (
	"strings"
	"testing"
	"time"

	"tourniquet.dev/tourniquet/internal/authz/authztest"
	"tourniquet.dev/tourniquet/internal/trust"
)

func world() *trust.File {
	return authztest.New(time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)).TrustFile
}

func TestValidateNamesTheField(t *testing.T) {
	if err := world().Validate(); err != nil {
		t.Fatalf("a valid trust file: %v", err)
	}
	for want, change := range map[string]func(*trust.File){
		"version:":                     func(f *trust.File) { f.Version = 0 },
		"keys[0]: id":                  func(f *trust.File) { f.Keys[0].ID = "x" },
		"keys[0]: public":              func(f *trust.File) { f.Keys[0].Public = "x" },
		"keys[1]: key":                 func(f *trust.File) { f.Keys[1] = f.Keys[0] },
		"keys[0].role":                 func(f *trust.File) { f.Keys[0].Role = "boss" },
		"people[1]: id, subject":       func(f *trust.File) { f.People[1].Slack = f.People[0].Slack },
		"people[0].keys[0].role":       func(f *trust.File) { f.People[0].Keys[0].Role = trust.RoleDecide },
		"ceilings: max_pre_authorized": func(f *trust.File) { f.Ceilings.Budget.Effects = 0 },
		"protected:":                   func(f *trust.File) { f.Protected.Namespaces = []string{"[a"} },
	} {
		f := world()
		change(f)
		if err := f.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

// TestProtectedSetKnowsEverySpelling is I8: case, Unicode forms, ARNs and paths do not slip past.
func TestProtectedSetKnowsEverySpelling(t *testing.T) {
	f := world()
	for _, ns := range []string{"kube-system", "KUBE-SYSTEM", "ｋube-system", " kube-system ", "payments", "Payments", "tourniquet-system"} {
		if !f.ProtectsNamespace(ns) {
			t.Errorf("namespace %q is not protected", ns)
		}
	}
	for _, p := range []string{"break-glass", "Break-Glass", "arn:aws:iam::123456789012:role/break-glass", "arn:aws:iam::123456789012:role/ops/break-glass",
		"arn:aws:iam::123456789012:root", "arn:aws:iam::123456789012:role/aws-service-role/x.amazonaws.com/AWSServiceRoleForX", "AWSServiceRoleForEKS",
		"AWSReservedSSO_Admin_1", "tourniquet-responder", "TOURNIQUET-responder"} {
		if !f.ProtectsPrincipal(p) {
			t.Errorf("principal %q is not protected", p)
		}
	}
	for _, p := range []string{"cart-ci", "arn:aws:iam::123456789012:user/cart-ci", "not-break-glass-at-all"} {
		if f.ProtectsPrincipal(p) {
			t.Errorf("principal %q is protected", p)
		}
	}
	if f.ProtectsNamespace("shop") || !f.ProtectsServiceAccount("shop", "Deployer") || f.ProtectsServiceAccount("shop", "cart") {
		t.Error("service accounts: want shop/deployer and nothing else of shop")
	}
}

func TestAnEmptyGroupHoldsNobody(t *testing.T) {
	for _, p := range world().People {
		if p.In("") {
			t.Errorf("%s is in no group's group", p.ID)
		}
	}
}
