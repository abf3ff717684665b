package process

import (
	"regexp"
	"strings"
)

// Container is what the path of a cgroup says about who runs in it.
type Container struct {
	PodUID  string // as the API server writes it; of a static pod its annotation kubernetes.io/config.hash
	Static  bool   // PodUID is a static pod's hash
	ID      string // of the container, as its runtime gives it; "" in a pod's own cgroup
	Runtime string // containerd, cri-o, docker, podman, ecs; "" when the path does not say
}

const (
	uidForm = `[0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12}|[0-9a-f]{32}`
	idForm  = `[0-9a-f]{64}`
)

var (
	// The systemd driver repeats the path in each slice's name; kind puts a prefix before it.
	systemdPod = regexp.MustCompile(`^(?:[a-z0-9_]+-)*kubepods(?:-burstable|-besteffort)?-pod(` + uidForm + `)\.slice$`)
	plainPod   = regexp.MustCompile(`^pod(` + uidForm + `)$`)
	// A systemd driver's name under a cgroupfs driver: slice:prefix:id.
	mixedPod = regexp.MustCompile(`^(?:[a-z0-9_]+-)*kubepods(?:-burstable|-besteffort)?-pod(` + uidForm + `)\.slice:([a-z-]+):(` + idForm + `)$`)
	scope    = regexp.MustCompile(`^(?:([a-z-]+)-)?(` + idForm + `)(?:\.scope)?$`)
	ecsTask  = regexp.MustCompile(`^[0-9a-f]{32}-[0-9]+$`)
)

var runtimes = map[string]string{
	"cri-containerd": "containerd",
	"crio":           "cri-o",
	"docker":         "docker",
	"libpod":         "podman",
}

// ParseCgroup reads the path of a cgroup in the v2 hierarchy; false when it is neither a pod's nor a container's. The
// outermost pod and container count: what lies below may have been named by who runs in it.
func ParseCgroup(path string) (Container, bool) {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	for i, part := range parts {
		before := ""
		if i > 0 {
			before = parts[i-1]
		}
		if m := mixedPod.FindStringSubmatch(part); m != nil {
			return podOf(m[1], Container{ID: m[3], Runtime: runtimes[m[2]]}), true
		}
		if uid, ok := podPart(part, before); ok {
			below := Container{}
			if i+1 < len(parts) {
				below, _ = containerPart(parts[i+1])
			}
			return podOf(uid, below), true
		}
	}
	for i, part := range parts {
		if ecsTask.MatchString(part) && i > 1 && parts[i-2] == "ecs" {
			return Container{ID: part, Runtime: "ecs"}, true
		}
		c, ok := containerPart(part)
		if ok && c.Runtime == "" && i > 0 {
			c.Runtime = runtimes[parts[i-1]]
		}
		if ok {
			return c, true
		}
	}
	return Container{}, false
}

func podPart(part, before string) (uid string, ok bool) {
	if m := systemdPod.FindStringSubmatch(part); m != nil {
		return m[1], true
	}
	switch before {
	case "kubepods", "burstable", "besteffort", "..": // the last one: seen from inside a cgroup namespace
		if m := plainPod.FindStringSubmatch(part); m != nil {
			return m[1], true
		}
	}
	return "", false
}

func containerPart(part string) (Container, bool) {
	m := scope.FindStringSubmatch(part)
	if m == nil || strings.HasSuffix(m[1], "conmon") { // the monitor beside the container
		return Container{}, false
	}
	return Container{ID: m[2], Runtime: runtimes[m[1]]}, true
}

func podOf(uid string, c Container) Container {
	c.PodUID = strings.ReplaceAll(uid, "_", "-")
	c.Static = !strings.Contains(c.PodUID, "-")
	return c
}
