package slack_test

import (
	"bytes"
	"context"
	"errors"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	client "github.com/slack-go/slack"
	"github.com/slack-go/slack/slackutilsx"

	"tourniquet.dev/tourniquet/dev/browser"
	"tourniquet.dev/tourniquet/dev/slack"
)

// shots is where the browser tests leave pictures for people to look at; empty leaves none.
var shots = os.Getenv("SLACK_STANDIN_SCREENSHOTS")

type tab struct {
	*browser.Browser
	t   *testing.T
	ctx context.Context
}

func openTab(t *testing.T) tab {
	t.Helper()
	if _, err := browser.Find(); errors.Is(err, browser.ErrMissing) {
		t.Skipf("SKIP-REASON: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	b, err := browser.Open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, problem := range b.Problems() {
			if !strings.Contains(problem, "400 (Bad Request)") { // how the admin API refuses an incomplete form
				t.Errorf("the page had a problem: %s", problem)
			}
		}
		b.Close()
	})
	return tab{b, t, ctx}
}

func (b tab) must(err error) {
	b.t.Helper()
	if err != nil {
		b.shoot("failed-" + b.t.Name())
		b.t.Fatal(err)
	}
}

func (b tab) shoot(name string) {
	if shots == "" {
		return
	}
	if err := b.Screenshot(b.ctx, filepath.Join(shots, name+".png")); err != nil {
		b.t.Error(err)
	}
}

func incidentCard() []client.Block {
	field := func(name, value string) *client.TextBlockObject { return mrkdwn("*" + name + "*\n" + value) }
	deny := client.NewButtonBlockElement("deny", "token-2", plain("Deny"))
	deny.Style = client.StyleDanger
	option := client.NewOptionsSelectBlockElement(client.OptTypeStatic, plain("Another option"), "option",
		client.NewOptionBlockObject("narrow", plain("Block writes only"), nil), client.NewOptionBlockObject("wide", plain("Isolate and deactivate keys"), nil))
	return []client.Block{
		client.NewHeaderBlock(plain(":rotating_light: Stolen service-account token in payments")),
		client.NewSectionBlock(mrkdwn("A shell in `payments/api-7c9f` read the projected token and sent data to `203.0.113.9:443`.\nThe network was cut at once and comes back in *9 min* unless somebody decides."), nil, nil),
		client.NewSectionBlock(nil, []*client.TextBlockObject{
			field("Severity", ":red_circle: critical"), field("Technique", "T1552.007"),
			field("Blast radius", "41 → 3 assets"), field("Exposure P90", "$ 410,000 → $ 12,000"),
			field("Cost of waiting", "$ 2,300 a minute"), field("Asked", "<!subteam^S0ONCALL000>, then <@U0CHLOE0000>"),
		}, nil),
		client.NewDividerBlock(),
		client.NewSectionBlock(mrkdwn("*Plan* `sha256:4f1c…9a02`\n```kubernetes/isolate-pod   payments/api-7c9f   review 4h\nkubernetes/cut-rbac      payments-deployer   review 4h\naws/deactivate-keys      user/payments       review 24h```"), nil, nil),
		client.NewContextBlock("", mrkdwn("Said by the workload: `&lt;!channel&gt; *all good* &lt;https://evil.test|approve&gt;`")),
		client.NewActionBlock("decide", approveButton(), deny, option),
		client.NewContextBlock("", mrkdwn(":hourglass_flowing_sand: on-call is asked until 14:05, then security leads")),
	}
}

