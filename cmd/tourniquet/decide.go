package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.temporal.io/sdk/client"

	"tourniquet.dev/tourniquet/activities"
	"tourniquet.dev/tourniquet/internal/authz"
	"tourniquet.dev/tourniquet/internal/canonical"
	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/internal/plan"
	"tourniquet.dev/tourniquet/internal/sys/store"
	"tourniquet.dev/tourniquet/internal/trust"
)

// decision is what the person asks for on the command line.
type decision struct {
	kind           authz.DecisionKind
	incident       string
	plan, option   string
	reason         string
	by, valid      time.Duration
	yes            bool
	passphraseFile string
	wait           time.Duration
}

func (a *app) decisionCommands() []*cobra.Command {
	var out []*cobra.Command
	for _, c := range []struct {
		kind        authz.DecisionKind
		short, long string
	}{
		{authz.Approve, "Approve a plan of an incident", "Without --plan and --option it is the recommended plan."},
		{authz.Deny, "Deny an incident's plans", "A deny wins over approvals and ends the asking; the stop plan stays until its end."},
		{authz.Release, "Take a containment off", "Restores what was there before. Without --plan every plan that is on is released."},
		{authz.Extend, "Let a containment stay longer", "Moves the end of every step by --by. Without --plan every plan that is on is extended."},
		{authz.Retire, "End the holds of an identity that was rotated", "The cut stays in place and is no longer watched. Without --plan every plan that is on is retired."},
	} {
		out = append(out, a.decisionCommand(c.kind, c.short, c.long))
	}
	return out
}

func (a *app) decisionCommand(kind authz.DecisionKind, summary, about string) *cobra.Command {
	d := decision{kind: kind}
	cmd := &cobra.Command{
		Use:   string(kind) + " INCIDENT --reason TEXT [--plan DIGEST] --key FILE",
		Short: summary,
		Long: fmt.Sprintf(`%s. %s

It shows exactly what is decided, asks, signs the decision with your own key (--key: our own form or OpenSSH ed25519, listed
under people[].keys of the trust file) and signals it. INCIDENT is the incident's id or its workflow key. The plan is read
from the store by its digest and judged first, as the enforcers will judge it. With a whole digest after --plan no worker has
to be running.

%s`, summary, about, codesHelp),
		Args: cobra.ExactArgs(1),
		RunE: a.do(func(cmd *cobra.Command, args []string) error {
			d.incident = args[0]
			return a.decide(cmd.Context(), d)
		}),
	}
	f := cmd.Flags()
	f.StringVar(&d.plan, "plan", "", "`DIGEST` of the plan, or its first 8 or more digits")
	f.StringVar(&d.reason, "reason", "", "`TEXT` that goes into the record (3 to 2000 bytes)")
	f.DurationVar(&d.valid, "valid", time.Hour, "how long the decision may be acted on, at most 24h")
	f.BoolVar(&d.yes, "yes", false, "do not ask")
	f.StringVar(&d.passphraseFile, "passphrase-file", "", "`FILE` with the passphrase of an OpenSSH key")
	f.DurationVar(&d.wait, "wait", 10*time.Second, "how long to wait for the incident's answer; 0 does not wait")
	switch kind {
	case authz.Approve, authz.Deny:
		f.StringVar(&d.option, "option", "", "`NAME` of the option")
	case authz.Extend:
		f.DurationVar(&d.by, "by", 0, "by how much, such as 1h, at most 720h")
	}
	return cmd
}

func (d decision) validate() error {
	switch {
	case len(strings.TrimSpace(d.reason)) < 3 || len(d.reason) > 2000:
		return usage(errors.New("--reason: 3 to 2000 bytes are needed"), "say why; it goes into the record")
	case d.valid < time.Minute || d.valid > 24*time.Hour:
		return usage(errors.New("--valid: must be between a minute and a day"), "")
	case d.kind == authz.Extend && (d.by < time.Second || d.by > 30*24*time.Hour || d.by%time.Second != 0):
		return usage(errors.New("--by: whole seconds, at most 30 days, are needed"), "such as --by 1h")
	case d.plan != "" && d.option != "":
		return usage(errors.New("--plan and --option: want one of them"), "")
	}
	return nil
}

