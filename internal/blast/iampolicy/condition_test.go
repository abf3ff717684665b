package iampolicy_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"tourniquet.dev/tourniquet/internal/blast/iampolicy"
)

// TestConditions asks whether an allow under the condition holds.
func TestConditions(t *testing.T) {
	empty := iampolicy.Context{}
	key := func(values ...string) iampolicy.Context { return empty.With("k", values...) }
	open := iampolicy.Context{Open: true}
	for name, tc := range map[string]struct {
		condition string
		context   iampolicy.Context
		want      string
	}{
		"equals":                               {`{"StringEquals":{"k":"a"}}`, key("a"), "yes"},
		"equals one of several":                {`{"StringEquals":{"k":["a","b"]}}`, key("b"), "yes"},
		"equals minds case":                    {`{"StringEquals":{"k":"a"}}`, key("A"), "no"},
		"keys do not":                          {`{"StringEquals":{"K":"a"}}`, key("a"), "yes"},
		"equals takes a star as a star":        {`{"StringEquals":{"k":"a*"}}`, key("ab"), "no"},
		"equals with a star in both":           {`{"StringEquals":{"k":"a*"}}`, key("a*"), "yes"},
		"ignore case":                          {`{"StringEqualsIgnoreCase":{"k":"a"}}`, key("A"), "yes"},
		"not equals":                           {`{"StringNotEquals":{"k":["a","b"]}}`, key("b"), "no"},
		"not equals, absent":                   {`{"StringNotEquals":{"k":"a"}}`, empty, "yes"},
		"equals, absent":                       {`{"StringEquals":{"k":"a"}}`, empty, "no"},
		"equals, unknown":                      {`{"StringEquals":{"k":"a"}}`, empty.WithUnknown("k"), "maybe"},
		"equals, open":                         {`{"StringEquals":{"k":"a"}}`, open, "maybe"},
		"equals, open but absent":              {`{"StringEquals":{"k":"a"}}`, open.Without("k"), "no"},
		"if exists, absent":                    {`{"StringEqualsIfExists":{"k":"a"}}`, empty, "yes"},
		"if exists, other":                     {`{"StringEqualsIfExists":{"k":"a"}}`, key("b"), "no"},
		"like":                                 {`{"StringLike":{"k":"a*c?"}}`, key("abbcd"), "yes"},
		"not like":                             {`{"StringNotLike":{"k":"a*"}}`, key("abc"), "no"},
		"both operators must hold":             {`{"StringLike":{"k":"a*"},"StringNotEquals":{"k":"ab"}}`, key("ab"), "no"},
		"a failed one settles an unknown":      {`{"StringLike":{"k":"b*"},"StringEquals":{"x":"y"}}`, key("ab").WithUnknown("x"), "no"},
		"null true, absent":                    {`{"Null":{"k":"true"}}`, empty, "yes"},
		"null true, present":                   {`{"Null":{"k":true}}`, key("a"), "no"},
		"null false, present":                  {`{"Null":{"k":"false"}}`, key("a"), "yes"},
		"null, unknown":                        {`{"Null":{"k":"true"}}`, empty.WithUnknown("k"), "maybe"},
		"bool":                                 {`{"Bool":{"k":true}}`, key("True"), "yes"},
		"bool, absent":                         {`{"Bool":{"k":"false"}}`, empty, "no"},
		"bool if exists, absent":               {`{"BoolIfExists":{"k":"false"}}`, empty, "yes"},
		"number":                               {`{"NumericLessThanEquals":{"k":10}}`, key("10.0"), "yes"},
		"number, not one":                      {`{"NumericLessThan":{"k":"ten"}}`, key("1"), "maybe"},
		"number, value not one":                {`{"NumericLessThan":{"k":"10"}}`, key("x"), "no"},
		"huge exponent":                        {`{"NumericLessThan":{"k":"1e999999999"}}`, key("1"), "maybe"},
		"date":                                 {`{"DateGreaterThan":{"k":"2026-01-01T00:00:00+02:00"}}`, key("2025-12-31T22:00:01Z"), "yes"},
		"date as seconds":                      {`{"DateLessThan":{"k":"1700000000"}}`, key("2023-11-14T22:13:19Z"), "yes"},
		"date, broken":                         {`{"DateLessThan":{"k":"soon"}}`, key("2023-11-14T22:13:19Z"), "maybe"},
		"dates take no variables":              {`{"DateLessThan":{"aws:CurrentTime":"${k}"}}`, key("2026-01-01T00:00:00Z").With("aws:CurrentTime", "2025-01-01T00:00:00Z"), "maybe"},
		"address in range":                     {`{"IpAddress":{"k":"10.0.0.0/8"}}`, key("10.1.2.3"), "yes"},
		"address, single":                      {`{"IpAddress":{"k":"2001:db8::1"}}`, key("2001:db8::1"), "yes"},
		"address outside":                      {`{"NotIpAddress":{"k":["10.0.0.0/8","192.168.0.0/16"]}}`, key("192.168.1.1"), "no"},
		"address, broken":                      {`{"IpAddress":{"k":"10.0.0.0/99"}}`, key("10.1.2.3"), "maybe"},
		"arn by parts":                         {`{"ArnLike":{"k":"arn:aws:iam::*:role/tq-*"}}`, key("arn:aws:iam::111122223333:role/tq-a"), "yes"},
		"arn wildcard does not cross a colon":  {`{"ArnLike":{"k":"arn:aws:iam::*:role/x"}}`, key("arn:aws:iam::1:user/a:role/x"), "no"},
		"arn wildcard does in the last part":   {`{"ArnEquals":{"k":"arn:aws:sns:*:*:a*"}}`, key("arn:aws:sns:r:1:a:b"), "yes"},
		"arn, short":                           {`{"ArnLike":{"k":"arn:aws:*"}}`, key("arn:aws:iam::1:user/a"), "maybe"},
		"for any":                              {`{"ForAnyValue:StringEquals":{"k":["a","b"]}}`, key("x", "b"), "yes"},
		"for any, absent":                      {`{"ForAnyValue:StringEquals":{"k":"a"}}`, empty, "no"},
		"for any not":                          {`{"ForAnyValue:StringNotEquals":{"k":"a"}}`, key("a", "b"), "yes"},
		"for any not, absent":                  {`{"ForAnyValue:StringNotEquals":{"k":"a"}}`, empty, "no"},
		"for all":                              {`{"ForAllValues:StringLike":{"k":["a*","b"]}}`, key("ab", "b"), "yes"},
		"for all, one outside":                 {`{"ForAllValues:StringLike":{"k":["a*","b"]}}`, key("ab", "c"), "no"},
		"for all, absent":                      {`{"ForAllValues:StringEquals":{"k":"a"}}`, empty, "yes"},
		"for all not":                          {`{"ForAllValues:StringNotEquals":{"k":"a"}}`, key("b", "a"), "no"},
		"several values without a set":         {`{"StringNotEquals":{"k":"a"}}`, key("b", "a"), "no"},
		"variable":                             {`{"StringEquals":{"k":"${aws:username}"}}`, key("al").With("aws:username", "al"), "yes"},
		"variable, case of its key":            {`{"StringEquals":{"k":"${AWS:UserName}"}}`, key("al").With("aws:username", "al"), "yes"},
		"variable, absent":                     {`{"StringEquals":{"k":"${aws:username}"}}`, key(""), "no"},
		"variable, absent and negated":         {`{"StringNotEquals":{"k":"${aws:username}"}}`, key("x"), "maybe"},
		"variable, default":                    {`{"StringEquals":{"k":"${aws:username, 'al'}"}}`, key("al"), "yes"},
		"variable, unknown":                    {`{"StringLike":{"k":"${aws:username}"}}`, key("al").WithUnknown("aws:username"), "maybe"},
		"a star in a variable's value is text": {`{"StringLike":{"k":"${aws:username}"}}`, key("anything").With("aws:username", "*"), "no"},
		"escaped star":                         {`{"StringLike":{"k":"a${*}"}}`, key("ab"), "no"},
		"escaped star, literal":                {`{"StringLike":{"k":"a${*}"}}`, key("a*"), "yes"},
		"escaped dollar":                       {`{"StringEquals":{"k":"${$}{x}"}}`, key("${x}"), "yes"},
		"unclosed variable is text":            {`{"StringEquals":{"k":"${x"}}`, key("${x"), "yes"},
	} {
		t.Run(name, func(t *testing.T) {
			got := vector{
				context: tc.context,
				set:     iampolicy.PolicySet{Identity: read(`{"Effect":"Allow","Action":"*","Resource":"*","Condition":` + tc.condition + `}`)},
			}.verdict()
			word := map[string]string{"allowed": "yes", "implicitDeny": "no", "implicitDeny..allowed": "maybe"}[got]
			if diff := cmp.Diff(tc.want, word); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestActionsAndResources(t *testing.T) {
	one := func(statement string) iampolicy.PolicySet { return iampolicy.PolicySet{Identity: read(statement)} }
	old := iampolicy.PolicySet{Identity: []iampolicy.Policy{iampolicy.Read("old", []byte(`{"Statement":{"Effect":"Allow","Action":"*","Resource":"arn:aws:s3:::${aws:username}/*"}}`))}}
	home := `{"Effect":"Allow","Action":"s3:*","Resource":"arn:aws:s3:::reports/${aws:username}*"}`
	run(t, map[string]vector{
		"actions ignore case":                  {set: one(`{"Effect":"Allow","Action":"S3:getobject","Resource":"*"}`), want: "allowed"},
		"resources do not":                     {set: one(`{"Effect":"Allow","Action":"*","Resource":"arn:aws:s3:::Reports/*"}`), want: "implicitDeny"},
		"question mark is one letter":          {set: one(`{"Effect":"Allow","Action":"s3:GetObjec?","Resource":"*"}`), want: "allowed"},
		"question mark is not none":            {set: one(`{"Effect":"Allow","Action":"s3:GetObject?","Resource":"*"}`), want: "implicitDeny"},
		"not action":                           {set: one(`{"Effect":"Allow","NotAction":"iam:*","Resource":"*"}`), want: "allowed"},
		"not action, named":                    {set: one(`{"Effect":"Allow","NotAction":["iam:*","s3:*"],"Resource":"*"}`), want: "implicitDeny"},
		"not resource":                         {set: one(`{"Effect":"Allow","Action":"*","NotResource":"arn:aws:s3:::secret/*"}`), want: "allowed"},
		"not resource, named":                  {set: one(`{"Effect":"Allow","Action":"*","NotResource":"arn:aws:s3:::reports/*"}`), want: "implicitDeny"},
		"variable in a resource":               {context: iampolicy.NewContext(map[string]string{"aws:username": "q3"}), set: one(home), want: "allowed"},
		"variable in a resource, absent":       {set: one(home), want: "implicitDeny"},
		"variable in a resource, open":         {context: iampolicy.Context{Open: true}, set: one(home), want: "implicitDeny..allowed"},
		"the old version knows no variables":   {resource: "arn:aws:s3:::${aws:username}/x", set: old, want: "allowed"},
		"an identity statement of no resource": {set: one(`{"Effect":"Allow","Action":"*"}`), want: "implicitDeny..allowed"},
	})
}
