package process

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func TestADeletedPodIsKeptForAMinute(t *testing.T) {
	p := &Pods{byUID: map[string]*Pod{}, byHash: map[string]*Pod{}, byContainer: map[string]*Pod{}, changed: make(chan struct{})}
	pod := &corev1.Pod{}
	pod.UID = "u"
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{ContainerID: "containerd://c"}}
	deleted := time.Unix(1000, 0)
	p.put(pod, deleted)
	for after, want := range map[time.Duration]bool{59 * time.Second: true, 60 * time.Second: false} {
		p.put(pod, deleted)
		p.sweep(deleted.Add(after))
		for _, c := range []Container{{PodUID: "u"}, {ID: "c"}} {
			if _, got := p.Lookup(c); got != want {
				t.Errorf("after %v %+v is there: %v", after, c, got)
			}
		}
	}
}
