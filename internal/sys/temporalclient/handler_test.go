package temporalclient_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/converter"
	"google.golang.org/protobuf/encoding/protojson"

	"tourniquet.dev/tourniquet/internal/sys/temporalclient"
)

const ui = "http://127.0.0.1:8233"

func TestCodecHandler(t *testing.T) {
	ring, _ := newRing(t)
	secret := encode(t, at(temporalclient.BoundDataConverter(ring), "w"), canary)
	clear := encode(t, converter.GetDefaultDataConverter(), "in the clear")
	body, err := protojson.Marshal(&commonpb.Payloads{Payloads: []*commonpb.Payload{secret, clear}})
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		method, path, origin, auth, token, body string
		want                                    int
	}{
		"the Web UI decodes":                {"POST", "/decode", ui, "", "", string(body), 200},
		"with its token":                    {"POST", "/decode", ui, "Bearer t0", "t0", string(body), 200},
		"without the token":                 {"POST", "/decode", ui, "", "t0", string(body), 401},
		"with another token":                {"POST", "/decode", ui, "Bearer t1", "t0", string(body), 401},
		"a preflight":                       {"OPTIONS", "/decode", ui, "", "", "", 204},
		"another origin":                    {"POST", "/decode", "http://evil.example", "", "", string(body), 403},
		"another origin's preflight":        {"OPTIONS", "/decode", "http://evil.example", "", "", "", 403},
		"an origin that begins like the UI": {"POST", "/decode", ui + ".evil.example", "", "", string(body), 403},
		"no origin":                         {"POST", "/decode", "", "", "", string(body), 403},
		"encode":                            {"POST", "/encode", ui, "", "", string(body), 404},
		"a path that ends like it":          {"POST", "/x/decode", ui, "", "", string(body), 404},
		"GET":                               {"GET", "/decode", ui, "", "", "", 405},
		"no payloads":                       {"POST", "/decode", ui, "", "", "{", 400},
		"too much":                          {"POST", "/decode", ui, "", "", strings.Repeat(" ", 17<<20), 400},
	} {
		t.Run(name, func(t *testing.T) {
			h, err := temporalclient.CodecHandler(temporalclient.HandlerOptions{Ring: ring, Origins: []string{ui}, Token: tc.token})
			if err != nil {
				t.Fatal(err)
			}
			r := httptest.NewRequestWithContext(t.Context(), tc.method, tc.path, strings.NewReader(tc.body))
			if tc.origin != "" {
				r.Header.Set("Origin", tc.origin)
			}
			if tc.auth != "" {
				r.Header.Set("Authorization", tc.auth)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			out, _ := io.ReadAll(w.Body)
			if w.Code != tc.want {
				t.Fatalf("got %d %s, want %d", w.Code, out, tc.want)
			}
			allowed := w.Header().Get("Access-Control-Allow-Origin")
			if (allowed == ui) != (tc.want != 403 && tc.want != 404) {
				t.Errorf("allowed origin %q", allowed)
			}
			if tc.want != http.StatusOK {
				if bytes.Contains(out, []byte("Y2FuYXJ5")) {
					t.Errorf("a refusal shows clear text: %s", out)
				}
				return
			}
			var payloads commonpb.Payloads
			if err := protojson.Unmarshal(out, &payloads); err != nil {
				t.Fatal(err)
			}
			var first, second string
			err = converter.GetDefaultDataConverter().FromPayloads(&payloads, &first, &second)
			if err != nil || first != canary || second != "in the clear" {
				t.Errorf("decoded %q and %q, %v", first, second, err)
			}
		})
	}
}

func TestCodecHandlerNeedsAnOrigin(t *testing.T) {
	ring, _ := newRing(t)
	for name, opts := range map[string]temporalclient.HandlerOptions{
		"none":   {Ring: ring},
		"any":    {Ring: ring, Origins: []string{"*"}},
		"empty":  {Ring: ring, Origins: []string{""}},
		"no key": {Origins: []string{ui}},
	} {
		if _, err := temporalclient.CodecHandler(opts); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
