package blast

// A Cut says what a containment option takes away, in the graph's terms. The zero Cut takes nothing away.
type Cut struct {
	PodNetwork     bool     `json:"pod_network,omitempty"`     // the pod reaches nothing by network
	PodWrites      bool     `json:"pod_writes,omitempty"`      // tokens bound to the pod no longer write
	ServiceAccount bool     `json:"service_account,omitempty"` // the account lost its bindings
	Keys           []string `json:"keys,omitempty"`            // access keys made inactive
	Principals     []string `json:"principals,omitempty"`      // ARNs of principals under a deny of everything
	Sessions       []string `json:"sessions,omitempty"`        // ARNs of roles whose sessions are denied
}

// Asset is one thing of value that the identity reaches.
type Asset struct {
	ID   string  `json:"id"`
	Kind string  `json:"kind"` // secret, workload, role, admin, data, …
	Name string  `json:"name"`
	P    float64 `json:"p"` // probability of the best path, 1 when certain
	// Value is the asset's weight; Default says that nobody but us gave it.
	Value   float64 `json:"value"`
	Default bool    `json:"default"`
	// Path is the witness: each edge in words, with the statement or rule that allows it.
	Path []string `json:"path"`
}

// Radius is what an identity can reach.
type Radius struct {
	Score float64 `json:"score"` // 0 to 100: value reached by p, of all the value known
	Lower float64 `json:"lower"` // undecidable conditions taken as false
	Upper float64 `json:"upper"` // undecidable conditions taken as true
	Admin bool    `json:"admin"`
	// Counts are reached assets by kind; Assets the 50 of most value, best first.
	Counts     map[string]int `json:"counts"`
	Assets     []Asset        `json:"assets"`
	Unresolved []string       `json:"unresolved,omitempty"`
}
