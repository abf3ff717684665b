package authz_test

import (
	"testing"

	"tourniquet.dev/tourniquet/internal/authz/authztest"
)

// BenchmarkJudge is one judgement of an approved step: three signatures checked.
func BenchmarkJudge(b *testing.B) {
	h := fullCase(authztest.New(start))
	for b.Loop() {
		if _, err := h.judge(); err != nil {
			b.Fatal(err)
		}
	}
}
