package click_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"tourniquet.dev/tourniquet/internal/card"
	"tourniquet.dev/tourniquet/starter/decide/click"
)

// A vector is a good request with one thing wrong.
type vector struct {
	payload func(d *desk, p object)   // before it is signed
	request func(d *desk, r *request) // after
	status  int
	want    click.Code
}

func header(name, value string) func(*desk, *request) {
	return func(_ *desk, r *request) { r.header.Set(name, value) }
}

func at(offset time.Duration) func(*desk, *request) {
	return func(d *desk, r *request) { r.resign(d.now.Add(offset), signingSecret) }
}

// body replaces the body and signs it well.
func body(change func(string) string) func(*desk, *request) {
	return func(d *desk, r *request) { r.body = change(r.body); r.resign(d.now, signingSecret) }
}

func signature(change func(string) string) func(*desk, *request) {
	return func(_ *desk, r *request) {
		r.header.Set("X-Slack-Signature", change(r.header.Get("X-Slack-Signature")))
	}
}

func put(path ...any) func(*desk, object) {
	return func(_ *desk, p object) {
		value, keys := path[len(path)-1], path[:len(path)-1]
		for _, k := range keys[:len(keys)-1] {
			switch next := p[k.(string)].(type) {
			case object:
				p = next
			case []any:
				p = next[0].(object)
			}
		}
		if value == nil {
			delete(p, keys[len(keys)-1].(string))
			return
		}
		p[keys[len(keys)-1].(string)] = value
	}
}

// token puts a changed token on the button.
func token(change func(*card.Token)) func(*desk, object) {
	return func(d *desk, p object) {
		tk := d.token(card.OnOffer)
		change(&tk)
		put("actions", "value", d.seal(tk))(d, p)
	}
}

func flip(i int) func(string) string {
	return func(s string) string { return s[:i] + string(s[i]^1) + s[i+1:] }
}

const (
	unauthorized = http.StatusUnauthorized
	bad          = http.StatusBadRequest
	forbidden    = http.StatusForbidden
	told         = http.StatusOK // the person is told why
)