// desk is everything that one decision needs.
type desk struct {
	policy   activities.Policy
	store    store.Reader
	signer   *authz.Signer
	person   trust.Person
	temporal client.Client
}

func (a *app) desk(ctx context.Context, d decision) (*desk, error) {
	c, err := a.load()
	if err != nil {
		return nil, err
	}
	k := &desk{}
	if k.policy.Trust, err = c.loadTrust(); err != nil {
		return nil, err
	}
	if k.policy.Books, err = c.loadBooks(k.policy.Trust); err != nil {
		return nil, err
	}
	if k.store, err = c.openStore(); err != nil {
		return nil, err
	}
	if k.signer, err = loadKey(c.Key, d.passphraseFile); err != nil {
		return nil, err
	}
	if k.person, err = personOf(k.policy.Trust, k.signer); err != nil {
		return nil, err
	}
	if k.temporal, err = c.dial(ctx); err != nil {
		return nil, err
	}
	return k, nil
}

// made is one signed decision.
type made struct {
	Plan     string         `json:"plan"`
	Kind     string         `json:"kind"`
	Person   string         `json:"person"`
	Decision string         `json:"decision"` // digest of the envelope
	Answer   string         `json:"answer,omitempty"`
	p        *plan.Plan     // what it is about
	envelope authz.Envelope // what is signalled
}

func (a *app) decide(ctx context.Context, d decision) error {
	if err := d.validate(); err != nil {
		return err
	}
	k, err := a.desk(ctx, d)
	if err != nil {
		return err
	}
	defer k.temporal.Close()
	plans, at, err := k.choose(ctx, d)
	if err != nil {
		return err
	}
	var text strings.Builder
	for i, p := range plans {
		words, err := describe(d, k.person, p)
		if err != nil {
			return err
		}
		if i > 0 {
			text.WriteString("\n")
		}
		text.WriteString(words)
	}
	if err := a.confirm(text.String(), d.yes); err != nil {
		return err
	}
	var all []*made
	for _, p := range plans {
		m, err := k.sign(ctx, d, p, a.now(), canonical.DigestOf([]byte(text.String())))
		if err != nil {
			return err
		}
		all = append(all, m)
	}
	since, answers := k.before(ctx, d, at)
	if !answers {
		d.wait = 0
	}
	for _, m := range all {
		if err := k.signal(ctx, d, m, at); err != nil {
			return err
		}
	}
	err = a.await(ctx, k, d, all, at, since)
	if a.asJSON {
		return errors.Join(a.show(all, nil), err)
	}
	return err
}

// describe says what is decided, in full: the text whose digest goes into the decision.
func describe(d decision, who trust.Person, p *plan.Plan) (string, error) {
	digest, err := p.Digest()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s decides: %s\n", who.ID, d.kind)
	fmt.Fprintf(&b, "incident %s, %s plan, option %s, playbook %s v%d\nplan     %s\n", p.IncidentID, p.Purpose, p.Option, plain(p.Playbook.Name), p.Playbook.Version, digest)
	if d.kind == authz.Extend {
		fmt.Fprintf(&b, "by       %s\n", d.by)
	}
	for _, s := range p.Steps {
		e, _ := plan.Lookup(s.Action)
		fmt.Fprintf(&b, "step %d   %s on %s in %s (uid %s)\n", s.Index, s.Action, plain(s.Target.String()), plain(s.Target.Scope), plain(s.Target.UID))
		then := "then it comes off by itself"
		if s.Expiry == plan.Review {
			then = "then people are asked again"
		}
		fmt.Fprintf(&b, "         for %s, %s", s.Duration(), then)
		if s.Group != 0 {
			fmt.Fprintf(&b, "; all of group %d or none of it", s.Group)
		}
		if s.Closure != nil {
			fmt.Fprintf(&b, "; may touch %s, at most %d", plain(s.Closure.Of), s.Closure.Max)
		}
		fmt.Fprintf(&b, "\n         %s\n", e.Does)
		for _, c := range append(nonEmpty(e.Collateral), s.Collateral...) {
			fmt.Fprintf(&b, "         also hit: %s\n", plain(c))
		}
	}
	fmt.Fprintf(&b, "reason   %s\n", plain(d.reason))
	return b.String(), nil
}