func picture(t *testing.T) []byte {
	t.Helper()
	img := image.NewRGBA(image.Rect(0, 0, 560, 180))
	for x := range 560 {
		for y := range 180 {
			c := color.RGBA{255, 255, 255, 255}
			if y > 180-(x*x)/2000 {
				c = color.RGBA{200, 16, 63, 255}
			}
			img.Set(x, y, c)
		}
	}
	var out bytes.Buffer
	if err := png.Encode(&out, img); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestPersonClicksFillsTheModalAndSeesTheCardChange(t *testing.T) {
	b := openTab(t)
	f := newFixture(t)
	_, ts, err := f.api.PostMessage(channel, client.MsgOptionText("Stolen token", false), client.MsgOptionBlocks(incidentCard()...))
	b.must(err)
	data := picture(t)
	_, err = f.api.UploadFile(client.UploadFileParameters{Filename: "r.png", Title: "Exposure over time", AltTxt: "curve", FileSize: len(data),
		Reader: bytes.NewReader(data), Channel: channel, ThreadTimestamp: ts})
	b.must(err)
	answers := 0
	f.answers(func(ic client.InteractionCallback) string {
		if ic.Type == client.InteractionTypeBlockActions {
			if _, err := f.api.OpenView(ic.TriggerID, modal()); err != nil {
				t.Error(err)
			}
			return ""
		}
		if answers++; answers == 1 {
			return `{"response_action":"errors","errors":{"b-reason":"Say what you saw"}}`
		}
		_, _, _, err := f.api.UpdateMessage(channel, ts, client.MsgOptionText("Approved", false), client.MsgOptionBlocks(
			client.NewHeaderBlock(plain(":white_check_mark: Approved by "+ic.User.Name)),
			client.NewSectionBlock(mrkdwn("Reason: "+slackutilsx.EscapeMessage(ic.View.State.Values["b-reason"]["reason"].Value)), nil, nil)))
		if err != nil {
			t.Error(err)
		}
		_, _ = f.api.PostEphemeral(channel, ic.User.ID, client.MsgOptionText("Your decision is recorded.", false))
		return ""
	})

	b.must(b.Navigate(b.ctx, f.url+"/?user="+alice))
	b.must(b.WaitVisible(b.ctx, `[data-action-id="approve"]`))
	if badge, err := b.Text(b.ctx, "#badge"); err != nil || badge != "Slack stand-in: not Slack" {
		t.Errorf("badge %q, %v", badge, err)
	}
	b.shoot("card-light")
	b.must(b.Viewport(b.ctx, 1280, 900, true))
	b.shoot("card-dark")
	b.must(b.Viewport(b.ctx, 1280, 900, false))

	b.must(b.Click(b.ctx, ".replies"))
	b.must(b.Wait(b.ctx, `document.querySelector('#thread img')?.complete && document.querySelector('#thread img').naturalWidth === 560`))
	b.shoot("thread-light")
	b.must(b.Click(b.ctx, "#thread-close"))

	b.must(b.Click(b.ctx, `[data-action-id="approve"]`))
	b.must(b.WaitText(b.ctx, "#confirm", "It stays until released."))
	b.shoot("confirm-light")
	b.must(b.Click(b.ctx, `[data-confirm="no"]`))
	b.must(b.WaitGone(b.ctx, "#confirm"))
	if n := len(f.Callbacks()); n != 0 {
		t.Errorf("%d callbacks after Back", n)
	}
	b.must(b.Click(b.ctx, `[data-action-id="approve"]`))
	b.must(b.Click(b.ctx, `[data-confirm="yes"]`))

	b.must(b.WaitVisible(b.ctx, `#modal [data-action-id="reason"]`))
	b.shoot("modal-light")
	b.must(b.Click(b.ctx, "#modal [data-submit]"))
	b.must(b.WaitVisible(b.ctx, ".refused")) // required fields are empty
	b.must(b.Type(b.ctx, `#modal [data-action-id="reason"]`, "token used from <b>elsewhere</b>"))
	b.must(b.Click(b.ctx, `#modal [data-action-id="number"] input[value="42"]`))
	b.must(b.Choose(b.ctx, `#modal [data-action-id="hours"]`, "24h"))
	b.must(b.Click(b.ctx, `#modal [data-action-id="also"] input[value="page"]`))
	b.must(b.Click(b.ctx, "#modal [data-submit]"))
	b.must(b.WaitText(b.ctx, "#modal .error", "Say what you saw"))
	b.must(b.Viewport(b.ctx, 1280, 900, true))
	b.shoot("modal-errors-dark")
	b.must(b.Viewport(b.ctx, 1280, 900, false))
	b.must(b.Click(b.ctx, "#modal [data-submit]")) // what was typed is still there

	b.must(b.WaitText(b.ctx, "#messages", "Approved by alice"))
	b.must(b.WaitText(b.ctx, "#messages", "token used from <b>elsewhere</b>"))
	b.must(b.WaitGone(b.ctx, "#modal"))
	b.must(b.WaitText(b.ctx, ".ephemeral", "Your decision is recorded."))
	b.shoot("approved-light")
	b.must(b.Choose(b.ctx, "#acting-as", boris))
	b.must(b.WaitGone(b.ctx, ".ephemeral"))
}

func TestPageSwitchesFaultsAndShowsDirectMessages(t *testing.T) {
	b := openTab(t)
	f := newFixture(t)
	dm, _, err := f.api.PostMessage(boris, client.MsgOptionText("Was this *you*?", false))
	b.must(err)
	b.must(b.Navigate(b.ctx, f.url+"/?user="+boris))
	b.must(b.Click(b.ctx, `[data-channel="`+dm+`"]`))
	b.must(b.WaitText(b.ctx, "#messages", "Was this you?"))
	b.must(b.Click(b.ctx, "#faults-panel summary"))
	b.must(b.Choose(b.ctx, "#fault-kind", "deliver-twice"))
	b.must(b.Choose(b.ctx, "#fault-method", "block_actions"))
	b.must(b.Click(b.ctx, `#fault-form [type="submit"]`))
	b.must(b.WaitText(b.ctx, "#faults", "deliver-twice · block_actions · 1×"))
	if got := f.Faults(); len(got) != 1 || got[0].Kind != slack.FaultTwice || got[0].Method != "block_actions" {
		t.Errorf("faults: %+v", got)
	}
	b.shoot("direct-and-faults-light")
	b.must(b.Viewport(b.ctx, 480, 800, true))
	b.must(b.Wait(b.ctx, "document.documentElement.scrollWidth === 480")) // nothing sticks out
	b.shoot("narrow-dark")
	b.must(b.Viewport(b.ctx, 1280, 900, false))
	b.must(b.Click(b.ctx, "#faults-clear"))
	b.must(b.Wait(b.ctx, "!document.querySelector('#faults li')"))
	b.must(b.Navigate(b.ctx, f.url+"/?user="+alice))
	b.must(b.WaitVisible(b.ctx, `[data-channel="`+channel+`"]`))
	b.must(b.WaitGone(b.ctx, `[data-channel="`+dm+`"]`)) // not hers
}

func TestUpdatedModalKeepsWhatWasTyped(t *testing.T) {
	b := openTab(t)
	f := newFixture(t)
	pick := func(chosen string) client.ModalViewRequest {
		option := client.NewOptionBlockObject
		radio := client.NewRadioButtonsBlockElement("option", option("narrow", plain("Narrow"), nil), option("wide", plain("Wide"), nil))
		radio.InitialOption = option(chosen, plain(strings.ToUpper(chosen[:1])+chosen[1:]), nil)
		choose := client.NewInputBlock("b-option", plain("Option"), nil, radio)
		choose.DispatchAction = true
		v := modal()
		v.Blocks.BlockSet = []client.Block{choose, client.NewSectionBlock(mrkdwn("Plan *"+chosen+"*"), nil, nil),
			client.NewInputBlock("b-reason", plain("Reason"), nil, client.NewPlainTextInputBlockElement(nil, "reason"))}
		return v
	}
	_, ts, err := f.api.PostMessage(channel, client.MsgOptionBlocks(card()...))
	b.must(err)
	f.answers(func(ic client.InteractionCallback) string {
		var err error
		if ic.View.ID == "" {
			_, err = f.api.OpenView(ic.TriggerID, pick("narrow"))
		} else {
			_, err = f.api.UpdateView(pick(ic.ActionCallback.BlockActions[0].SelectedOption.Value), "", ic.View.Hash, ic.View.ID)
		}
		if err != nil {
			t.Error(err)
		}
		return ""
	})
	_, err = f.Click(b.ctx, alice, channel, ts, "approve")
	b.must(err)
	b.must(b.Navigate(b.ctx, f.url+"/?user="+alice))
	b.must(b.WaitText(b.ctx, "#modal .section", "Plan narrow"))
	b.must(b.Type(b.ctx, `#modal [data-action-id="reason"]`, "seen by two"))
	b.must(b.Click(b.ctx, `#modal input[value="wide"]`))
	b.must(b.WaitText(b.ctx, "#modal .section", "Plan wide"))
	b.must(b.Wait(b.ctx, `document.querySelector('#modal [data-action-id="reason"]').value === 'seen by two'`))
	b.must(b.Wait(b.ctx, `document.querySelector('#modal input:checked').value === 'wide'`))
}

func TestPageShowsHostileWordsAsWords(t *testing.T) {
	b := openTab(t)
	f := newFixture(t)
	hostile := `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>`
	_, _, err := f.api.PostMessage(channel, client.MsgOptionText(hostile, false))
	b.must(err)
	_, _, err = f.api.PostMessage(channel, client.MsgOptionText("x", false), client.MsgOptionBlocks(
		client.NewHeaderBlock(plain(hostile)), client.NewSectionBlock(mrkdwn("<javascript:alert(1)|click me> end"), nil, nil),
		client.NewRichTextBlock("r", client.NewRichTextSection(client.NewRichTextSectionTextElement(hostile, nil)))))
	b.must(err)
	b.must(b.Navigate(b.ctx, f.url))
	b.must(b.WaitText(b.ctx, "#messages", "click me end"))
	b.must(b.WaitText(b.ctx, "#messages", `onerror="document.title='owned'"`))
	var found struct{ Title, Tags string }
	b.must(b.Evaluate(b.ctx, `{Title: document.title, Tags: [...document.querySelectorAll('#messages img, #messages script, #messages a')].map((e) => e.outerHTML).join()}`, &found))
	if found.Title != "Slack stand-in" || found.Tags != "" {
		t.Errorf("%+v", found)
	}
}

func TestPageWarnsOfAMissedAcknowledgement(t *testing.T) {
	b := openTab(t)
	f := newFixture(t)
	_, _, err := f.api.PostMessage(channel, client.MsgOptionText("x", false), client.MsgOptionBlocks(card()...))
	b.must(err)
	b.must(f.AddFault(slack.Fault{Kind: slack.FaultBadSignature, Times: 1}))
	b.must(b.Navigate(b.ctx, f.url+"/?user="+boris))
	b.must(b.Click(b.ctx, `[data-action-id="deny"]`))
	b.must(b.WaitText(b.ctx, ".warning", "did not acknowledge your click: answered with HTTP status 401"))
	b.shoot("warning-light")
	b.must(b.Click(b.ctx, `[data-action-id="deny"]`))
	b.must(b.WaitGone(b.ctx, ".warning"))
	text, err := b.Text(b.ctx, "#callbacks")
	b.must(err)
	if !strings.Contains(text, "⚠") || !strings.Contains(text, "✓") {
		t.Errorf("list of callbacks: %q", text)
	}
}
