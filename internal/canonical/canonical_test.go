package canonical_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"tourniquet.dev/tourniquet/internal/canonical"
)

// The expected spellings are those of RFC 8785, §3.2.3, appendix B and the rules of ECMAScript that it points to.
func TestCanonicalize(t *testing.T) {
	for name, tc := range map[string]struct{ in, want string }{
		"an empty object":                    {` { } `, `{}`},
		"an empty array":                     {"[\n]", `[]`},
		"keys sort by code unit":             {`{"b":1,"a":{"d":true,"c":null}}`, `{"a":{"c":null,"d":true},"b":1}`},
		"keys sort by UTF-16":                {`{"\u20ac":1,"\r":2,"\ufb33":3,"1":4,"\ud83d\ude00":5,"\u0080":6,"\u00f6":7}`, "{\"\\r\":2,\"1\":4,\"\u0080\":6,\"ö\":7,\"€\":1,\"😀\":5,\"\ufb33\":3}"},
		"an empty key":                       {`{"":1}`, `{"":1}`},
		"arrays keep their order":            {`[3,1,[2]]`, `[3,1,[2]]`},
		"short escapes":                      {`"\u0008\u0009\u000a\u000c\u000d\u0022\u005c"`, `"\b\t\n\f\r\"\\"`},
		"other control characters":           {`"\u0000\u001F"`, `"\u0000\u001f"`},
		"everything else is written raw":     {`"\u2028\u007f\/<>&"`, "\"\u2028\u007f/<>&\""},
		"the replacement character is valid": {`"\ufffd"`, "\"\ufffd\""},
		"whole numbers":                      {`[1.0,1e2,-0,0e999,10,-17,100e-2]`, `[1,100,0,0,10,-17,1]`},
		"the largest whole numbers":          {`[9007199254740992,-9007199254740992]`, `[9007199254740992,-9007199254740992]`},
		"the smallest number":                {`5e-324`, `5e-324`},
		"small numbers":                      {`[0.000001,9.999999999999997e-7,-0.0000033333333333333333,1E-7]`, `[0.000001,9.999999999999997e-7,-0.0000033333333333333333,1e-7]`},
		"numbers near each other":            {`[333333333.3333332,333333333.33333325,333333333.3333333,333333333.3333334,333333333.33333343]`, `[333333333.3333332,333333333.33333325,333333333.3333333,333333333.3333334,333333333.33333343]`},
		"a number with a fraction":           {`1424953923781206.2`, `1424953923781206.2`},
		"trailing zeros":                     {`4.50`, `4.5`},
		"a small exponent has no zero":       {`1.5e-09`, `1.5e-9`},
		"words":                              {`[true,false,null]`, `[true,false,null]`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := canonical.Canonicalize([]byte(tc.in))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, string(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCanonicalizeRefuses(t *testing.T) {
	for name, tc := range map[string]struct{ in, want string }{
		"nothing":                         {``, "want a value"},
		"a duplicate key":                 {`{"a":1,"a":1}`, "duplicate key"},
		"a duplicate key by escape":       {`{"a":1,"\u0061":2}`, "duplicate key"},
		"data after the document":         {`{} {}`, "after the document"},
		"a NUL after the document":        {"{}\x00", "after the document"},
		"a trailing comma":                {`[1,]`, "want a value"},
		"a trailing comma in an object":   {`{"a":1,}`, "want a key"},
		"a missing colon":                 {`{"a" 1}`, "colon"},
		"a missing comma":                 {`[1 2]`, "comma"},
		"an unclosed array":               {`[1`, "comma"},
		"an unclosed string":              {`"a`, "does not end"},
		"a key that is no string":         {`{a:1}`, "want a key"},
		"a high surrogate alone":          {`"\ud83d"`, "surrogate"},
		"a high surrogate before text":    {`"\ud83dx"`, "surrogate"},
		"a low surrogate alone":           {`"\ude00"`, "surrogate"},
		"two high surrogates":             {`"\ud83d\ud83d"`, "surrogate"},
		"invalid UTF-8":                   {"\"\xff\"", "UTF-8"},
		"a surrogate as UTF-8":            {"\"\xed\xa0\x80\"", "UTF-8"},
		"a raw control character":         {"\"\n\"", "control character"},
		"an unknown escape":               {`"\x41"`, "escape"},
		"a short escape":                  {`"\u12"`, "escape"},
		"a number beyond 2^53":            {`9007199254740993`, "digits"},
		"a negative number beyond 2^53":   {`-9007199254740994`, "2^53"},
		"a huge number":                   {`1e400`, "2^53"},
		"a large number with an exponent": {`1e21`, "2^53"},
		"more digits than a float holds":  {`0.1000000000000000000001`, "digits"},
		"a number that underflows":        {`1e-400`, "digits"},
		"a leading zero":                  {`01`, "number"},
		"a leading zero after a minus":    {`-01`, "number"},
		"a plus":                          {`+1`, "want a value"},
		"a bare point":                    {`1.`, "number"},
		"a bare exponent":                 {`1e`, "number"},
		"a bare minus":                    {`-`, "number"},
		"NaN":                             {`NaN`, "want a value"},
		"a byte order mark":               {"\ufeff{}", "want a value"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := canonical.Canonicalize([]byte(tc.in))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %s, %v, want an error with %q", got, err, tc.want)
			}
		})
	}
}

func TestDepthIsBounded(t *testing.T) {
	nest := func(n int) []byte { return []byte(strings.Repeat("[", n) + strings.Repeat("]", n)) }
	if _, err := canonical.Canonicalize(nest(canonical.MaxDepth)); err != nil {
		t.Errorf("at the bound: %v", err)
	}
	if _, err := canonical.Canonicalize(nest(canonical.MaxDepth + 1)); !errors.Is(err, canonical.ErrTooDeep) {
		t.Errorf("over the bound: got %v, want ErrTooDeep", err)
	}
	if _, err := canonical.Canonicalize(bytes.Repeat([]byte("["), 1<<20)); !errors.Is(err, canonical.ErrTooDeep) {
		t.Errorf("far over the bound: got %v, want ErrTooDeep", err)
	}
}

type inner struct {
	X int    `json:"x"`
	S string `json:"s,omitempty"`
}

type document struct {
	Name   string            `json:"name"`
	Quorum int               `json:"quorum"`
	At     time.Time         `json:"at"`
	List   []inner           `json:"list"`
	Map    map[string]string `json:"map"`
	Pair   [2]int            `json:"pair"`
	Bytes  []byte            `json:"bytes"`
	Maybe  *inner            `json:"maybe,omitempty"`
	Rest   json.RawMessage   `json:"rest,omitempty"`
	Share  float64           `json:"share"`
}

func TestUnmarshalRefuses(t *testing.T) {
	for name, tc := range map[string]struct{ in, want string }{
		"an unknown key":                 {`{"nmae":"a"}`, `unknown key "nmae"`},
		"an unknown key in a list":       {`{"list":[{"x":1},{"y":1}]}`, `list: [1]: unknown key "y"`},
		"a key in another case":          {`{"Name":"a"}`, `unknown key "Name"`},
		"a key twice, in two cases":      {`{"name":"a","NAME":"b"}`, `unknown key "NAME"`},
		"a duplicate key":                {`{"name":"a","name":"b"}`, "duplicate key"},
		"null for a number":              {`{"quorum":null}`, "quorum: null"},
		"null for a string":              {`{"name":null}`, "name: null"},
		"null for a struct":              {`{"list":[null]}`, "list: [0]: null"},
		"null for the whole":             {`null`, "null"},
		"an array that is too long":      {`{"pair":[1,2,3]}`, "3 elements where 2 belong"},
		"an array that is too short":     {`{"pair":[1]}`, "1 elements where 2 belong"},
		"base64 with stray bits":         {`{"bytes":"YR=="}`, "base64"},
		"base64 with a line break":       {`{"bytes":"YQ\n=="}`, "base64"},
		"a wrong type":                   {`{"name":1}`, "cannot unmarshal"},
		"a list where an object belongs": {`[]`, "cannot unmarshal"},
		"a fraction for a whole number":  {`{"quorum":1.5}`, "cannot unmarshal"},
		"data after the document":        {`{}{}`, "after the document"},
		"a document over the limit":      {`{"name":"` + strings.Repeat("a", 300) + `"}`, "too large"},
	} {
		t.Run(name, func(t *testing.T) {
			err := canonical.Unmarshal([]byte(tc.in), &document{}, 256)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want an error with %q", err, tc.want)
			}
		})
	}
}

func TestMarshalRefuses(t *testing.T) {
	type named string
	for name, v := range map[string]any{
		"a string that is not UTF-8": document{Name: "\xff"},
		"a map key that is not":      map[string]int{"\xff": 1},
		"a map value that is not":    map[string]any{"a": []any{named("\xff")}},
		"a raw message that is not":  json.RawMessage("\"\xff\""),
		"a duplicate key in raw":     json.RawMessage(`{"a":1,"a":2}`),
		"a whole number over 2^53":   map[string]int64{"a": 1<<53 + 1},
		"an unsigned one":            []uint64{math.MaxUint64},
		"a float over 2^53":          []float64{1e20},
		"not a number":               []float64{math.NaN()},
		"a channel":                  make(chan int),
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := canonical.Marshal(v); err == nil {
				t.Errorf("got %s, want an error", got)
			}
		})
	}
}

