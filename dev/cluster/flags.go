package cluster

import (
	"strconv"

	"tourniquet.dev/tourniquet/dev/port"
)

// ports of the two servers, all on loopback.
type ports struct{ api, etcd, peer int }

// pickPorts finds free ports; api is used as it is when it is not 0.
func pickPorts(api int) (ports, error) {
	free, err := port.Free(3)
	if err != nil {
		return ports{}, err
	}
	p := ports{api: free[0], etcd: free[1], peer: free[2]}
	if api != 0 {
		p.api = api
		return p, port.Check(api)
	}
	return p, nil
}

func (c *Cluster) etcdFlags(p ports) []string {
	client, peer := "https://"+port.Addr(p.etcd), "http://"+port.Addr(p.peer)
	flags := []string{
		"--name=default", "--data-dir=" + c.file("etcd"), "--log-level=warn",
		"--listen-client-urls=" + client, "--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer, "--initial-cluster=default=" + peer,
		"--client-cert-auth", "--trusted-ca-file=" + c.file("etcd-ca.crt"),
		"--cert-file=" + c.file("etcd-server.crt"), "--key-file=" + c.file("etcd-server.key"),
	}
	if c.opts.Ephemeral {
		flags = append(flags, "--unsafe-no-fsync")
	}
	return flags
}

func (c *Cluster) apiserverFlags(p ports) []string {
	return []string{
		"--bind-address=127.0.0.1", "--secure-port=" + strconv.Itoa(p.api), "--advertise-address=127.0.0.1",
		"--endpoint-reconciler-type=none", // with an address on loopback it refuses to start otherwise
		"--service-cluster-ip-range=10.96.0.0/16", "--allow-privileged",
		"--cert-dir=" + c.opts.StateDir, "--tls-cert-file=" + c.file("server.crt"), "--tls-private-key-file=" + c.file("server.key"),
		"--client-ca-file=" + c.file("ca.crt"),
		"--etcd-servers=https://" + port.Addr(p.etcd), "--etcd-cafile=" + c.file("etcd-ca.crt"),
		"--etcd-certfile=" + c.file("etcd-client.crt"), "--etcd-keyfile=" + c.file("etcd-client.key"),
		"--service-account-issuer=" + c.opts.Issuer,
		"--service-account-key-file=" + c.file("service-account.key"),
		"--service-account-signing-key-file=" + c.file("service-account.key"),
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		"--audit-policy-file=" + c.file("audit-policy.yaml"), "--audit-log-path=" + c.AuditLog(),
		"--kubelet-preferred-address-types=InternalIP",
	}
}

// auditPolicy records every call when it is complete: writes with both bodies, but for what carries secrets. Left out are
// only health checks and what the API server reads from itself.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - {level: None, nonResourceURLs: ["/healthz*", "/livez*", "/readyz*"]}
  - {level: None, users: ["system:apiserver"], verbs: [get, list, watch]}
  - level: Metadata
    resources:
      - {group: "", resources: [secrets, serviceaccounts/token]}
      - {group: authentication.k8s.io, resources: [tokenreviews]}
  - {level: RequestResponse, verbs: [create, update, patch, delete, deletecollection]}
  - {level: Metadata}
`
