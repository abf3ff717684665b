package process

import (
	corev1 "k8s.io/api/core/v1"
)

// declared returns what the specification of a pod's containers says about their AWS identity, by container's name. The
// workload cannot write its specification, so this is more than a claim. Values that the specification takes from
// elsewhere (a Secret, a field) are not known here and are not looked up.
func declared(pod *corev1.Pod) map[string]Hints {
	var all map[string]Hints
	for _, some := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for _, c := range some {
			var e environ
			for _, v := range c.Env {
				if p := e.field(v.Name); p != nil && kept[v.Name].MatchString(v.Value) {
					*p = v.Value // the last one of a name counts, as the kubelet has it
				}
			}
			if h := e.hints; h.AccessKeyID != "" || h.RoleARN != "" || h.FullURI != "" || h.TokenFile != "" || h.Profile != "" || h.SessionName != "" {
				if all == nil {
					all = map[string]Hints{}
				}
				all[c.Name] = h
			}
		}
	}
	return all
}

// slimContainers keeps of a pod's containers the names, and of their environments the entries that declared reads.
func slimContainers(containers []corev1.Container) []corev1.Container {
	var e environ
	var slim []corev1.Container
	for _, c := range containers {
		mine := corev1.Container{Name: c.Name}
		for _, v := range c.Env {
			if e.field(v.Name) != nil && kept[v.Name].MatchString(v.Value) {
				mine.Env = append(mine.Env, corev1.EnvVar{Name: v.Name, Value: v.Value})
			}
		}
		if len(mine.Env) > 0 {
			slim = append(slim, mine)
		}
	}
	return slim
}
