package kubernetes

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// patch is a JSON patch that holds only for the very object, in the very version, that was read.
type patch []operation

type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

func newPatch(m metav1.ObjectMeta) patch {
	return patch{{"test", "/metadata/uid", string(m.UID)}, {"test", "/metadata/resourceVersion", m.ResourceVersion}}
}

// set replaces or adds a member; an add to an object replaces what stands there.
func (p patch) set(path string, value any) patch { return append(p, operation{"add", path, value}) }

// annotate sets and removes annotations; an empty value removes.
func (p patch) annotate(m metav1.ObjectMeta, change map[string]string) patch {
	if m.Annotations == nil {
		p = p.set("/metadata/annotations", map[string]string{})
	}
	for _, key := range slices.Sorted(maps.Keys(change)) {
		path := "/metadata/annotations/" + escape(key)
		if change[key] != "" {
			p = p.set(path, change[key])
		} else if _, ok := m.Annotations[key]; ok {
			p = append(p, operation{Op: "remove", Path: path})
		}
	}
	return p
}

func (p patch) encode() ([]byte, error) {
	raw, err := json.Marshal([]operation(p))
	if err != nil {
		return nil, fmt.Errorf("encode patch: %w", err)
	}
	return raw, nil
}

// escape writes a key as a JSON pointer's token.
func escape(key string) string {
	return strings.ReplaceAll(strings.ReplaceAll(key, "~", "~0"), "/", "~1")
}
