package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tourniquet.dev/tourniquet/starter/intake/intaketest"
)

const validConfig = `listen: 127.0.0.1:0
trust: trust.json
root: root.pub
key: intake.key
sensor_token: sensors
state: state
store: store
sources:
  - {name: scout, hmac_key: scout.key, cluster: east, account: "111122223333", technique: T1078.004, attack_version: "19"}
temporal: {address: "127.0.0.1:7233", namespace: default, key_ring: ring}
`

func TestConfiguration(t *testing.T) {
	for name, tc := range map[string]struct{ replace, with, want string }{
		"valid":             {"", "", ""},
		"unknown key":       {"trust:", "trusted:", "trusted"},
		"no token":          {"sensor_token: sensors\n", "", "sensor_token: is needed"},
		"source of no word": {"hmac_key: scout.key, ", "", "sources[0]: hmac_key or bearer is needed"},
		"bad account":       {`"111122223333"`, `"1"`, "sources[0].account"},
		"half a technique":  {`, attack_version: "19"`, "", "sources[0].technique"},
		"not an address":    {"127.0.0.1:0", "here", "listen"},
		"another kind":      {"{name: scout,", "{name: scout, kind: osquery,", "sources[0].kind"},
		"falco nowhere":     {"cluster: east,", "kind: falco,", "sources[0].cluster"},
		"no technique":      {"cluster: east,", "cluster: east, techniques: {a: b},", "sources[0].techniques"},
		"a queue":           {"hmac_key: scout.key,", "kind: aws, sqs: {url: u, region: r, credentials: c},", ""},
		"a queue and a key": {"hmac_key: scout.key,", "hmac_key: k, kind: aws, sqs: {url: u, region: r, credentials: c},", "sources[0].sqs"},
		"a queue of falco":  {"hmac_key: scout.key,", "kind: falco, sqs: {url: u, region: r, credentials: c},", "sources[0].sqs"},
		"half of TLS":       {"trust:", "tls: {cert: c, key: ''}\ntrust:", "tls: cert and key"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "intake.yaml")
			if err := os.WriteFile(path, []byte(strings.Replace(validConfig, tc.replace, tc.with, 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := loadConfig(path)
			if (err == nil) != (tc.want == "") || (err != nil && !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("error %v, want one with %q", err, tc.want)
			}
		})
	}
}

func TestSourcesAreThoseOfTheTrustFile(t *testing.T) {
	w, dir := intaketest.New(t), t.TempDir()
	long, short := filepath.Join(dir, "long"), filepath.Join(dir, "short")
	for path, text := range map[string]string{long: "0123456789abcdef", short: "0123"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, tc := range map[string]struct {
		source sourceConfig
		want   string
	}{
		"known":          {sourceConfig{Name: "scout", HMACKey: long, Bearer: long}, ""},
		"unknown":        {sourceConfig{Name: "stranger", HMACKey: long}, "not in the trust file"},
		"a short secret": {sourceConfig{Name: "scout", Bearer: short}, "shorter than"},
		"no such file":   {sourceConfig{Name: "scout", Bearer: filepath.Join(dir, "none")}, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := loadSources(w.Trust, []sourceConfig{tc.source})
			if (err == nil) != (tc.want == "") || (err != nil && !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("error %v, want one with %q", err, tc.want)
			}
		})
	}
}
