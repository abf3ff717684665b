package iampolicy_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"tourniquet.dev/tourniquet/internal/blast/iampolicy"
)

// statement is what the generator draws; it marshals to a statement of a document.
type statement struct {
	Effect    string
	Principal any                            `json:",omitempty"`
	Action    []string                       `json:",omitempty"`
	NotAction []string                       `json:",omitempty"`
	Resource  []string                       `json:",omitempty"`
	Condition map[string]map[string][]string `json:",omitempty"`
}

var (
	actions   = []string{"s3:GetObject", "s3:*", "s3:Get*", "*", "iam:PassRole", "sts:AssumeRole", "ec2:?un*"}
	resources = []string{"*", bucket, bucket + "/*", deploy, "arn:aws:s3:::${aws:username}/*", "arn:aws:iam::*:role/*"}
	operators = []string{"StringEquals", "StringNotEquals", "StringLikeIfExists", "ForAnyValue:StringLike", "ForAllValues:StringNotEquals", "Null", "Mystery", "DateLessThan", "Bool"}
	words     = []string{"a", "b", "*", "true", "false", "2026-01-01T00:00:00Z", "${aws:username}"}
	layers    = []iampolicy.Layer{iampolicy.IdentityLayer, iampolicy.ResourceLayer, iampolicy.BoundaryLayer, iampolicy.SessionLayer, iampolicy.SCPLayer}
)

func drawStatement(t *rapid.T, layer iampolicy.Layer, effects ...string) statement {
	s := statement{Effect: rapid.SampledFrom(effects).Draw(t, "effect")}
	list := rapid.SliceOfN(rapid.SampledFrom(actions), 1, 3).Draw(t, "actions")
	if rapid.IntRange(0, 4).Draw(t, "not") == 0 {
		s.NotAction = list
	} else {
		s.Action = list
	}
	s.Resource = rapid.SliceOfN(rapid.SampledFrom(resources), 1, 2).Draw(t, "resources")
	if layer == iampolicy.ResourceLayer {
		s.Principal = rapid.SampledFrom([]any{"*", map[string]string{"AWS": alice}, map[string]string{"AWS": account}, map[string]string{"AWS": deploy}, map[string]string{"AWS": session}}).Draw(t, "principal")
	}
	if rapid.Bool().Draw(t, "conditional") {
		s.Condition = map[string]map[string][]string{
			rapid.SampledFrom(operators).Draw(t, "operator"): {
				rapid.SampledFrom([]string{"k", "l", "aws:username"}).Draw(t, "key"): rapid.SliceOfN(rapid.SampledFrom(words), 1, 2).Draw(t, "values"),
			},
		}
	}
	return s
}

type world map[iampolicy.Layer][]statement

func drawWorld(t *rapid.T) world {
	w := world{}
	for _, layer := range layers {
		for range rapid.IntRange(0, 3).Draw(t, "statements") {
			w[layer] = append(w[layer], drawStatement(t, layer, "Allow", "Allow", "Deny"))
		}
	}
	return w
}

func (w world) set() iampolicy.PolicySet {
	read := func(layer iampolicy.Layer) []iampolicy.Policy {
		if len(w[layer]) == 0 {
			return nil
		}
		raw, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": w[layer]})
		if err != nil {
			panic(err)
		}
		return []iampolicy.Policy{iampolicy.Read(string(layer), raw)}
	}
	set := iampolicy.PolicySet{
		Identity: read(iampolicy.IdentityLayer), Resource: read(iampolicy.ResourceLayer),
		Boundary: read(iampolicy.BoundaryLayer), Session: read(iampolicy.SessionLayer),
	}
	if level := read(iampolicy.SCPLayer); level != nil {
		set.SCP = [][]iampolicy.Policy{level}
	}
	return set
}

func (w world) with(layer iampolicy.Layer, s statement) world {
	out := world{}
	for l, list := range w {
		out[l] = slices.Clone(list)
	}
	out[layer] = append(out[layer], s)
	return out
}

func drawRequest(t *rapid.T) iampolicy.Request {
	context := iampolicy.Context{Open: rapid.Bool().Draw(t, "open")}
	for _, key := range []string{"k", "l", "aws:username"} {
		switch rapid.IntRange(0, 3).Draw(t, "context") {
		case 0:
			context = context.With(key, rapid.SliceOfN(rapid.SampledFrom(words), 1, 2).Draw(t, "context values")...)
		case 1:
			context = context.WithUnknown(key)
		case 2:
			context = context.Without(key)
		}
	}
	return iampolicy.Request{
		Principal:       rapid.SampledFrom([]iampolicy.Principal{userAlice, inSession, stranger}).Draw(t, "principal"),
		Action:          rapid.SampledFrom([]string{"s3:GetObject", "iam:PassRole", "sts:AssumeRole", "ec2:RunInstances"}).Draw(t, "action"),
		Resource:        rapid.SampledFrom([]string{bucket, bucket + "/a", deploy}).Draw(t, "resource"),
		ResourceAccount: account,
		Context:         context,
	}
}

// bounds are the two answers as numbers, so that "no more reach" reads as <=.
func bounds(d iampolicy.Decision) (lower, upper int) {
	if d.Allowed() {
		lower = 1
	}
	if d.Possible() {
		upper = 1
	}
	return lower, upper
}

