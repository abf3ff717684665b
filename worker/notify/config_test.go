package main

import (
	"strings"
	"testing"
	"time"

	"tourniquet.dev/tourniquet/internal/strictyaml"
)

func TestConfig(t *testing.T) {
	const good = "slack: {bot_token: /k/bot, channel: C0INCIDENTS, mentions: {oncall: S0ONCALL000}}\ntoken_key: /k/token\n"
	for name, tc := range map[string]struct{ doc, want string }{
		"a good one":             {good, ""},
		"an unknown setting":     {good + "tokenkey: x\n", "tokenkey"},
		"no channel":             {strings.Replace(good, "channel: C0INCIDENTS, ", "", 1), "slack.channel: is missing"},
		"a mention that is text": {strings.Replace(good, "S0ONCALL000", "'@oncall'", 1), "slack.mentions.oncall"},
		"a token for ever":       {good + "token_life: 9000h\n", "token_life"},
	} {
		t.Run(name, func(t *testing.T) {
			c := &config{TokenLife: 24 * time.Hour}
			err := strictyaml.Decode([]byte(tc.doc), c)
			if err == nil {
				err = c.Validate()
			}
			if (err == nil) != (tc.want == "") || (err != nil && !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}
