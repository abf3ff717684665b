package rule

// AttackVersion is the version of the MITRE ATT&CK matrix that the ids below are of.
const AttackVersion = "19"

// attack is the one table of the techniques that rules may name, with their tactics. Source: facts on ATT&CK v19.
var attack = map[string]struct {
	name    string
	tactics []string
}{
	"T1552.001": {"Credentials In Files", []string{"TA0006"}},
	"T1552.005": {"Cloud Instance Metadata API", []string{"TA0006"}},
	"T1552.007": {"Container API", []string{"TA0006"}},
	"T1059.004": {"Unix Shell", []string{"TA0002"}},
	"T1041":     {"Exfiltration Over C2 Channel", []string{"TA0010"}},
	"T1611":     {"Escape to Host", []string{"TA0004"}},
	"T1068":     {"Exploitation for Privilege Escalation", []string{"TA0004"}},
	"T1048":     {"Exfiltration Over Alternative Protocol", []string{"TA0010"}},
	"T1095":     {"Non-Application Layer Protocol", []string{"TA0011"}},
	"T1496.001": {"Compute Hijacking", []string{"TA0040"}},
	"T1613":     {"Container and Resource Discovery", []string{"TA0007"}},
	"T1003.007": {"Proc Filesystem", []string{"TA0006"}},
	"T1003.008": {"/etc/passwd and /etc/shadow", []string{"TA0006"}},
	"T1053.003": {"Cron", []string{"TA0002", "TA0003", "TA0004"}},
	"T1055.008": {"Ptrace System Calls", []string{"TA0004"}},
	"T1098.004": {"SSH Authorized Keys", []string{"TA0003", "TA0004"}},
	"T1136.001": {"Local Account", []string{"TA0003"}},
	"T1574.006": {"Dynamic Linker Hijacking", []string{"TA0003", "TA0004"}},
	"T1105":     {"Ingress Tool Transfer", []string{"TA0011"}},
	"T1059":     {"Command and Scripting Interpreter", []string{"TA0002"}},
	"T1685":     {"Disable or Modify Tools", []string{"TA0112"}},
}
