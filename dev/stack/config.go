package stack

// doc is a configuration file. What a part is not given here, it does not have.
type doc = map[string]any

func (s *Stack) temporal() doc {
	return doc{"address": s.TemporalAddr, "namespace": "default", "key_ring": s.key("codec.json")}
}

// common is what every worker is given.
func (s *Stack) common() doc {
	return doc{"temporal": s.temporal(), "trust": s.path("trust.json"), "root": s.path("root.pub"), "store": s.path("store")}
}

func with(base doc, more doc) doc {
	for k, v := range more {
		base[k] = v
	}
	return base
}

func (s *Stack) orchestrate() doc {
	return with(s.common(), doc{"playbooks": s.path("playbooks"), "codec": doc{"listen": s.CodecURL[len("http://"):], "origins": []string{s.UIURL}}})
}

func (s *Stack) investigate() doc {
	return with(s.common(), doc{"key": s.key("investigate.key"), "aws": s.awsConfig("investigate"),
		"kubernetes": doc{"kubeconfig": s.key("investigate.kubeconfig"), "cluster": Cluster}})
}

func (s *Stack) notify() doc {
	return with(s.common(), doc{"slack": doc{"url": s.SlackURL + "api/", "bot_token": s.key("slack-bot-token"), "channel": Channel, "mentions": mentions},
		"token_key": s.key("card-token.key")})
}

func (s *Stack) containAWS() doc {
	return with(s.common(), doc{"playbooks": s.path("playbooks"), "key": s.key("contain-aws.key"), "journal": s.path("journal-contain-aws"),
		"aws": s.awsConfig("contain-aws")})
}

func (s *Stack) containKubernetes() doc {
	return with(s.common(), doc{"playbooks": s.path("playbooks"), "key": s.key("contain-kubernetes.key"), "journal": s.path("journal-contain-kubernetes"),
		"kubernetes": doc{"kubeconfig": s.key("contain-kubernetes.kubeconfig"), "cluster": Cluster}})
}

func (s *Stack) awsConfig(role string) doc {
	return doc{"endpoint": s.AWSURL, "region": Region, "credentials": s.key(role + ".aws.json"), "account": Account,
		"quarantine_policy_arn": QuarantinePolicy, "mode": "leashed"}
}

func (s *Stack) decide() doc {
	return doc{"listen": s.Decide, "slack": doc{"url": s.SlackURL + "api/", "app_id": "A0STANDIN00", "team_id": "T0STANDIN00",
		"bot_token": s.key("slack-bot-token"), "signing_secret": s.key("slack-signing-secret")},
		"temporal": s.temporal(), "trust": s.path("trust.json"), "root": s.path("root.pub"), "playbooks": s.path("playbooks"),
		"key": s.key("decide.key"), "token_key": s.key("card-token.key"), "journal": s.path("journal-decide"), "store": s.path("store")}
}

func (s *Stack) intake() doc {
	return doc{"listen": s.IntakeURL[len("http://"):], "trust": s.path("trust.json"), "root": s.path("root.pub"), "key": s.key("intake.key"),
		"sensor_token": s.key("sensor-token"), "state": s.path("intake"), "store": s.path("store"), "temporal": s.temporal()}
}

// sensor pins nothing: its holds end with it, so that a demo leaves no object in the kernel.
func (s *Stack) sensor() doc {
	source := doc{"pins": ""}
	if s.recording != nil {
		source = s.recording
	}
	return doc{"cluster": Cluster, "node": Node, "account": Account, "trust": s.path("trust.json"), "root": s.path("root.pub"),
		"key": s.key("node.key"), "certificate": s.path("node.json"), "state": s.path("sensor"), "source": source,
		"kubernetes": doc{"kubeconfig": s.key("sensor.kubeconfig")}, "intake": doc{"url": s.IntakeURL, "token": s.key("sensor-token")}}
}

// operator is the command line's configuration, for one of the people.
func (s *Stack) operator(person string) doc {
	return doc{"temporal": s.temporal(), "trust": s.path("trust.json"), "root": s.path("root.pub"), "playbooks": s.path("playbooks"), "store": s.path("store"),
		"key": s.key("person-" + person + ".key"), "journals": []doc{
			{"name": "tourniquet/decide", "role": "decide", "dir": s.path("journal-decide")},
			{"name": "tourniquet/contain-aws/" + Account, "role": "contain-aws", "dir": s.path("journal-contain-aws")},
			{"name": "tourniquet/contain-kubernetes/" + Cluster, "role": "contain-kubernetes", "dir": s.path("journal-contain-kubernetes")},
		}}
}

// Operator is the path of the command line's configuration for one of the people.
func (s *Stack) Operator(person string) string { return s.path("config", "tourniquet-"+person+".yaml") }
