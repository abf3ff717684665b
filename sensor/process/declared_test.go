package process_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"tourniquet.dev/tourniquet/sensor/process"
)

func TestSpecificationSaysWhichIdentityAContainerHas(t *testing.T) {
	a := newAPI(t, `{"kind":"Pod","apiVersion":"v1","metadata":{"uid":"u-1","namespace":"shop","name":"cart","resourceVersion":"2"},
		"spec":{"nodeName":"node-1","containers":[
			{"name":"app","env":[{"name":"AWS_ACCESS_KEY_ID","value":"AKIATESTATTESTED0001"},{"name":"AWS_SECRET_ACCESS_KEY","value":"s3cret"}]},
			{"name":"irsa","env":[{"name":"AWS_ROLE_ARN","value":"arn:aws:iam::123456789012:role/cart"},{"name":"AWS_ACCESS_KEY_ID","value":"not a key"}]},
			{"name":"from-secret","env":[{"name":"AWS_ACCESS_KEY_ID","valueFrom":{"secretKeyRef":{"name":"aws","key":"id"}}}]}]}}`)
	p, err := process.NewPods(process.PodOptions{Kubeconfig: a.kubeconfig(t), Node: "node-1"})
	if err != nil {
		t.Fatal(err)
	}

	ctx := t.Context()
	done := make(chan struct{})
	go func() { defer close(done); p.Run(ctx) }()
	t.Cleanup(func() { <-done }) // ctx ends before
	pod, err := p.Await(ctx, process.Container{PodUID: "u-1"})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]process.Hints{"app": {AccessKeyID: "AKIATESTATTESTED0001"}, "irsa": {RoleARN: "arn:aws:iam::123456789012:role/cart"}}
	if diff := cmp.Diff(want, pod.Declared); diff != "" {
		t.Error(diff)
	}
}
