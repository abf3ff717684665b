package plan

import (
	"fmt"
	"path"
	"strings"
	"time"
)

// Language is what a view is written in.
type Language string

// The languages of views.
const (
	YAML  Language = "yaml"
	JSON  Language = "json"
	Shell Language = "shell"
)

// View is one native file of a step, for people: to read, and to apply by hand where Tourniquet cannot. It says what
// the step's action does, and has no authority: enforcers carry out plans, never views. What only the enforcer's intent
// fixes, or only a look at the system tells, stands as a word in angle brackets; whoever applies the file puts it in.
type View struct {
	Step   int    `json:"step"`
	Action Action `json:"action"`
	Title  string `json:"title"`
	// File is a name for the file, free of anything that a plan's targets say.
	File     string   `json:"file"`
	Language Language `json:"language"`
	Apply    string   `json:"apply"`
	// Undo is empty where another view of the step takes the change back.
	Undo string `json:"undo,omitempty"`
	// Note says what the file leaves out.
	Note string `json:"note,omitempty"`
}

// UndoFile is a name for the file that takes the change back.
func (v View) UndoFile() string { return undoName(v.File) }

func undoName(file string) string {
	ext := path.Ext(file)
	return strings.TrimSuffix(file, ext) + ".undo" + ext
}

// Views renders the native files of every step, in order: documents through typed encoders and each shell word quoted,
// so that no name can change what a file says. The same plan gives the same bytes.
func Views(p *Plan) ([]View, error) {
	digest, err := p.Digest()
	if err != nil {
		return nil, fmt.Errorf("views: %w", err)
	}
	var out []View
	for _, s := range p.Steps {
		entry, known := Lookup(s.Action)
		d := drawing{plan: p, digest: digest, step: s, entry: entry}
		render, ok := drawings[s.Action]
		if !known || !ok {
			return nil, fmt.Errorf("views: step %d: %.40q is not in the catalogue", s.Index, s.Action)
		}
		render(&d)
		if d.err != nil {
			return nil, fmt.Errorf("views: step %d: %w", s.Index, d.err)
		}
		out = append(out, d.views...)
	}
	return out, nil
}

var drawings = map[Action]func(*drawing){
	NodeCutNetwork:         drawOrder,
	NodeFreeze:             drawOrder,
	NodeKillPod:            drawOrder,
	KubernetesBlockWrites:  drawBlockWrites,
	KubernetesCutRBAC:      drawCutRBAC,
	KubernetesIsolatePod:   drawIsolatePod,
	AWSQuarantinePrincipal: drawQuarantinePrincipal,
	AWSDeactivateKeys:      drawDeactivateKeys,
	AWSRevokeSessions:      drawRevokeSessions,
}

// drawing collects the views of one step.
type drawing struct {
	plan   *Plan
	digest string
	step   Step
	entry  Entry
	views  []View
	err    error
}

// file is the name of the step's file of this kind.
func (d *drawing) file(kind string) string {
	return fmt.Sprintf("step-%02d-%s", d.step.Index, kind)
}

// object is the name that the enforcer gives to what it makes for this step.
func (d *drawing) object() string {
	return Intent{IncidentID: d.plan.IncidentID, PlanDigest: d.digest, Step: d.step}.ObjectName()
}

// ending says what an applied file does not do by itself.
func (d *drawing) ending() string {
	if d.step.Expiry == Review {
		return fmt.Sprintf("Stays on; Tourniquet asks again after %s, a file applied by hand asks nobody.", length(d.step.Duration()))
	}
	return fmt.Sprintf("Tourniquet takes it off after %s; a file applied by hand stays until somebody does.", length(d.step.Duration()))
}

// length writes a duration without zero parts: 4h, 1h30m, 90s.
func length(d time.Duration) string {
	s := strings.TrimSuffix(d.String(), "m0s")
	if s != d.String() {
		s += "m"
	}
	if t := strings.TrimSuffix(s, "h0m"); t != s {
		s = t + "h"
	}
	return s
}

func (d *drawing) add(v View) {
	v.Step, v.Action = d.step.Index, d.step.Action
	d.views = append(d.views, v)
}

// document adds a JSON or YAML file; a nil undo: another view of the step takes it back.
func (d *drawing) document(title, kind string, language Language, apply, undo any, note string) {
	v := View{Title: title, File: d.file(kind), Language: language, Note: note}
	v.Apply = d.encode(language, apply)
	if undo != nil {
		v.Undo = d.encode(language, undo)
	}
	d.add(v)
}

func (d *drawing) encode(language Language, document any) string {
	encoder := encodeJSON
	if language == YAML {
		encoder = encodeYAML
	}
	text, err := encoder(document)
	if err != nil && d.err == nil {
		d.err = err
	}
	return text
}

// commands adds a shell file.
func (d *drawing) commands(title, kind string, apply, undo []command, note string) {
	d.add(View{Title: title, File: d.file(kind), Language: Shell, Apply: script(apply), Undo: script(undo), Note: note})
}
