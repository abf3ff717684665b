package temporalclient

import (
	"crypto/subtle"
	"errors"
	"net/http"
	"slices"

	"go.temporal.io/sdk/converter"
)

// maxDecodeBody bounds a request to the codec server: a page of history with payloads of up to 2 MiB.
const maxDecodeBody = 16 << 20

// HandlerOptions say who may have payloads decrypted.
type HandlerOptions struct {
	Ring    *KeyRing
	Origins []string // of the Web UI, as browsers send them: "http://127.0.0.1:8233"
	Token   string   // if set, every request carries it as a bearer token
}

// CodecHandler lets the Temporal Web UI show clear text: it serves /decode and nothing else, to the given origins. It is a
// decryption oracle. An origin is a browser's word only, so without a token it must be reachable from this machine alone.
func CodecHandler(opts HandlerOptions) (http.Handler, error) {
	if opts.Ring == nil {
		return nil, errors.New("codec server: no key ring")
	}
	if len(opts.Origins) == 0 || slices.Contains(opts.Origins, "*") || slices.Contains(opts.Origins, "") {
		return nil, errors.New("codec server: name the Web UI's origin")
	}
	decoder := converter.NewPayloadCodecHTTPHandler(codec{ring: opts.Ring, anyPlace: true, plainPass: true})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		origin := r.Header.Get("Origin")
		w.Header().Set("Vary", "Origin")
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if r.URL.Path != "/decode" {
			http.NotFound(w, r)
			return
		}
		if !slices.Contains(opts.Origins, origin) {
			http.Error(w, "origin not allowed", http.StatusForbidden)
			return
		}
		w.Header().Set("Access-Control-Allow-Origin", origin)
		w.Header().Set("Access-Control-Allow-Credentials", "true")
		w.Header().Set("Access-Control-Allow-Methods", "POST, OPTIONS")
		w.Header().Set("Access-Control-Allow-Headers", "Authorization, Content-Type, X-Namespace")
		if r.Method == http.MethodOptions {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		if r.Method != http.MethodPost {
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return
		}
		want := "Bearer " + opts.Token
		if opts.Token != "" && subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), []byte(want)) != 1 {
			http.Error(w, "token not accepted", http.StatusUnauthorized)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxDecodeBody)
		decoder.ServeHTTP(w, r)
	}), nil
}
