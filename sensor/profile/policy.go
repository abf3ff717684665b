package profile

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"

	"go.yaml.in/yaml/v3"

	"tourniquet.dev/tourniquet/internal/canonical"
)

// NetworkPolicy is the part of networking.k8s.io/v1 that a profile fills. It is a type of our own, so that the command
// line links no Kubernetes library; a test holds it against the real one.
type NetworkPolicy struct {
	APIVersion string     `yaml:"apiVersion"`
	Kind       string     `yaml:"kind"`
	Metadata   metadata   `yaml:"metadata"`
	Spec       policySpec `yaml:"spec"`
}

type metadata struct {
	Name        string            `yaml:"name"`
	Namespace   string            `yaml:"namespace"`
	Annotations map[string]string `yaml:"annotations"`
}

type policySpec struct {
	PodSelector podSelector  `yaml:"podSelector"`
	PolicyTypes []string     `yaml:"policyTypes"`
	Egress      []egressRule `yaml:"egress"`
}

type podSelector struct {
	MatchLabels map[string]string `yaml:"matchLabels"`
}

type egressRule struct {
	To    []peer `yaml:"to"`
	Ports []port `yaml:"ports"`
}

type peer struct {
	IPBlock ipBlock `yaml:"ipBlock"`
}

type ipBlock struct {
	CIDR string `yaml:"cidr"`
}

type port struct {
	Protocol string `yaml:"protocol"`
	Port     uint16 `yaml:"port"`
}

var (
	// ErrUnfinished says that a profile has not learned for long enough to make a policy of.
	ErrUnfinished = errors.New("the profile is still being learned")
	// ErrIncomplete says that a profile does not hold all destinations that there were.
	ErrIncomplete = errors.New("the profile had no room for all destinations")
	// ErrNoSelector says that no labels are known by which a policy could choose the workload's pods.
	ErrNoSelector = errors.New("no labels are known that choose the workload's pods")
)

// Policy returns the least that the workload needs to reach, as a policy for egress. What comes in is not observed and
// not restricted. selector chooses the pods instead of what the profile knows, if it is not empty.
func (p *Profile) Policy(selector map[string]string, unfinished bool) (NetworkPolicy, error) {
	if len(selector) == 0 {
		selector = p.Selector
	}
	switch {
	case len(selector) == 0: // an empty one would choose every pod of the namespace
		return NetworkPolicy{}, ErrNoSelector
	case p.Destinations.Full:
		return NetworkPolicy{}, ErrIncomplete
	case p.Alerting.IsZero() && !unfinished:
		return NetworkPolicy{}, ErrUnfinished
	}
	digest, err := canonical.Digest(p)
	if err != nil {
		return NetworkPolicy{}, fmt.Errorf("digest of profile: %w", err)
	}
	out := NetworkPolicy{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy",
		Metadata: metadata{Name: "tourniquet-profile-" + p.Key.ID()[:12], Namespace: p.Key.Namespace, Annotations: map[string]string{
			"tourniquet.dev/profile": digest, "tourniquet.dev/observations": strconv.FormatUint(p.Observations, 10)}},
		Spec: policySpec{PodSelector: podSelector{selector}, PolicyTypes: []string{"Egress"}, Egress: []egressRule{}}}
	for _, l := range p.Destinations.Items { // sorted by protocol and port
		want := port{l.Protocol, l.Port}
		last := len(out.Spec.Egress) - 1
		if last < 0 || out.Spec.Egress[last].Ports[0] != want {
			out.Spec.Egress = append(out.Spec.Egress, egressRule{Ports: []port{want}})
			last++
		}
		out.Spec.Egress[last].To = append(out.Spec.Egress[last].To, peer{ipBlock{l.Net}})
	}
	return out, nil
}

// YAML is the policy's one spelling.
func (n NetworkPolicy) YAML() ([]byte, error) {
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := errors.Join(enc.Encode(n), enc.Close()); err != nil {
		return nil, fmt.Errorf("encode network policy: %w", err)
	}
	return out.Bytes(), nil
}
