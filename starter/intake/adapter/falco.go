package adapter

import (
	"strings"

	"tourniquet.dev/tourniquet/internal/detection"
)

// falcoPriorities are Falco's, from syslog.
var falcoPriorities = map[string]detection.Severity{
	"emergency": detection.Critical, "alert": detection.Critical, "critical": detection.Critical, "error": detection.High,
	"warning": detection.Medium, "notice": detection.Low, "informational": detection.Informational, "debug": detection.Informational,
}

// falcoTechniques maps the rules that Falco ships. Tags of an event are not read: they speak of older matrices.
var falcoTechniques = map[string]string{
	"Read sensitive file untrusted":                                         "T1552.001",
	"Read sensitive file trusted after startup":                             "T1552.001",
	"Directory traversal monitored file read":                               "T1552.001",
	"Read ssh information":                                                  "T1552.001",
	"Search Private Keys or Passwords":                                      "T1552.001",
	"Find AWS Credentials":                                                  "T1552.001",
	"Read environment variable from /proc files":                            "T1552.001",
	"Contact EC2 Instance Metadata Service From Container":                  "T1552.005",
	"Contact cloud metadata service from container":                         "T1552.005",
	"K8s Secret Get Successfully":                                           "T1552.007",
	"Terminal shell in container":                                           "T1059.004",
	"Run shell untrusted":                                                   "T1059.004",
	"System user interactive":                                               "T1059.004",
	"Netcat Remote Code Execution in Container":                             "T1059.004",
	"Redirect STDOUT/STDIN to Network Connection in Container":              "T1059.004",
	"Execution from /dev/shm":                                               "T1059.004",
	"Fileless execution via memfd_create":                                   "T1620",
	"Drop and execute new binary in container":                              "T1105",
	"Launch Package Management Process in Container":                        "T1105",
	"Launch Ingress Remote File Copy Tools in Container":                    "T1105",
	"Exfiltrating Artifacts via Kubernetes Control Plane":                   "T1048",
	"Contact K8S API Server From Container":                                 "T1613",
	"Detect outbound connections to common miner pool ports":                "T1496.001",
	"Detect crypto miners using the Stratum protocol":                       "T1496.001",
	"Outbound Connection to C2 Servers":                                     "T1071.001",
	"The docker client is executed in a container":                          "T1609",
	"Attach/Exec Pod":                                                       "T1609",
	"Attach to cluster-admin Role":                                          "T1098.006",
	"Create Privileged Pod":                                                 "T1610",
	"Launch Privileged Container":                                           "T1610",
	"Launch Sensitive Mount Container":                                      "T1610",
	"Detect release_agent File Container Escapes":                           "T1611",
	"Debugfs Launched in Privileged Container":                              "T1611",
	"Mount Launched in Privileged Container":                                "T1611",
	"Change thread namespace":                                               "T1611",
	"Linux Kernel Module Injection Detected":                                "T1611",
	"Sudo Potential Privilege Escalation":                                   "T1068",
	"Polkit Local Privilege Escalation Vulnerability (CVE-2021-4034)":       "T1068",
	"Potential Local Privilege Escalation via Environment Variables Misuse": "T1068",
	"Remove Bulk Data from Disk":                                            "T1485",
}

// readFalco reads one alert of Falco: its own JSON output, or what falcosidekick makes of it.
func readFalco(r *reading) (Finding, error) {
	rule, output := r.doc.text("rule"), r.doc.text("output")
	if rule == "" {
		return Finding{}, refuse(Invalid, "rule", "is missing")
	}
	stamp := r.doc.read("time")
	at, err := r.when("time")
	if err != nil {
		return Finding{}, err
	}
	severity := falcoPriorities[strings.ToLower(r.doc.text("priority"))]
	if severity == "" {
		severity = detection.Medium
	}
	attacks, err := r.from.attacks(rule, falcoTechniques)
	if err != nil {
		return Finding{}, err
	}
	host := r.doc.name("hostname")
	field := func(key string) string { return r.doc.text("output_fields", key) }
	// falcosidekick's uuid is new for each receipt, so it does not make an event the same.
	d := r.begin("falco/"+rule, rule, severity, at, "falco", rule, stamp, host, output)
	d.Attacks = attacks
	d.Evidence["output"], d.Evidence["file or address"] = output, first(field("fd.name"), field("fs.path.name"))
	w := &detection.Workload{Cluster: r.from.Cluster, Node: first(r.doc.name("output_fields", "k8s.node.name"), host)}
	w.Namespace = first(r.doc.name("output_fields", "k8s.ns.name"), r.doc.name("output_fields", "ka.target.namespace"))
	w.Pod = first(r.doc.name("output_fields", "k8s.pod.name"), r.doc.name("output_fields", "ka.target.pod.name"))
	w.PodUID = r.doc.name("output_fields", "k8s.pod.uid")
	w.Container = r.doc.name("output_fields", "container.name")
	w.ContainerID = first(container(field("container.full_id")), container(field("container.id")))
	d.Workload = w
	d.Processes = falcoProcesses(r.doc)
	return r.finish(d)
}

func falcoProcesses(doc document) []detection.Process {
	field := func(key string) string { return doc.text("output_fields", key) }
	number := func(key string) int64 {
		n, _ := doc.whole("output_fields", key)
		return n
	}
	comm, parent := field("proc.name"), field("proc.pname")
	if comm == "" {
		return nil
	}
	ppid := number("proc.ppid")
	out := []detection.Process{process(comm, field("proc.exepath"), field("proc.cmdline"), number("proc.pid"), ppid, number("user.uid"))}
	if parent != "" {
		out = append(out, process(parent, field("proc.pexepath"), field("proc.pcmdline"), ppid, 0, 0))
	}
	return out
}