// confirm shows the text and asks. Only a yes goes on.
func (a *app) confirm(text string, yes bool) error {
	w := a.out
	if a.asJSON {
		w = a.errs
	}
	fmt.Fprint(w, text)
	if yes {
		return nil
	}
	fmt.Fprint(w, "Sign and send? [y/N] ")
	line, err := bufio.NewReader(a.in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the answer: %w", err)
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	case "":
		if errors.Is(err, io.EOF) {
			fmt.Fprintln(w)
			return usage(errors.New("nobody answered; nothing was signed"), "give --yes where nobody can be asked")
		}
	}
	return refused(errors.New("not confirmed; nothing was signed"), "")
}

// sign makes the decision, and has it judged before it goes anywhere.
func (k *desk) sign(ctx context.Context, d decision, p *plan.Plan, now time.Time, shown string) (*made, error) {
	digest, err := p.Digest()
	if err != nil {
		return nil, err
	}
	var nonce [16]byte
	rand.Read(nonce[:]) //nolint:errcheck // crypto/rand.Read never fails: it ends the program instead
	issued := now.UTC().Truncate(time.Millisecond)
	statement := authz.Decision{V: 1, Kind: d.kind, IncidentID: p.IncidentID, PlanDigest: digest, Person: k.person.ID, Assurance: trust.OwnKey,
		Nonce: hex.EncodeToString(nonce[:]), IssuedAt: issued, ExpiresAt: issued.Add(d.valid), Reason: detection.Clean(d.reason, 2000),
		ShownDigest: shown, ExtendSeconds: int64(d.by.Seconds())}
	e, err := k.signer.Sign(authz.TypeDecision, statement)
	if err != nil {
		return nil, err
	}
	envelopes, err := activities.LoadEnvelopes(ctx, k.store, p.Detections)
	if err != nil {
		return nil, err
	}
	if err := judge(k.policy, d.kind, p, append(envelopes, e), issued); err != nil {
		return nil, fmt.Errorf("%s of plan %s: %w", d.kind, short(digest), err)
	}
	name, err := e.Digest()
	if err != nil {
		return nil, err
	}
	return &made{Plan: digest, Kind: string(d.kind), Person: k.person.ID, Decision: name, p: p, envelope: e}, nil
}

// verbs are what the judge is asked for each kind of decision.
var verbs = map[authz.DecisionKind]authz.Verb{authz.Approve: authz.VerbApply, authz.Deny: authz.VerbApply,
	authz.Release: authz.VerbUndo, authz.Retire: authz.VerbRetire, authz.Extend: authz.VerbExtend}

// judge asks the one judge. Of a quorum one voice may be heard alone; a deny must be what the plan is refused for.
func judge(policy activities.Policy, kind authz.DecisionKind, p *plan.Plan, envelopes []authz.Envelope, at time.Time) error {
	_, err := authz.JudgePlan(policy.Trust, policy.Books, p, verbs[kind], envelopes, at)
	var no *authz.Refusal
	isRefusal := errors.As(err, &no)
	switch {
	case kind == authz.Deny && isRefusal && no.Code == authz.CodeDenied:
		return nil
	case kind == authz.Deny && err == nil:
		return &authz.Refusal{Code: authz.CodeNoDecision, Why: "the judge does not take this deny"}
	case kind != authz.Deny && isRefusal && no.Code == authz.CodeQuorum:
		return nil
	}
	return err
}