func TestBoundsBracket(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lower, upper := bounds(iampolicy.Evaluate(drawRequest(t), drawWorld(t).set()))
		if lower > upper {
			t.Fatalf("lower bound %d above upper bound %d", lower, upper)
		}
	})
}

func TestExplicitDenyWins(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		layer := rapid.SampledFrom(layers).Draw(t, "layer")
		deny := statement{Effect: "Deny", Action: []string{"*"}, Resource: []string{"*"}}
		if layer == iampolicy.ResourceLayer {
			deny.Principal = "*"
		}
		d := iampolicy.Evaluate(drawRequest(t), drawWorld(t).with(layer, deny).set())
		if d.Lower.Verdict != iampolicy.ExplicitDeny || d.Upper.Verdict != iampolicy.ExplicitDeny {
			t.Fatalf("%+v", d)
		}
	})
}

func TestAddedDenyNeverAddsReach(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, request := drawWorld(t), drawRequest(t)
		layer := rapid.SampledFrom(layers).Draw(t, "layer")
		lower, upper := bounds(iampolicy.Evaluate(request, w.set()))
		newLower, newUpper := bounds(iampolicy.Evaluate(request, w.with(layer, drawStatement(t, layer, "Deny")).set()))
		if newLower > lower || newUpper > upper {
			t.Fatalf("%d..%d became %d..%d", lower, upper, newLower, newUpper)
		}
	})
}

// TestAddedAllowNeverRemovesReach adds to layers that already say something: the first statement of a boundary, a session
// policy or an SCP level switches that limit on, and does remove reach.
func TestAddedAllowNeverRemovesReach(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, request := drawWorld(t), drawRequest(t)
		layer := rapid.SampledFrom(layers).Draw(t, "layer")
		if len(w[layer]) == 0 && layer != iampolicy.IdentityLayer && layer != iampolicy.ResourceLayer {
			t.Skip("switches the layer on")
		}
		lower, upper := bounds(iampolicy.Evaluate(request, w.set()))
		newLower, newUpper := bounds(iampolicy.Evaluate(request, w.with(layer, drawStatement(t, layer, "Allow")).set()))
		if newLower < lower || newUpper < upper {
			t.Fatalf("%d..%d became %d..%d", lower, upper, newLower, newUpper)
		}
	})
}

func TestOrderDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, request := drawWorld(t), drawRequest(t)
		before := iampolicy.Evaluate(request, w.set())
		for _, layer := range layers {
			if len(w[layer]) > 0 {
				w[layer] = rapid.Permutation(w[layer]).Draw(t, "order")
			}
		}
		after := iampolicy.Evaluate(request, w.set())
		if before.Lower.Verdict != after.Lower.Verdict || before.Upper.Verdict != after.Upper.Verdict {
			t.Fatalf("%+v became %+v", before, after)
		}
	})
}

func TestSplittingActionsChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, request := drawWorld(t), drawRequest(t)
		split := world{}
		for layer, list := range w {
			for _, s := range list {
				if s.NotAction != nil { // one NotAction list means neither; two statements mean not both
					split[layer] = append(split[layer], s)
					continue
				}
				for _, action := range s.Action {
					part := s
					part.Action = []string{action}
					split[layer] = append(split[layer], part)
				}
			}
		}
		before, after := iampolicy.Evaluate(request, w.set()), iampolicy.Evaluate(request, split.set())
		if before.Lower.Verdict != after.Lower.Verdict || before.Upper.Verdict != after.Upper.Verdict {
			t.Fatalf("%+v became %+v", before, after)
		}
	})
}

func TestKnowingMoreOnlyNarrows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, request := drawWorld(t), drawRequest(t)
		blind := request
		blind.Context = request.Context.WithUnknown("k")
		lower, upper := bounds(iampolicy.Evaluate(blind, w.set()))
		newLower, newUpper := bounds(iampolicy.Evaluate(request, w.set()))
		if newLower < lower || newUpper > upper {
			t.Fatalf("%d..%d became %d..%d", lower, upper, newLower, newUpper)
		}
	})
}

func TestUnreadableIsNeverNoReach(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		set := drawWorld(t).set()
		set.Identity = append(set.Identity, iampolicy.Read("broken", []byte("{")))
		d := iampolicy.Evaluate(drawRequest(t), set)
		if d.Upper.Verdict == iampolicy.ImplicitDeny && d.Upper.Reason.Layer == iampolicy.IdentityLayer || d.Allowed() {
			t.Fatalf("%+v", d)
		}
	})
}

func BenchmarkEvaluate(b *testing.B) {
	var statements []string
	for i := range 50 {
		statements = append(statements, fmt.Sprintf(`{"Effect":"Allow","Action":["ec2:Describe%d*","s3:Put%d"],"Resource":"arn:aws:s3:::b%d/*"}`, i, i, i))
	}
	set := iampolicy.PolicySet{Identity: read(append(statements, allowAll)...)}
	request := iampolicy.Request{Principal: userAlice, Action: "s3:GetObject", Resource: bucket}
	for b.Loop() {
		iampolicy.Evaluate(request, set)
	}
}
