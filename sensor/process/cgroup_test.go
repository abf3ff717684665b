package process_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tourniquet.dev/tourniquet/internal/sys/needs"
	"tourniquet.dev/tourniquet/sensor/probe"
	"tourniquet.dev/tourniquet/sensor/process"
)

const (
	uid  = "1f0b5a2c-3d4e-4f60-8a7b-9c0d1e2f3a4b"
	uid2 = "99999999-3d4e-4f60-8a7b-9c0d1e2f3a4b"
	hash = "0123456789abcdef0123456789abcdef"
)

var (
	uidU = strings.ReplaceAll(uid, "-", "_")
	id   = strings.Repeat("ab", 32)
	id2  = strings.Repeat("cd", 32)
)

func TestParseCgroup(t *testing.T) {
	for name, tc := range map[string]struct {
		path string
		want process.Container
		ok   bool
	}{
		"systemd driver":       {"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + uidU + ".slice/cri-containerd-" + id + ".scope", process.Container{PodUID: uid, ID: id, Runtime: "containerd"}, true},
		"systemd, guaranteed":  {"/kubepods.slice/kubepods-pod" + uidU + ".slice/cri-containerd-" + id + ".scope", process.Container{PodUID: uid, ID: id, Runtime: "containerd"}, true},
		"systemd, pod only":    {"/kubepods.slice/kubepods-pod" + uidU + ".slice", process.Container{PodUID: uid}, true},
		"cgroupfs driver":      {"/kubepods/besteffort/pod" + uid + "/" + id, process.Container{PodUID: uid, ID: id}, true},
		"cgroupfs, guaranteed": {"/kubepods/pod" + uid + "/" + id, process.Container{PodUID: uid, ID: id}, true},
		"cgroupfs, pod only":   {"/kubepods/burstable/pod" + uid, process.Container{PodUID: uid}, true},
		"static pod":           {"/kubepods/burstable/pod" + hash + "/" + id, process.Container{PodUID: hash, Static: true, ID: id}, true},
		"static pod, systemd":  {"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + hash + ".slice/crio-" + id + ".scope", process.Container{PodUID: hash, Static: true, ID: id, Runtime: "cri-o"}, true},
		"kind":                 {"/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod" + uidU + ".slice/cri-containerd-" + id + ".scope", process.Container{PodUID: uid, ID: id, Runtime: "containerd"}, true},
		"kind in docker":       {"/system.slice/docker-" + id2 + ".scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod" + uidU + ".slice/cri-containerd-" + id + ".scope", process.Container{PodUID: uid, ID: id, Runtime: "containerd"}, true},
		"cri-o":                {"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" + uidU + ".slice/crio-" + id + ".scope/container", process.Container{PodUID: uid, ID: id, Runtime: "cri-o"}, true},
		"cri-o's monitor":      {"/kubepods.slice/kubepods-pod" + uidU + ".slice/crio-conmon-" + id + ".scope", process.Container{PodUID: uid}, true},
		"mixed drivers":        {"/system.slice/containerd.service/kubepods-burstable-pod" + uidU + ".slice:cri-containerd:" + id, process.Container{PodUID: uid, ID: id, Runtime: "containerd"}, true},
		"nested":               {"/some/prefix/kubepods/besteffort/pod" + uid + "/" + id, process.Container{PodUID: uid, ID: id}, true},
		"from a namespace":     {"/../../kubepods-besteffort-pod" + uidU + ".slice/cri-containerd-" + id + ".scope", process.Container{PodUID: uid, ID: id, Runtime: "containerd"}, true},
		"plain, from a ns":     {"/../pod" + uid + "/" + id, process.Container{PodUID: uid, ID: id}, true},
		"below a container":    {"/kubepods/pod" + uid + "/" + id + "/init.scope", process.Container{PodUID: uid, ID: id}, true},
		"docker in a pod":      {"/kubepods/pod" + uid + "/" + id + "/docker/" + id2, process.Container{PodUID: uid, ID: id}, true},
		"a forged pod below":   {"/kubepods/pod" + uid + "/" + id + "/kubepods/pod" + uid2 + "/" + id2, process.Container{PodUID: uid, ID: id}, true},
		"ecs":                  {"/ecs/task/" + hash + "-1234567890", process.Container{ID: hash + "-1234567890", Runtime: "ecs"}, true},
		"docker":               {"/docker/" + id, process.Container{ID: id, Runtime: "docker"}, true},
		"docker, systemd":      {"/system.slice/docker-" + id + ".scope", process.Container{ID: id, Runtime: "docker"}, true},
		"podman":               {"/machine.slice/libpod-" + id + ".scope/container", process.Container{ID: id, Runtime: "podman"}, true},
		"a person":             {"/user.slice/user-0.slice/session-1.scope", process.Container{}, false},
		"a service":            {"/system.slice/containerd.service", process.Container{}, false},
		"the root":             {"/", process.Container{}, false},
		"empty":                {"", process.Container{}, false},
		"all pods":             {"/kubepods.slice/kubepods-burstable.slice", process.Container{}, false},
		"no kubepods":          {"/evil/pod" + uid + "/x", process.Container{}, false},
		"a uid cut":            {"/kubepods/pod" + uid[:35], process.Container{}, false},
		"a uid too long":       {"/kubepods/pod" + uid + "0", process.Container{}, false},
		"no end of the uid":    {"/kubepods-burstable-pod" + uidU + "xslice:cri-containerd:" + id, process.Container{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := process.ParseCgroup(tc.path)
			if diff := cmp.Diff(tc.want, got); diff != "" || ok != tc.ok {
				t.Errorf("ok %v, want %v\n%s", ok, tc.ok, diff)
			}
		})
	}
}

func FuzzParseCgroup(f *testing.F) {
	f.Add("/kubepods.slice/kubepods-pod" + uidU + ".slice/cri-containerd-" + id + ".scope")
	f.Add("/kubepods/burstable/pod" + hash + "/" + id)
	f.Add("/ecs/task/" + hash + "-1")
	f.Fuzz(func(t *testing.T, path string) {
		c, ok := process.ParseCgroup(path)
		if ok == (c == process.Container{}) {
			t.Errorf("ok %v: %+v", ok, c)
		}
		if c.ID != "" && !strings.Contains(path, c.ID) {
			t.Errorf("id %q is not in the path", c.ID)
		}
		if n := len(c.PodUID); n != 0 && n != 32 && n != 36 || c.Static != (n == 32) {
			t.Errorf("%+v", c)
		}
	})
}

func TestACgroupIsFoundByItsIdHoweverItCame(t *testing.T) {
	needs.Root(t)
	needs.Kernel(t, needs.CgroupWrite)
	needs.CgroupV2(t)
	root, err := process.CgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	make := func() (uint64, string) {
		dir, err := os.MkdirTemp(root, "tourniquet-test-*")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { syscall.Rmdir(dir) })
		var stat syscall.Stat_t
		if err := syscall.Stat(dir, &stat); err != nil {
			t.Fatal(err)
		}
		return stat.Ino, "/" + filepath.Base(dir)
	}
	before, beforePath := make()
	cgroups, err := process.NewCgroups(root)
	if err != nil {
		t.Fatal(err)
	}
	after, afterPath := make() // no event tells of this one
	for id, path := range map[uint64]string{before: beforePath, after: afterPath} {
		if g, ok := cgroups.Lookup(id); !ok || g.Path != path || g.Contained {
			t.Errorf("%+v, %v, want path %s", g, ok, path)
		}
	}
	if g, ok := cgroups.Lookup(1 << 60); ok {
		t.Errorf("found %+v", g)
	}
}

func TestARemovedCgroupIsStillKnown(t *testing.T) {
	cgroups, err := process.NewCgroups("")
	if err != nil {
		t.Fatal(err)
	}
	path := "/kubepods/pod" + uid + "/" + id
	cgroups.Apply(&probe.Cgroup{ID: 7, Path: path})
	cgroups.Apply(&probe.Cgroup{ID: 7, Path: path, Removed: true})
	g, ok := cgroups.Lookup(7)
	if !ok || !g.Removed || g.Container.PodUID != uid {
		t.Errorf("%+v, %v", g, ok)
	}
	if found := cgroups.Find(func(process.Cgroup) bool { return true }); len(found) != 0 {
		t.Errorf("found %+v", found)
	}
	for n := range uint64(5000) {
		cgroups.Apply(&probe.Cgroup{ID: 100 + n, Path: "/x"})
		cgroups.Apply(&probe.Cgroup{ID: 100 + n, Path: "/x", Removed: true})
	}
	if _, ok := cgroups.Lookup(7); ok {
		t.Error("removed cgroups are kept for ever")
	}
}
