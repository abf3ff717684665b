package kubernetes

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/trust"
)

func TestAPIErrors(t *testing.T) {
	pods := schema.GroupResource{Resource: "pods"}
	testOp := apierrors.NewGenericServerResponse(422, "patch", pods, "x", "", 0, false)
	for name, tc := range map[string]struct {
		err   error
		write bool
		want  error
	}{
		"gone":                       {apierrors.NewNotFound(pods, "x"), true, activities.ErrConflict},
		"forbidden":                  {apierrors.NewForbidden(pods, "x", errors.New("leash")), true, activities.ErrRefused},
		"invalid":                    {apierrors.NewInvalid(schema.GroupKind{Kind: "Pod"}, "x", nil), true, activities.ErrRefused},
		"a test of the patch failed": {testOp, true, errStale},
		"conflict":                   {apierrors.NewConflict(pods, "x", errors.New("moved")), true, errStale},
		"answer timed out":           {apierrors.NewTimeoutError("slow", 1), true, activities.ErrUnknown},
		"server broke":               {apierrors.NewInternalError(errors.New("etcd")), true, activities.ErrUnknown},
		"deadline after send":        {context.DeadlineExceeded, true, activities.ErrUnknown},
		"connection reset":           {&net.OpError{Op: "read", Err: errors.New("reset")}, true, activities.ErrUnknown},
		"no connection":              {&net.OpError{Op: "dial", Err: errors.New("refused")}, true, nil},
		"throttled":                  {apierrors.NewTooManyRequests("later", 1), true, nil},
		"token expired":              {apierrors.NewUnauthorized("expired"), true, nil},
		"a read that timed out":      {context.DeadlineExceeded, false, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got := apiError("x", tc.err, tc.write)
			for _, sentinel := range []error{activities.ErrRefused, activities.ErrConflict, activities.ErrUnknown, errStale} {
				if errors.Is(got, sentinel) != errors.Is(tc.want, sentinel) {
					t.Errorf("%v: is %q %t", got, sentinel, errors.Is(got, sentinel))
				}
			}
			if got == nil {
				t.Error("no error")
			}
		})
	}
}

func TestPersistIsBounded(t *testing.T) {
	tries := 0
	err := persist(t.Context(), func(context.Context) error { tries++; return errStale })
	if !errors.Is(err, activities.ErrConflict) || tries != attempts {
		t.Errorf("%v after %d tries", err, tries)
	}
	tries = 0
	err = persist(t.Context(), func(context.Context) error { tries++; return activities.ErrUnknown })
	if !errors.Is(err, activities.ErrUnknown) || tries != 2 {
		t.Errorf("an unknown outcome: %v after %d tries, want it read back once", err, tries)
	}
}

func TestLabelsByOwner(t *testing.T) {
	yes := true
	for owner, want := range map[string]bool{"": false, "ReplicaSet": false, "ReplicationController": false, "StatefulSet": true, "DaemonSet": true, "Job": true, "Rollout": true} {
		p := &corev1.Pod{}
		if owner != "" {
			p.OwnerReferences = []metav1.OwnerReference{{Kind: owner, Controller: &yes}}
		}
		if got := inPlace(p); got != want {
			t.Errorf("owner %q stays in place: %t, want %t", owner, got, want)
		}
	}
}

func TestQuarantinedLabels(t *testing.T) {
	labels := map[string]string{"b": "2", "a": "1", LabelQuarantine: "old"}
	swap, stay := podState{Labels: labels}, podState{Labels: labels, InPlace: true}
	if diff := cmp.Diff(map[string]string{LabelQuarantine: "i"}, swap.quarantined("i")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"a": "1", "b": "2", LabelQuarantine: "i"}, stay.quarantined("i")); diff != "" {
		t.Error(diff)
	}
	if got := swap.removedLabels(); got != "a=1,b=2" {
		t.Errorf("note %q", got)
	}
	if got := stay.removedLabels(); got != "" {
		t.Errorf("note of what stays %q", got)
	}
}

