package aws_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// tamper rewrites a signed request's body.
type tamper struct{ replacer *strings.Replacer }

func (t tamper) Do(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	r.Body = io.NopCloser(strings.NewReader(t.replacer.Replace(string(body))))
	return http.DefaultClient.Do(r)
}

func read(t *testing.T, response *http.Response) string {
	t.Helper()
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}
