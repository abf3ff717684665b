package adapter

import (
	"strings"

	"tourniquet.dev/tourniquet/internal/detection"
)

// tetragonFindings are the events that a policy of the operator asked for; the others are telemetry.
var tetragonFindings = []string{"process_kprobe", "process_tracepoint", "process_lsm", "process_uprobe", "process_usdt"}

// tetragonTelemetry says what each other event is.
var tetragonTelemetry = map[string]string{
	"process_exec": "telemetry", "process_exit": "telemetry", "process_loader": "telemetry",
	"rate_limit_info": "tetragon limited its rate", "process_throttle": "tetragon throttled a cgroup",
}

// tetragonTechniques maps hooks that mean one thing whatever the policy is called. Policies are the operator's, and so
// are their names: those are mapped in the source's configuration.
var tetragonTechniques = map[string]string{
	"commit_creds": "T1068", "sys_setns": "T1611", "sys_pivot_root": "T1611", "sys_mount": "T1611", "security_sb_mount": "T1611",
	"sys_memfd_create": "T1620",
}

// tetragonActions: Tetragon knows no severity. That a policy acted says that its author was sure.
var tetragonActions = map[string]detection.Severity{
	"KPROBE_ACTION_SIGKILL": detection.High, "KPROBE_ACTION_OVERRIDE": detection.High, "KPROBE_ACTION_SIGNAL": detection.High,
	"KPROBE_ACTION_NOTIFYENFORCER": detection.High,
}

// readTetragon reads one line of Tetragon's export.
func readTetragon(r *reading) (Finding, error) {
	for name, what := range tetragonTelemetry {
		if _, ok := r.doc[name]; ok {
			return passedOver(what)
		}
	}
	kind := ""
	for _, name := range tetragonFindings {
		if _, ok := r.doc[name].(map[string]any); ok {
			kind = name
		}
	}
	if kind == "" {
		return Finding{}, refuse(Unsupported, "", "no event of Tetragon that is known")
	}
	hook := first(r.doc.text(kind, "function_name"), r.doc.text(kind, "symbol"), r.doc.text(kind, "event"))
	policy, message, stamp := r.doc.text(kind, "policy_name"), r.doc.text(kind, "message"), r.doc.read("time")
	at, err := r.when("time")
	if err != nil {
		return Finding{}, err
	}
	attacks, err := r.from.attacks(first(policy, hook), tetragonTechniques, bare(hook))
	if err != nil {
		return Finding{}, err
	}
	severity := tetragonActions[r.doc.text(kind, "action")]
	if severity == "" {
		severity = detection.Medium
	}
	node := r.doc.name("node_name")
	exec := r.doc.read(kind, "process", "exec_id")
	d := r.begin("tetragon/"+first(policy, hook, kind), first(message, policy, hook), severity, at, "tetragon", node, stamp, exec, policy, hook)
	d.Attacks = attacks
	d.Evidence["hook"], d.Evidence["argument"] = hook, tetragonArgument(r.doc, kind)
	d.Workload = tetragonPlace(r, kind, node)
	d.Processes = []detection.Process{tetragonProcess(r.doc, kind, "process")}
	if _, ok := r.doc.holder([]string{kind, "parent", ""})["binary"]; ok {
		d.Processes = append(d.Processes, tetragonProcess(r.doc, kind, "parent"))
	}
	return r.finish(d)
}

// bare takes the architecture off the name of a system call's function.
func bare(hook string) string {
	for _, prefix := range []string{"__x64_", "__arm64_", "__ia32_"} {
		hook = strings.TrimPrefix(hook, prefix)
	}
	return hook
}

func tetragonPlace(r *reading, kind, node string) *detection.Workload {
	at := func(path ...string) []string { return append([]string{kind, "process"}, path...) }
	w := &detection.Workload{Cluster: r.from.Cluster, Node: node}
	w.Namespace, w.Pod = r.doc.name(at("pod", "namespace")...), r.doc.name(at("pod", "name")...)
	w.PodUID, w.Container = r.doc.name(at("pod", "uid")...), r.doc.name(at("pod", "container", "name")...)
	// "docker" is the beginning of the id, and all there is when Tetragon has no Kubernetes metadata.
	w.ContainerID = first(container(r.doc.text(at("pod", "container", "id")...)), container(r.doc.text(at("docker")...)))
	return w
}

func tetragonProcess(doc document, kind, which string) detection.Process {
	number := func(key string) int64 {
		n, _ := doc.whole(kind, which, key)
		return n
	}
	exe := doc.text(kind, which, "binary")
	return process(exe[strings.LastIndexByte(exe, '/')+1:], exe, exe+" "+doc.text(kind, which, "arguments"), number("pid"), 0, number("uid"))
}

// tetragonArgument is the first argument that says what was touched.
func tetragonArgument(doc document, kind string) string {
	for _, a := range doc.list(kind, "args") {
		for _, path := range [][]string{{"file_arg", "path"}, {"path_arg", "path"}, {"sock_arg", "daddr"}, {"sockaddr_arg", "addr"}, {"string_arg"}} {
			if s := a.read(path...); s != "" {
				return s
			}
		}
	}
	return ""
}
