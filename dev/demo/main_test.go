package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestEndingSaysWhatIsTrue(t *testing.T) {
	stopped := fmt.Errorf("wait for the card: %w", context.Canceled)
	for name, tc := range map[string]struct {
		err        error
		told, auto bool
		code       int
		word       string
	}{
		"all was checked":                        {nil, false, true, 0, ""},
		"something is not as it should be":       {errors.New("1 things"), false, true, 1, "1 things"},
		"told to stop, with a person":            {stopped, true, false, 0, "nothing is left"},
		"told to stop before all was checked":    {stopped, true, true, 130, "nothing is left"},
		"told to stop, and something stays":      {errors.Join(stopped, errLeft), true, false, 1, "demo-down"},
		"a part ended by itself, nobody told":    {stopped, false, false, 1, "wait for the card"},
		"told to stop while something was wrong": {errors.New("no etcd"), true, false, 1, "no etcd"},
	} {
		t.Run(name, func(t *testing.T) {
			code, word := ending(tc.err, tc.told, tc.auto)
			if code != tc.code || !strings.Contains(word, tc.word) {
				t.Errorf("%d %q, want %d %q", code, word, tc.code, tc.word)
			}
			if errors.Is(tc.err, errLeft) && strings.Contains(word, "nothing is left behind") {
				t.Errorf("lies: %q", word)
			}
		})
	}
}

func TestBeganIsThePersonsTime(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for text, want := range map[string]time.Duration{"1799999990.5": 9500 * time.Millisecond, "": 0, "soon": 0, "1800000009": 0, "1700000000": 0} {
		if got := now.Sub(began(text, now)); got != want {
			t.Errorf("%q: %s ago, want %s", text, got, want)
		}
	}
}