func TestCutOfABinding(t *testing.T) {
	sa := rbacv1.Subject{Kind: "ServiceAccount", Namespace: "shop", Name: "app"}
	byName := rbacv1.Subject{Kind: "User", APIGroup: rbacv1.GroupName, Name: "system:serviceaccount:shop:app"}
	jane := rbacv1.Subject{Kind: "User", APIGroup: rbacv1.GroupName, Name: "jane"}
	elsewhere := rbacv1.Subject{Kind: "ServiceAccount", Namespace: "bank", Name: "app"}
	got := bindingState{Subjects: []rbacv1.Subject{jane, sa, elsewhere, byName}}.cut(account{"shop", "app"})
	want := bindingState{Subjects: []rbacv1.Subject{jane, elsewhere}, Removed: "ServiceAccount/shop/app,User//system:serviceaccount:shop:app"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error("(-want +got):\n" + diff)
	}
}

func TestHoldIsBelievedBySignatureOnly(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	file := &trust.File{Keys: []trust.Key{{ID: trust.KeyID(public), Role: trust.RoleContainKubernetes, Public: base64.StdEncoding.EncodeToString(public)}}}
	s := &System{options: Options{Signer: authz.NewSigner(private)}}
	target := plan.Target{Kind: plan.Pod, Scope: "c", Namespace: "n", Name: "p", UID: "u"}
	in := plan.Intent{Key: "k", IncidentID: "i", Ends: time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)}
	annotation, err := s.signHold(in, plan.PreImage{Target: target, Digest: "sha256:x"})
	if err != nil {
		t.Fatal(err)
	}
	if again, err := s.signHold(in, plan.PreImage{Target: target, Digest: "sha256:x"}); err != nil || again != annotation {
		t.Error("the same intent signs another hold")
	}
	h, err := OpenHold(file, annotation)
	if err != nil || h.Target != target || !h.Ends.Equal(in.Ends) {
		t.Errorf("%+v, %v", h, err)
	}
	if _, err := OpenHold(&trust.File{}, annotation); !errors.Is(err, authz.ErrSignature) {
		t.Errorf("a hold of an unknown key: %v", err)
	}
	if _, err := OpenHold(file, strings.Replace(annotation, authz.TypeHold, authz.TypeOrder, 1)); err == nil {
		t.Error("an order taken for a hold")
	}
}

func FuzzHold(f *testing.F) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		f.Fatal(err)
	}
	file := &trust.File{Keys: []trust.Key{{ID: trust.KeyID(public), Role: trust.RoleContainKubernetes, Public: base64.StdEncoding.EncodeToString(public)}}}
	s := &System{options: Options{Signer: authz.NewSigner(private)}}
	annotation, err := s.signHold(plan.Intent{Key: "k"}, plan.PreImage{Digest: "sha256:x"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(annotation)
	f.Add("{}")
	f.Fuzz(func(t *testing.T, text string) {
		_, isHold := holdOf(text)
		if h, err := OpenHold(file, text); err == nil && (h.Key != "k" || !isHold) {
			t.Errorf("believed %q", text)
		}
	})
}

func TestKubeconfigs(t *testing.T) {
	const head = "apiVersion: v1\nkind: Config\ncurrent-context: x\ncontexts: [{name: x, context: {cluster: c, user: u}}]\n"
	for name, tc := range map[string]struct {
		rest string
		ok   bool
	}{
		"a token":              {"clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}]\nusers: [{name: u, user: {token: t}}]\n", true},
		"in clear text":        {"clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]\nusers: [{name: u, user: {token: t}}]\n", false},
		"any certificate":      {"clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1', insecure-skip-tls-verify: true}}]\nusers: [{name: u, user: {token: t}}]\n", false},
		"a program to run":     {"clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}]\nusers: [{name: u, user: {exec: {apiVersion: client.authentication.k8s.io/v1, command: sh, interactiveMode: Never}}}]\n", false},
		"in somebody's name":   {"clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}]\nusers: [{name: u, user: {token: t, as: root}}]\n", false},
		"no cluster behind it": {"", false},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "kubeconfig")
			if err := os.WriteFile(file, []byte(head+tc.rest), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := New(Options{Kubeconfig: file, Cluster: "c"}); (err == nil) != tc.ok {
				t.Errorf("%v, want ok %t", err, tc.ok)
			}
		})
	}
}
