package aws_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"tourniquet.dev/tourniquet/dev/aws"
)

// FuzzRequest wants of every request without a good signature: an answer that names the stand-in, and nothing applied.
func FuzzRequest(f *testing.F) {
	f.Add("POST", "/", "AWS4-HMAC-SHA256 Credential=AKIAX/20261123/us-east-1/iam/aws4_request, SignedHeaders=host;x-amz-date, Signature=00", "", "Action=CreateUser&UserName=a")
	f.Add("POST", "/", "AWS4-HMAC-SHA256 Credential=AKIAX/20261123/us-east-1/cloudtrail/aws4_request, SignedHeaders=host, Signature=00", "CloudTrail_20131101.LookupEvents", `{"MaxResults":1}`)
	f.Add("GET", "/?list-type=2", "AWS4-HMAC-SHA256 Credential=AKIAX/20261123/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=00", "", "")
	f.Add("POST", "/?Action=AssumeRoleWithWebIdentity", "", "", "WebIdentityToken=eyJ9.e30.AA&RoleSessionName=ab&Tags.member.1.Key=a")
	f.Fuzz(func(t *testing.T, method, path, authorization, target, body string) {
		request, err := http.NewRequest(method, path, strings.NewReader(body))
		if err != nil || !strings.HasPrefix(path, "/") {
			t.Skip("not a request")
		}
		request.RemoteAddr, request.Host = "192.0.2.1:1234", "stand-in"
		s := aws.New(aws.Options{})
		request.Header.Set("Authorization", authorization)
		request.Header.Set("X-Amz-Target", target)
		request.Header.Set("X-Amz-Date", "20261123T000000Z")
		recorder := httptest.NewRecorder()
		s.Handler().ServeHTTP(recorder, request)
		state := s.State()
		if len(state.Entities) != 0 || len(state.Sessions) != 0 {
			t.Errorf("an unsigned request changed the account: %+v", state)
		}
		if recorder.Code != 200 && recorder.Header().Get("Server") != aws.Label {
			t.Errorf("%d without a name: %s", recorder.Code, recorder.Body)
		}
		for _, r := range s.Records(0) {
			if r.Applied {
				t.Errorf("applied without a signature: %+v", r)
			}
		}
	})
}
