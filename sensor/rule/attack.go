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
	"T1105":     {"Ingress Tool Transfer", []string{"TA0011"}},
	"T1059":     {"Command and Scripting Interpreter", []string{"TA0002"}},
	"T1685":     {"Disable or Modify Tools", []string{"TA0112"}},
}