func vectors() map[string]vector {
	v := map[string]vector{
		// Signature and time.
		"no signature":                   {nil, func(_ *desk, r *request) { r.header.Del("X-Slack-Signature") }, unauthorized, click.CodeSignature},
		"an empty signature":             {nil, header("X-Slack-Signature", ""), unauthorized, click.CodeSignature},
		"the version alone":              {nil, header("X-Slack-Signature", "v0="), unauthorized, click.CodeSignature},
		"two signatures":                 {nil, func(_ *desk, r *request) { r.header.Add("X-Slack-Signature", r.header.Get("X-Slack-Signature")) }, unauthorized, click.CodeSignature},
		"another version":                {nil, signature(func(s string) string { return "v1" + s[2:] }), unauthorized, click.CodeSignature},
		"no version":                     {nil, signature(func(s string) string { return s[3:] }), unauthorized, click.CodeSignature},
		"upper-case digits":              {nil, signature(func(s string) string { return "v0=" + strings.ToUpper(s[3:]) }), unauthorized, click.CodeSignature},
		"an upper-case version":          {nil, signature(func(s string) string { return "V" + s[1:] }), unauthorized, click.CodeSignature},
		"a short signature":              {nil, signature(func(s string) string { return s[:len(s)-2] }), unauthorized, click.CodeSignature},
		"a long signature":               {nil, signature(func(s string) string { return s + "00" }), unauthorized, click.CodeSignature},
		"a blank before the signature":   {nil, signature(func(s string) string { return " " + s }), unauthorized, click.CodeSignature},
		"a signature that is not hex":    {nil, signature(func(s string) string { return "v0=" + strings.Repeat("zz", 32) }), unauthorized, click.CodeSignature},
		"zeros as signature":             {nil, signature(func(s string) string { return "v0=" + strings.Repeat("0", 64) }), unauthorized, click.CodeSignature},
		"another secret":                 {nil, func(d *desk, r *request) { r.resign(d.now, "another secret") }, unauthorized, click.CodeSignature},
		"an empty secret":                {nil, func(d *desk, r *request) { r.resign(d.now, "") }, unauthorized, click.CodeSignature},
		"a byte of the body flipped":     {nil, func(_ *desk, r *request) { r.body = flip(200)(r.body) }, unauthorized, click.CodeSignature},
		"the last byte of the body gone": {nil, func(_ *desk, r *request) { r.body = r.body[:len(r.body)-1] }, unauthorized, click.CodeSignature},
		"a byte more in the body":        {nil, func(_ *desk, r *request) { r.body += "&" }, unauthorized, click.CodeSignature},
		"no body":                        {nil, func(_ *desk, r *request) { r.body = "" }, unauthorized, click.CodeSignature},
		"the signature of another time": {nil, func(d *desk, r *request) {
			r.header.Set("X-Slack-Request-Timestamp", strconv.FormatInt(d.now.Unix()+1, 10))
		}, unauthorized, click.CodeSignature},
		"a colon moved into the time": {nil, func(d *desk, r *request) {
			r.header.Set("X-Slack-Request-Timestamp", strconv.FormatInt(d.now.Unix(), 10)+":payload")
		}, unauthorized, click.CodeTime},
		"no time":       {nil, func(_ *desk, r *request) { r.header.Del("X-Slack-Request-Timestamp") }, unauthorized, click.CodeSignature},
		"an empty time": {nil, header("X-Slack-Request-Timestamp", ""), unauthorized, click.CodeTime},
		"two times": {nil, func(_ *desk, r *request) {
			r.header.Add("X-Slack-Request-Timestamp", r.header.Get("X-Slack-Request-Timestamp"))
		}, unauthorized, click.CodeSignature},
		"a time with a plus sign": {nil, func(d *desk, r *request) {
			r.header.Set("X-Slack-Request-Timestamp", "+"+strconv.FormatInt(d.now.Unix(), 10))
		}, unauthorized, click.CodeTime},
		"a time with a leading zero": {nil, func(d *desk, r *request) {
			r.header.Set("X-Slack-Request-Timestamp", "0"+strconv.FormatInt(d.now.Unix(), 10))
		}, unauthorized, click.CodeTime},
		"a time in milliseconds": {nil, func(d *desk, r *request) {
			r.header.Set("X-Slack-Request-Timestamp", strconv.FormatInt(d.now.UnixMilli(), 10))
		}, unauthorized, click.CodeTime},
		"a negative time":                  {nil, header("X-Slack-Request-Timestamp", "-1"), unauthorized, click.CodeTime},
		"a time that is no number":         {nil, header("X-Slack-Request-Timestamp", "now"), unauthorized, click.CodeTime},
		"a time beyond all bounds":         {nil, header("X-Slack-Request-Timestamp", "99999999999999999999"), unauthorized, click.CodeTime},
		"a well-signed time too old":       {nil, at(-5*time.Minute - time.Second), unauthorized, click.CodeTime},
		"a well-signed time too far ahead": {nil, at(5*time.Minute + time.Second), unauthorized, click.CodeTime},
		"a well-signed time of last year":  {nil, at(-365 * 24 * time.Hour), unauthorized, click.CodeTime},

		// Form: well signed, but not as Slack sends it.
		"a payload in the query": {nil, func(_ *desk, r *request) { r.target += "?" + r.body }, bad, click.CodeForm},
		"a payload in the query only": {nil, func(d *desk, r *request) {
			r.target += "?" + r.body
			r.body = "nothing=here"
			r.resign(d.now, signingSecret)
		}, bad, click.CodeForm},
		"an empty payload in the body, one in the query": {nil, func(d *desk, r *request) {
			r.target += "?" + r.body
			r.body = "payload="
			r.resign(d.now, signingSecret)
		}, bad, click.CodeForm},
		"two payloads":                   {nil, body(func(s string) string { return s + "&" + s }), bad, click.CodeForm},
		"a payload and something else":   {nil, body(func(s string) string { return s + "&command=/approve" }), bad, click.CodeForm},
		"a form without a payload":       {nil, body(func(string) string { return "a=b" }), bad, click.CodeForm},
		"a signed empty body":            {nil, body(func(string) string { return "" }), bad, click.CodeForm},
		"a broken escape":                {nil, body(func(s string) string { return s + "%zz" }), bad, click.CodeForm},
		"a semicolon as separator":       {nil, body(func(s string) string { return s + ";a=b" }), bad, click.CodeForm},
		"a JSON body":                    {nil, header("Content-Type", "application/json"), bad, click.CodeForm},
		"a multipart body":               {nil, header("Content-Type", "multipart/form-data; boundary=x"), bad, click.CodeForm},
		"no content type":                {nil, func(_ *desk, r *request) { r.header.Del("Content-Type") }, bad, click.CodeForm},
		"a payload that is not JSON":     {nil, body(func(string) string { return "payload=hello" }), bad, click.CodePayload},
		"a payload cut short":            {nil, body(func(s string) string { return s[:len(s)/2] }), bad, click.CodePayload},
		"a payload that is a list":       {nil, body(func(string) string { return "payload=" + url.QueryEscape(`[{}]`) }), bad, click.CodePayload},
		"a payload that is not UTF-8":    {nil, body(func(string) string { return "payload=%ff%fe" }), bad, click.CodePayload},
		"a payload with a wrong type":    {put("actions", object{"a": 1}), nil, bad, click.CodePayload},
		"a payload with text after it":   {nil, body(func(s string) string { return s + url.QueryEscape(`{}`) }), bad, click.CodePayload},
		"a body of more than a mebibyte": {nil, body(func(s string) string { return s + strings.Repeat("x", 1<<20) }), http.StatusRequestEntityTooLarge, click.CodeBody},
		"an empty object":                {nil, body(func(string) string { return "payload={}" }), forbidden, click.CodeApp},

		// App, team, kind.
		"another app":                  {put("api_app_id", "A0OTHER"), nil, forbidden, click.CodeApp},
		"no app":                       {put("api_app_id", nil), nil, forbidden, click.CodeApp},
		"another team":                 {put("team", "id", "T0OTHER"), nil, forbidden, click.CodeTeam},
		"no team":                      {put("team", nil), nil, forbidden, click.CodeTeam},
		"a user of another team":       {put("user", "team_id", "T0OTHER"), nil, forbidden, click.CodeTeam},
		"a user of no team":            {put("user", "team_id", nil), nil, forbidden, click.CodeTeam},
		"no user":                      {put("user", "id", ""), nil, forbidden, click.CodeTeam},
		"an enterprise we are not of":  {put("enterprise", object{"id": "E0"}), nil, forbidden, click.CodeTeam},
		"another team's modal":         {put("view", object{"team_id": "T0OTHER", "app_id": appID}), nil, forbidden, click.CodeApp},
		"another app's modal":          {put("view", object{"team_id": teamID, "app_id": "A0OTHER"}), nil, forbidden, click.CodeApp},
		"a shortcut":                   {put("type", "shortcut"), nil, bad, click.CodeInteraction},
		"a message action":             {put("type", "message_action"), nil, bad, click.CodeInteraction},
		"a view that was closed":       {put("type", "view_closed"), nil, bad, click.CodeInteraction},
		"no type":                      {put("type", nil), nil, bad, click.CodeInteraction},
		"no action":                    {put("actions", []any{}), nil, bad, click.CodeInteraction},
		"two actions":                  {put("actions", []any{object{}, object{}}), nil, bad, click.CodeInteraction},
		"a submission without a modal": {put("type", "view_submission"), nil, bad, click.CodeInteraction},

		// The click: whoever made it is told.
		"a button of no kind of ours":      {put("actions", "action_id", "approve_all"), nil, told, click.CodeButton},
		"a button in capitals":             {put("actions", "action_id", "Approve"), nil, told, click.CodeButton},
		"a button without an id":           {put("actions", "action_id", nil), nil, told, click.CodeButton},
		"a menu instead of a button":       {put("actions", "type", "static_select"), nil, told, click.CodeButton},
		"a button without a token":         {put("actions", "value", ""), nil, told, click.CodeToken},
		"a plan's digest as token":         {put("actions", "value", "sha256:"+strings.Repeat("a", 64)), nil, told, click.CodeToken},
		"a hold's button with an offer":    {put("actions", "action_id", card.ActionRelease), nil, told, click.CodeToken},
		"a token of a hold on an offer":    {func(d *desk, p object) { put("actions", "value", d.seal(d.token(card.OnHold)))(d, p) }, nil, told, click.CodeToken},
		"an expired token":                 {token(func(t *card.Token) { t.Expiry = start }), nil, told, click.CodeExpired},
		"a token of another channel":       {token(func(t *card.Token) { t.Channel = "C0OTHER" }), nil, told, click.CodeStale},
		"a token of another message":       {token(func(t *card.Token) { t.TS = "1.1" }), nil, told, click.CodeStale},
		"a token of another incident":      {token(func(t *card.Token) { t.Incident = "iaaaaaaaaaaaa" }), nil, told, "wrong-incident"},
		"a token with an unknown plan":     {token(func(t *card.Token) { t.Plans[0].Plan = "sha256:" + strings.Repeat("c", 64) }), nil, told, click.CodePlan},
		"another channel":                  {put("channel", "id", "C0OTHER"), nil, told, click.CodeStale},
		"another channel in the container": {put("container", "channel_id", "C0OTHER"), nil, told, click.CodeStale},
		"another message":                  {put("message", "ts", "1.1"), nil, told, click.CodeStale},
		"another message in the container": {put("container", "message_ts", "1.1"), nil, told, click.CodeStale},
		"a message nobody else sees":       {put("container", "is_ephemeral", true), nil, told, click.CodeStale},
		"a container of another kind":      {put("container", "type", "message_attachment"), nil, told, click.CodeStale},
		"no container":                     {put("container", nil), nil, told, click.CodeStale},
		"no channel":                       {put("channel", nil), nil, told, click.CodeStale},
		"no message":                       {put("message", nil), nil, told, click.CodeStale},
		"a user of nobody's":               {put("user", "id", "U0STRANGER"), nil, told, click.CodePerson},
		"a name instead of an id":          {put("user", "id", "ana"), nil, told, click.CodePerson},
		"an id in lower case":              {put("user", "id", "u001"), nil, told, click.CodePerson},
	}
	// One bit of the token, wherever it is.
	for _, i := range []int{0, 3, 10, 40, 100, 200, 300, 400} {
		v["bit in place "+strconv.Itoa(i)+" of the token"] = vector{func(d *desk, p object) {
			put("actions", "value", flip(i)(d.seal(d.token(card.OnOffer))))(d, p)
		}, nil, told, click.CodeToken}
	}
	return v
}

