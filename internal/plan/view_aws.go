package plan

import "regexp"

// quarantinePolicy is the managed policy that is installed in peacetime.
const quarantinePolicy = "TourniquetQuarantine"

// What IAM allows in a name, an access key's id and an account. Anything else becomes a word in brackets: the AWS CLI
// reads a value such as file://… as a file to send.
var (
	iamNameForm   = regexp.MustCompile(`^[\w+=,.@-]{1,128}$`)
	accessKeyForm = regexp.MustCompile(`^[A-Z0-9]{16,128}$`)
	accountForm   = regexp.MustCompile(`^[0-9]{12}$`)
)

func matching(form *regexp.Regexp, value, otherwise string) string {
	if form.MatchString(value) {
		return value
	}
	return otherwise
}

// policyDocument is an IAM policy.
type policyDocument struct {
	Version   string
	Statement []policyStatement
}

type policyStatement struct {
	Sid, Effect, Action, Resource string
	Condition                     map[string]map[string]string `json:",omitempty"`
}

func denyAll(sid string) policyDocument {
	return policyDocument{Version: "2012-10-17", Statement: []policyStatement{{Sid: sid, Effect: "Deny", Action: "*", Resource: "*"}}}
}

func (d *drawing) policyARN() string {
	return "arn:aws:iam::" + matching(accountForm, d.step.Target.Scope, "<account>") + ":policy/" + quarantinePolicy
}

// quarantineDocument is what the managed policy says; the enforcer refuses to attach any other.
func (d *drawing) quarantineDocument() {
	d.document("The managed policy "+quarantinePolicy+", as it is installed in peacetime", "quarantine.json", JSON, denyAll(quarantinePolicy), nil,
		"It is attached, never written: the enforcer has no right to write a policy, and refuses one that says anything else.")
}

func iam(words ...string) command { return append(command{"aws", "iam"}, words...) }

// prove is the question whose answer must be the plan's account.
func prove() command { return command{"aws", "sts", "get-caller-identity"} }

func drawQuarantinePrincipal(d *drawing) {
	key := matching(accessKeyForm, d.step.Target.Name, "<access key id>")
	d.quarantineDocument()
	d.commands("The commands", "quarantine.sh", []command{
		prove(),
		iam("get-access-key-last-used", "--access-key-id="+key),
		iam("attach-user-policy", "--user-name=<user>", "--policy-arn="+d.policyARN()),
	}, []command{
		iam("detach-user-policy", "--user-name=<user>", "--policy-arn="+d.policyARN()),
	}, "The second answer names the <user> that owns the key. Undo only where the policy was not attached before. "+d.ending())
}

func drawDeactivateKeys(d *drawing) {
	key := matching(accessKeyForm, d.step.Target.Name, "<access key id>")
	find := iam("get-access-key-last-used", "--access-key-id="+key)
	set := func(key, status string) command {
		return iam("update-access-key", "--user-name=<user>", "--access-key-id="+key, "--status="+status)
	}
	apply, undo := []command{prove(), find}, []command{}
	note := "The second answer names the <user> that owns the key. "
	if d.step.Closure != nil {
		apply = append(apply, iam("list-access-keys", "--user-name=<user>"), set(key, "Inactive"), set("<other key of the user>", "Inactive"))
		undo = append(undo, set("<other key of the user>", "<status before>"))
		note += "Every key of that user goes, none is deleted; note each status first. "
	} else {
		apply = append(apply, iam("list-access-keys", "--user-name=<user>"), set(key, "Inactive"))
	}
	d.commands("The commands", "deactivate-keys.sh", apply, append(undo, set(key, "<status before>")), note+d.ending())
}

func drawRevokeSessions(d *drawing) {
	role := "--role-name=" + matching(iamNameForm, d.step.Target.Name, "<role>")
	d.quarantineDocument()
	d.commands("The commands of an enforcer in leashed mode: every session of the role is denied", "revoke-sessions.sh",
		[]command{prove(), iam("attach-role-policy", role, "--policy-arn="+d.policyARN())},
		[]command{iam("detach-role-policy", role, "--policy-arn="+d.policyARN())},
		"Healthy sessions are denied too. Undo only where the policy was not attached before. "+d.ending())
	older := denyAll("TourniquetRevoke")
	older.Statement[0].Condition = map[string]map[string]string{"DateLessThan": {"aws:TokenIssueTime": "<time of the change>"}}
	d.document("In full mode instead: a deny of the sessions that are older than the change", "revoke.json", JSON, older, nil,
		"The time is AWS's, a second later, as 2006-01-02T15:04:05.000Z.")
	d.commands("The commands of an enforcer in full mode", "revoke-older-sessions.sh",
		[]command{prove(), iam("put-role-policy", role, "--policy-name="+d.object(), "--policy-document=file://"+d.file("revoke.json"))},
		[]command{iam("delete-role-policy", role, "--policy-name="+d.object())},
		"Sessions that are minted after it live on. "+d.ending())
}
