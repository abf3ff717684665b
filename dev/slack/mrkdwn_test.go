package slack_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tourniquet.dev/tourniquet/dev/slack"
)

func text(s string) slack.Span { return slack.Span{Kind: slack.Text, Text: s} }

func wrap(kind slack.SpanKind, inner ...slack.Span) slack.Span {
	return slack.Span{Kind: kind, Inner: inner}
}

func TestMrkdwnIsReadAsSlackDoes(t *testing.T) {
	for in, want := range map[string][]slack.Span{
		"plain &lt;b&gt; &amp;amp;":                 {text("plain <b> &amp;")},
		"*bold* _it_ ~no~":                          {wrap(slack.Bold, text("bold")), text(" "), wrap(slack.Italic, text("it")), text(" "), wrap(slack.Strike, text("no"))},
		"*bold _both_*":                             {wrap(slack.Bold, text("bold "), wrap(slack.Italic, text("both")))},
		"a*b*c 2*3*4 snake_case_name":               {text("a*b*c 2*3*4 snake_case_name")},
		"* not bold *":                              {text("* not bold *")},
		"*two\nlines*":                              {text("*two\nlines*")},
		"`code *x*`":                                {wrap(slack.Code, text("code *x*"))},
		"`never closed":                             {text("`never closed")},
		"```a\n*b*```":                              {wrap(slack.Preformat, text("a\n*b*"))},
		"``` never closed":                          {text("``` never closed")},
		"&gt; said\nthen":                           {wrap(slack.Quote, text("said")), text("then")},
		"<@U0ALICE0000> <!channel>":                 {{Kind: slack.Person, Text: "U0ALICE0000"}, text(" "), {Kind: slack.Broadcast, Text: "channel"}},
		"<#C0INCIDENTS|incidents>":                  {{Kind: slack.ChannelLink, Text: "C0INCIDENTS"}},
		"<!subteam^S0ONCALL000>":                    {{Kind: slack.Group, Text: "S0ONCALL000"}},
		"<!date^1^{date}|then>":                     {{Kind: slack.Date, Text: "then"}},
		"<https://x.test/a?b&amp;c|see &lt;it&gt;>": {{Kind: slack.Link, Text: "see <it>", URL: "https://x.test/a?b&c"}},
		"at https://x.test/a now":                   {text("at "), {Kind: slack.Link, Text: "https://x.test/a", URL: "https://x.test/a"}, text(" now")},
		"`<!channel>`":                              {wrap(slack.Code, slack.Span{Kind: slack.Broadcast, Text: "channel"})},
		"`&lt;!channel&gt;`":                        {wrap(slack.Code, text("<!channel>"))},
		":rotating_light: :no_such_thing:":          {{Kind: slack.Emoji, Text: "🚨", Name: "rotating_light"}, text(" :no_such_thing:")},
		"a < b":                                     {text("a < b")},
		"":                                          {},
	} {
		if diff := cmp.Diff(want, slack.Mrkdwn(in, false)); diff != "" {
			t.Errorf("%q: %s", in, diff)
		}
	}
	if diff := cmp.Diff([]slack.Span{text("at https://x.test/a now")}, slack.Mrkdwn("at https://x.test/a now", true)); diff != "" {
		t.Errorf("verbatim: %s", diff)
	}
}

// FuzzMrkdwn wants that words escaped as Slack asks never act: no link, mention or broadcast comes of them in a verbatim text.
func FuzzMrkdwn(f *testing.F) {
	for _, seed := range []string{"*a*", "<!channel>", "`<@U1>`", "```", "> q", "https://x.test", "a_b_*c*", "<<@U>>", "\xff<"} {
		f.Add(seed)
	}
	escape := strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")
	f.Fuzz(func(t *testing.T, in string) {
		slack.Mrkdwn(in, false)
		for _, s := range flatten(slack.Mrkdwn(escape.Replace(in), true)) {
			switch s.Kind {
			case slack.Link, slack.Person, slack.Group, slack.ChannelLink, slack.Broadcast:
				t.Fatalf("%q made a %s", in, s.Kind)
			}
		}
	})
}

func flatten(spans []slack.Span) []slack.Span {
	var out []slack.Span
	for _, s := range spans {
		out = append(append(out, s), flatten(s.Inner)...)
	}
	return out
}