func TestForgedRequestsHaveNoEffect(t *testing.T) {
	all := vectors()
	if len(all) < 50 {
		t.Fatalf("only %d vectors", len(all))
	}
	for name, tc := range all {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			p := pressed("U001", card.ActionApprove, d.seal(d.token(card.OnOffer)))
			if tc.payload != nil {
				tc.payload(d, p)
			}
			r := d.sign(p)
			if tc.request != nil {
				tc.request(d, r)
			}
			status, answer := d.send(r)
			if status != tc.status || answer != nil || d.count(string(tc.want)) != 1 {
				t.Errorf("status %d, answer %v, counts %v; want %d and %s", status, answer, d.counts, tc.status, tc.want)
			}
			if len(d.views()) != 0 || len(d.decisions()) != 0 || len(d.temporal.signals()) != 0 {
				t.Errorf("%d modals, %d decisions, %d signals", len(d.views()), len(d.decisions()), len(d.temporal.signals()))
			}
			wantTold := 0
			if tc.status == told {
				wantTold = 1
			}
			if got := d.told(); len(got) != wantTold {
				t.Errorf("told %q", got)
			}
			if tc.status == unauthorized && (len(d.entries("request-seen")) != 0 || len(d.entries("decision-refused")) != 0) {
				t.Error("an unsigned request wrote into the ledger")
			}
			// The control: nothing is left behind that would keep the real click out.
			if d.press("U001", card.ActionApprove, d.token(card.OnOffer)) == nil {
				t.Errorf("the real click was refused: %v", d.counts)
			}
		})
	}
}