func TestDigest(t *testing.T) {
	got, err := canonical.Digest(map[string]any{"b": 1, "a": "x"})
	if err != nil {
		t.Fatal(err)
	}
	if want := canonical.DigestOf([]byte(`{"a":"x","b":1}`)); got != want || !canonical.ValidDigest(got) {
		t.Errorf("got %s, want %s", got, want)
	}
	const empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	if got := canonical.DigestOf(nil); got != empty {
		t.Errorf("got %s, want %s", got, empty)
	}
	for _, bad := range []string{"", "sha256:", empty[7:], strings.ToUpper(empty), empty + "0", empty[:70], "sha512:" + empty[7:], empty[:70] + "g"} {
		if canonical.ValidDigest(bad) {
			t.Errorf("%q counts as a digest", bad)
		}
	}
}

var documents = rapid.Custom(func(t *rapid.T) document {
	in := rapid.Custom(func(t *rapid.T) inner {
		return inner{X: rapid.IntRange(-1<<53, 1<<53).Draw(t, "x"), S: rapid.String().Draw(t, "s")}
	})
	d := document{
		Name:   rapid.String().Draw(t, "name"),
		Quorum: rapid.IntRange(-1<<53, 1<<53).Draw(t, "quorum"),
		At:     time.Unix(rapid.Int64Range(0, 1<<33).Draw(t, "at"), rapid.Int64Range(0, 999_999_999).Draw(t, "ns")).UTC(),
		List:   rapid.SliceOf(in).Draw(t, "list"),
		Map:    rapid.MapOf(rapid.String(), rapid.String()).Draw(t, "map"),
		Bytes:  rapid.SliceOf(rapid.Byte()).Draw(t, "bytes"),
		Share:  rapid.Float64Range(-1<<53, 1<<53).Draw(t, "share"),
	}
	if rapid.Bool().Draw(t, "has maybe") {
		v := in.Draw(t, "maybe")
		d.Maybe = &v
	}
	return d
})

func TestDecodingWhatWasEncodedGivesItBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := documents.Draw(t, "document")
		data, err := canonical.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var got document
		if err := canonical.Unmarshal(data, &got, len(data)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestDifferentDocumentsHaveDifferentBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := documents.Draw(t, "a"), documents.Draw(t, "b")
		x, errX := canonical.Marshal(a)
		y, errY := canonical.Marshal(b)
		if errX != nil || errY != nil {
			t.Fatal(errX, errY)
		}
		if cmp.Equal(a, b) != bytes.Equal(x, y) {
			t.Fatalf("%+v and %+v: %s and %s", a, b, x, y)
		}
	})
}

// What Canonicalize takes, encoding/json takes too and reads as the same value before and after; a second pass changes nothing.
func FuzzCanonicalize(f *testing.F) {
	for _, s := range []string{
		`{"b":[1,2.50,-0,1e-7],"a":{"\u0000":"\ud83d\ude00"}}`, `{"a":1,"\u0061":2}`, `"\ud800"`, `9007199254740993`, `[[[[]]]]`, `0.1e1`,
		"{\"\xff\":1}", `{"€":1,"😀":2,"דּ":3}`, ` [ true , false , null ] `, `-0.0e-0`, `1E+2`, `{"":{}}`, `"\u2028\u007f"`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		once, err := canonical.Canonicalize(data)
		if err != nil {
			return
		}
		twice, err := canonical.Canonicalize(once)
		if err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("not stable: %s, %s, %v", once, twice, err)
		}
		var before, after any
		if err := json.Unmarshal(data, &before); err != nil {
			t.Fatalf("encoding/json refuses what we take: %v", err)
		}
		if err := json.Unmarshal(once, &after); err != nil {
			t.Fatalf("encoding/json refuses what we write: %v", err)
		}
		if !reflect.DeepEqual(before, after) {
			t.Fatalf("the value changed: %v, %v", before, after)
		}
	})
}

// A document that Unmarshal takes survives another round, and two that differ as values differ as canonical bytes.
func FuzzUnmarshal(f *testing.F) {
	f.Add([]byte(`{"name":"a","quorum":2,"list":[{"x":1}],"map":{"k":"v"},"pair":[1,2],"bytes":"YQ==","maybe":null}`), []byte(`{}`))
	f.Add([]byte(`{"name":"a"}`), []byte(`{"Name":"a"}`))
	f.Add([]byte(`{"at":"2026-01-01T00:00:00Z","rest":{"b":1,"a":2}}`), []byte(`{"rest":{"a":2,"b":1}}`))
	f.Fuzz(func(t *testing.T, x, y []byte) {
		var a, b document
		if canonical.Unmarshal(x, &a, 1<<16) != nil {
			return
		}
		data, err := canonical.Marshal(a)
		if err != nil {
			t.Fatalf("marshal what was read: %v", err)
		}
		var again document
		if err := canonical.Unmarshal(data, &again, 1<<17); err != nil {
			t.Fatalf("read what was written: %v", err)
		}
		if canonical.Unmarshal(y, &b, 1<<16) != nil {
			return
		}
		other, err := canonical.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(data, other) && !sameDocument(a, b) {
			t.Fatalf("%+v and %+v share %s", a, b, data)
		}
	})
}

// sameDocument compares without the parts that have several spellings in Go: raw JSON and the location of a time.
func sameDocument(a, b document) bool {
	a.Rest, b.Rest = nil, nil
	return cmp.Equal(a, b)
}
