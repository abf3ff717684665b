package blast

import (
	"fmt"
	"slices"
	"strings"

	"tourniquet.dev/tourniquet/internal/blast/iampolicy"
)

// probe is one call that stands for a class of assets, with our default value.
type probe struct {
	action, kind, name string
	value              float64
}

// probes are asked of every principal. The admin rows are privilege escalations of one call (pathfinding.cloud
// iam-001, 005, 007, 008, 009).
var probes = []probe{
	{"iam:AttachUserPolicy", "admin", "makes itself administrator (AttachUserPolicy)", 100},
	{"iam:PutUserPolicy", "admin", "makes itself administrator (PutUserPolicy)", 100},
	{"iam:AttachRolePolicy", "admin", "makes a role administrator (AttachRolePolicy)", 100},
	{"iam:CreatePolicyVersion", "admin", "rewrites a policy (CreatePolicyVersion)", 100},
	{"iam:CreateAccessKey", "identity", "makes access keys", 60},
	{"secretsmanager:GetSecretValue", "data", "reads secrets", 60},
	{"s3:GetObject", "data", "reads objects", 40},
	{"s3:PutObject", "data", "writes objects", 30},
	{"s3:ListAllMyBuckets", "data", "lists buckets", 5},
	{"dynamodb:GetItem", "data", "reads tables", 40},
	{"kms:Decrypt", "data", "decrypts", 30},
	{"ec2:RunInstances", "compute", "starts machines", 30},
	{"lambda:UpdateFunctionCode", "compute", "changes functions", 40},
	{"bedrock:InvokeModel", "compute", "invokes models", 30},
}

func (g *graph) aws(f *AWSFacts) {
	keyOn := slices.ContainsFunc(f.Owner.Keys, func(k Key) bool { return k.Status == "Active" && !slices.Contains(g.cut.Keys, k.ID) })
	ownerOn := !slices.Contains(g.cut.Principals, f.Owner.ARN)
	who := fmt.Sprintf("access key %s → %s %s", f.KeyID, f.Owner.Kind, f.Owner.Name)
	g.principal(f.Account, f.Owner, []string{who}, certain, keyOn && ownerOn)
	for _, r := range f.Roles {
		d := g.mayAssume(f.Account, f.Owner, r)
		minted := slices.ContainsFunc(f.Sessions, func(s Session) bool { return s.RoleARN == r.ARN })
		assumable := reachOf(d)
		path := []string{who, fmt.Sprintf("sts:AssumeRole → role %s (%s)", r.Name, reasonText(d.Upper.Reason))}
		if assumable.upper > 0 {
			g.principal(f.Account, r, path, assumable, keyOn && ownerOn && !slices.Contains(g.cut.Sessions, r.ARN))
		}
		if minted { // credentials of sessions that exist outlive the key
			g.principal(f.Account, r, []string{who, "a session of role " + r.Name + " was minted and lives on"}, certain, !slices.Contains(g.cut.Sessions, r.ARN))
		}
	}
}

// principal asks every probe of a user or role.
func (g *graph) principal(account string, p Principal, path []string, via reach, open bool) {
	set := policySet(p)
	for _, pr := range probes {
		for _, resource := range resourcesOf(set, pr.action) {
			d := iampolicy.Evaluate(iampolicy.Request{Principal: caller(account, p), Action: pr.action, Resource: resource, ResourceAccount: account,
				Context: iampolicy.Context{Open: true}}, set)
			r := reachOf(d)
			if r.upper == 0 {
				continue
			}
			id := "aws/" + account + "/" + pr.action + "/" + resource
			name := pr.name + " of " + resource
			if resource == "*" {
				name = pr.name
			}
			g.add(Asset{ID: id, Kind: pr.kind, Name: name, Value: pr.value, Path: append(slices.Clone(path), pr.action+" ("+reasonText(d.Upper.Reason)+")")},
				reach{via.p * r.p, via.lower * r.lower, via.upper * r.upper}, open)
		}
	}
}

func (g *graph) mayAssume(account string, from Principal, to Principal) iampolicy.Decision {
	set := policySet(from)
	set.Resource = []iampolicy.Policy{iampolicy.Read("trust policy of "+to.Name, []byte(to.Trust))}
	return iampolicy.Evaluate(iampolicy.Request{Principal: caller(account, from), Action: "sts:AssumeRole", Resource: to.ARN, ResourceAccount: account,
		Context: iampolicy.Context{Open: true}}, set)
}

func caller(account string, p Principal) iampolicy.Principal {
	if p.Kind == "role" {
		session := strings.Replace(p.ARN, ":iam:", ":sts:", 1)
		session = strings.Replace(session, ":role/", ":assumed-role/", 1) + "/session"
		return iampolicy.Principal{Kind: iampolicy.RoleSession, Account: account, ARN: session, RoleARN: p.ARN, ID: p.ID}
	}
	return iampolicy.Principal{Kind: iampolicy.User, Account: account, ARN: p.ARN, ID: p.ID}
}

// quarantine is our own managed deny. A stop plan may have it on already; it comes off by itself, so what can be reached
// is reckoned without it, and an option that keeps it on says so by its Cut.
const quarantine = ":policy/TourniquetQuarantine"

func policySet(p Principal) iampolicy.PolicySet {
	var set iampolicy.PolicySet
	for _, d := range p.Policies {
		if strings.HasSuffix(d.ARN, quarantine) {
			continue
		}
		set.Identity = append(set.Identity, iampolicy.Read(d.Name, []byte(d.Document)))
	}
	if p.Boundary != nil {
		set.Boundary = []iampolicy.Policy{iampolicy.Read(p.Boundary.Name, []byte(p.Boundary.Document))}
	}
	return set
}

// resourcesOf are the resources that the policies themselves name for the service of the action; "*" when they name
// none, or cannot be read.
func resourcesOf(set iampolicy.PolicySet, action string) []string {
	service, _, _ := strings.Cut(action, ":")
	found := map[string]bool{}
	for _, p := range set.Identity {
		if p.Err != nil {
			found["*"] = true
		}
		for _, s := range p.Document.Statements {
			for _, r := range s.Resources {
				if r == "*" || strings.HasPrefix(r, "arn:aws:"+service+":") {
					found[r] = true
				}
			}
			if len(s.NotResources) > 0 {
				found["*"] = true
			}
		}
	}
	return sortedKeys(found)
}

// reachOf turns the evaluator's bounds into p: one half where the answer cannot be decided.
func reachOf(d iampolicy.Decision) reach {
	switch {
	case d.Allowed():
		return certain
	case d.Possible():
		return reach{0.5, 0, 1}
	}
	return reach{}
}

func reasonText(r iampolicy.Reason) string {
	if r.Policy == "" {
		return string(r.Layer)
	}
	if r.Sid != "" {
		return r.Policy + ", " + r.Sid
	}
	return fmt.Sprintf("%s, statement %d", r.Policy, r.Statement+1)
}