// The order of checks keeps bytes that nobody signed away from the parsers: a wrong signature is found before a bad form.
func TestSignatureComesFirst(t *testing.T) {
	d := newDesk(t)
	req := httptest.NewRequest(http.MethodPost, "/slack/interactions?payload=x", strings.NewReader("%zz"))
	w := httptest.NewRecorder()
	d.door.ServeHTTP(w, req)
	if w.Code != unauthorized || d.count(string(click.CodeSignature)) != 1 {
		t.Errorf("status %d, counts %v", w.Code, d.counts)
	}
}

func FuzzRequest(f *testing.F) {
	d := newDesk(f)
	good := d.sign(pressed("U001", card.ActionApprove, "t1.x"))
	f.Add(good.body, "application/x-www-form-urlencoded", "")
	f.Add("payload={}", "application/x-www-form-urlencoded", "payload=%7B%7D")
	f.Fuzz(func(t *testing.T, b, contentType, query string) {
		r := &request{method: http.MethodPost, target: "/slack/interactions", header: http.Header{}, body: b}
		r.header.Set("Content-Type", contentType)
		r.resign(d.now, signingSecret)
		req := httptest.NewRequest(r.method, r.target, strings.NewReader(r.body))
		req.Header, req.URL.RawQuery = r.header, query
		d.door.ServeHTTP(httptest.NewRecorder(), req)
		if len(d.views()) != 0 || d.count("opened")+d.count("decided") != 0 {
			t.Fatalf("%q opened or decided something", b)
		}
	})
}
