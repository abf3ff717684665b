package adapter

import (
	"encoding/json"
	"strings"

	"tourniquet.dev/tourniquet/internal/detection"
	"tourniquet.dev/tourniquet/internal/identity"
)

// guardDutyTechniques maps finding types by their threat purpose, the word before the colon; a few types mean more.
var guardDutyTechniques = map[string]string{
	"UnauthorizedAccess": "T1078.004", "CredentialAccess": "T1528", "CryptoCurrency": "T1496.001", "Exfiltration": "T1567", "Discovery": "T1580",
	"Recon": "T1580", "Persistence": "T1098.001", "PrivilegeEscalation": "T1548.005", "Impact": "T1485", "Execution": "T1059.004",
	"Stealth": "T1685.002", "DefenseEvasion": "T1685.002", "InitialAccess": "T1078.004", "PenTest": "T1580", "Policy": "T1078.004",
	"UnauthorizedAccess:EC2/MetadataDNSRebind": "T1552.005", "Impact:Runtime/CryptoMinerExecuted": "T1496.001",
	"PrivilegeEscalation:Runtime/ContainerMountsHostDirectory": "T1611", "PrivilegeEscalation:Runtime/DockerSocketAccessed": "T1611",
}

// guardDutySeverity: GuardDuty's own bands.
func guardDutySeverity(n float64) detection.Severity {
	switch {
	case n >= 9:
		return detection.Critical
	case n >= 7:
		return detection.High
	case n >= 4:
		return detection.Medium
	case n > 0:
		return detection.Low
	}
	return detection.Medium
}

// readGuardDuty reads a finding. It is updated when its activity goes on: its time of update tells the states apart.
func readGuardDuty(r *reading) (Finding, error) {
	id, kind := r.doc.text("id"), r.doc.text("type")
	if id == "" || kind == "" {
		return Finding{}, refuse(Invalid, "id, type", "are needed")
	}
	if sample, _ := r.doc.holder([]string{"service", "additionalInfo", ""})["sample"].(bool); sample {
		return passedOver("a sample finding")
	}
	updated := r.doc.read("updatedAt")
	at, err := r.when("updatedAt")
	if err != nil {
		return Finding{}, err
	}
	purpose, _, _ := strings.Cut(kind, ":")
	attacks, err := r.from.attacks(kind, guardDutyTechniques, purpose)
	if err != nil {
		return Finding{}, err
	}
	number, _ := r.doc.take("severity").(json.Number)
	severity, _ := number.Float64()
	d := r.begin("guardduty/"+kind, first(r.doc.text("title"), kind), guardDutySeverity(severity), at, "guardduty", id, updated)
	d.Attacks = attacks
	action := r.doc.read("service", "action", "actionType")
	d.Evidence["action"], d.Evidence["description"] = action, r.doc.text("description")
	d.Evidence["address"] = r.doc.read("service", "action", "awsApiCallAction", "remoteIpDetails", "ipAddressV4")
	r.guardDutyIdentities(d, action)
	r.guardDutyPlace(d)
	if d.Workload != nil { // that this workload holds the key nobody attested
		for i := range d.Identities {
			d.Identities[i].Link = identity.Claimed
		}
	}
	if d.Workload == nil && len(d.Identities) == 0 {
		return Finding{}, refuse(Invalid, "resource", "names neither a key nor a workload that is understood")
	}
	return r.finish(d)
}

// guardDutyIdentities: of an API call GuardDuty knows the key that signed it. In any other finding the key is only one that
// has to do with the resource.
func (r *reading) guardDutyIdentities(d *detection.Detection, action string) {
	field := func(key string) string { return r.doc.read("resource", "accessKeyDetails", key) }
	if action != "AWS_API_CALL" {
		r.from.Attests = false
	}
	issuer := map[string]string{"IAMUser": "IAMUser", "AssumedRole": "Role", "Role": "Role"}[field("userType")]
	r.awsIdentities(d, r.doc.read("accountId"), field("accessKeyId"), issuer, field("userName"), "GuardDuty: "+plain(action))
	user := []string{"resource", "kubernetesDetails", "kubernetesUserDetails"}
	if account, ok := strings.CutPrefix(r.doc.read(append(user, "username")...), accountPrefix); ok {
		namespace, account, _ := strings.Cut(account, ":")
		identityOf(d, identity.Identity{Kind: identity.ServiceAccount, Scope: r.cluster(), Namespace: namespace, Name: account, Link: identity.Claimed, Evidence: reported})
	}
}

func (r *reading) cluster() string {
	return first(r.from.Cluster, name(r.doc.read("resource", "eksClusterDetails", "name")))
}

func (r *reading) guardDutyPlace(d *detection.Detection) {
	at := func(key string) string {
		return name(r.doc.read("resource", "kubernetesDetails", "kubernetesWorkloadDetails", key))
	}
	w := detection.Workload{Cluster: r.cluster(), Namespace: at("namespace"), ServiceAccount: at("serviceAccountName")}
	w.ContainerID = container(r.doc.read("resource", "containerDetails", "id"))
	switch kind := at("type"); kind {
	case "":
	case "pods":
		w.Pod, w.PodUID = at("name"), at("uid")
	default:
		w.OwnerKind, w.OwnerName, w.OwnerUID = kind, at("name"), at("uid")
	}
	if w.Cluster != "" && (w.ContainerID != "" || w.Pod != "" || w.OwnerUID != "") {
		if w.OwnerUID != "" && w.Namespace == "" {
			w.Namespace = Unresolved
		}
		d.Workload = &w
	}
}
