package whereabouts_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/starter/intake/whereabouts"
)

const long = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func open(t *testing.T, dir string) *whereabouts.Index {
	t.Helper()
	i, err := whereabouts.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func learn(t *testing.T, i *whereabouts.Index, w detection.Workload) {
	t.Helper()
	if err := i.Learn(w); err != nil {
		t.Fatal(err)
	}
}

func place(change func(*detection.Workload)) detection.Workload {
	w := detection.Workload{Cluster: "east", Node: "node-1", Namespace: "shop", Pod: "cart-1", PodUID: "pod-1", OwnerUID: "cart", Container: "cart", ContainerID: long, CgroupID: 77}
	if change != nil {
		change(&w)
	}
	return w
}

func TestResolvesByWhatTheEventHas(t *testing.T) {
	i := open(t, t.TempDir())
	defer i.Close()
	learn(t, i, place(nil))
	for name, tc := range map[string]struct {
		asked detection.Workload
		how   string
	}{
		"a short id":                 {detection.Workload{Cluster: "east", ContainerID: long[:12]}, "container id"},
		"the whole id":               {detection.Workload{Cluster: "east", ContainerID: long}, "container id"},
		"the cgroup on its node":     {detection.Workload{Cluster: "east", Node: "node-1", CgroupID: 77}, "cgroup id"},
		"the pod's UID":              {detection.Workload{Cluster: "east", PodUID: "pod-1"}, "pod UID"},
		"the pod's name":             {detection.Workload{Cluster: "east", Namespace: "shop", Pod: "cart-1"}, "pod name"},
		"another cluster":            {detection.Workload{Cluster: "west", ContainerID: long[:12]}, ""},
		"another id, same begin":     {detection.Workload{Cluster: "east", ContainerID: long[:12] + "ffff"}, ""},
		"the cgroup elsewhere":       {detection.Workload{Cluster: "east", Node: "node-2", CgroupID: 77}, ""},
		"a new pod of the same name": {detection.Workload{Cluster: "east", Namespace: "shop", Pod: "cart-1", PodUID: "pod-2"}, ""},
		"eleven digits":              {detection.Workload{Cluster: "east", ContainerID: long[:11]}, ""},
		"nothing":                    {detection.Workload{Cluster: "east"}, ""},
	} {
		found, how := i.Resolve(tc.asked)
		if how != tc.how || (how != "" && found.OwnerUID != "cart") {
			t.Errorf("%s: %q, %+v; want %q", name, how, found, tc.how)
		}
	}
}

func TestTwoSensorsThatContradictAreNotBelieved(t *testing.T) {
	i := open(t, t.TempDir())
	defer i.Close()
	learn(t, i, place(nil))
	learn(t, i, place(func(w *detection.Workload) {
		w.Node, w.OwnerUID, w.PodUID, w.Pod = "node-2", "victim", "pod-9", "victim-1"
	}))
	if found, how := i.Resolve(detection.Workload{Cluster: "east", ContainerID: long}); how != "" {
		t.Errorf("%s: %+v", how, found)
	}
}

func TestOwnerReplacesItsAbsenceAndNotTheOtherWay(t *testing.T) {
	i := open(t, t.TempDir())
	defer i.Close()
	orphan := place(func(w *detection.Workload) { w.OwnerUID = "" })
	for _, w := range []detection.Workload{orphan, place(nil), orphan} {
		learn(t, i, w)
	}
	for _, asked := range []detection.Workload{{Cluster: "east", ContainerID: long}, {Cluster: "east", PodUID: "pod-1"}} {
		if found, how := i.Resolve(asked); how == "" || found.OwnerUID != "cart" {
			t.Errorf("%s: %+v", how, found)
		}
	}
}

func TestKnowsAfterARestartAndPassesOverDamage(t *testing.T) {
	dir := t.TempDir()
	i := open(t, dir)
	learn(t, i, place(nil))
	learn(t, i, place(func(w *detection.Workload) {
		w.ContainerID, w.PodUID, w.Pod, w.CgroupID, w.OwnerUID = "f"+long[1:], "pod-2", "pay-1", 78, "pay"
	}))
	if err := i.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "new")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[40] ^= 1                          // in the first line
	data = append(data, []byte("torn")...) // after the last
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	i = open(t, dir)
	defer i.Close()
	if _, how := i.Resolve(detection.Workload{Cluster: "east", ContainerID: long}); how != "" {
		t.Error("a damaged line was believed")
	}
	if found, _ := i.Resolve(detection.Workload{Cluster: "east", ContainerID: "f" + long[1:]}); found.OwnerUID != "pay" {
		t.Errorf("%+v", found)
	}
	learn(t, i, place(nil)) // where the torn line was
	again := open(t, dir)
	defer again.Close()
	if found, _ := again.Resolve(detection.Workload{Cluster: "east", ContainerID: long}); found.OwnerUID != "cart" {
		t.Errorf("%+v", found)
	}
}

func TestIsBoundedAndKeepsTheLatest(t *testing.T) {
	dir := t.TempDir()
	i := open(t, dir)
	defer i.Close()
	const many = 40_000
	for n := range many {
		learn(t, i, detection.Workload{Cluster: "east", Node: "node-1", Namespace: "shop", PodUID: fmt.Sprint("pod-", n), OwnerUID: "o", ContainerID: fmt.Sprintf("%012x", n)})
	}
	if _, how := i.Resolve(detection.Workload{Cluster: "east", ContainerID: fmt.Sprintf("%012x", 0)}); how != "" {
		t.Error("the first of 40000 is still known")
	}
	if _, how := i.Resolve(detection.Workload{Cluster: "east", ContainerID: fmt.Sprintf("%012x", many-1)}); how == "" {
		t.Error("the last one is not known")
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 2 {
		t.Errorf("%d files, %v", len(files), err)
	}
}
