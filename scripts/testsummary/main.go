// Command testsummary reads the output of `go test -json`, prints what failed, and closes with one line of totals. A
// skipped test that gives no proven reason (a line with SKIP-REASON) counts as failed.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"sort"
	"strings"
)

type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64
}

type totals struct {
	passed, failed, skipped int
	slow                    map[string]float64
}

func main() {
	status := flag.Int("status", 0, "exit status of go test itself")
	final := flag.Bool("final", false, "print the closing line and exit by it")
	flag.Parse()
	f, err := os.Open(flag.Arg(0))
	if err != nil {
		fmt.Fprintln(os.Stderr, "testsummary:", err)
		os.Exit(2)
	}
	defer f.Close()
	t, err := read(f, os.Stdout, *final)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testsummary:", err)
		os.Exit(2)
	}
	if !*final {
		fmt.Printf("   so far: %d passed, %d failed, %d skipped.\n", t.passed, t.failed, t.skipped)
		return
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", t.passed, t.failed, t.skipped)
	if t.failed > 0 || *status != 0 || t.passed == 0 {
		os.Exit(1)
	}
}

// read counts the results; with verbose it prints failures and skips with their output.
func read(r io.Reader, w io.Writer, verbose bool) (totals, error) {
	t := totals{slow: map[string]float64{}}
	output := map[string][]string{}
	scan := bufio.NewScanner(r)
	scan.Buffer(make([]byte, 1<<20), 16<<20)
	for scan.Scan() {
		var e event
		if json.Unmarshal(scan.Bytes(), &e) != nil {
			continue
		}
		key := e.Package + " " + e.Test
		switch e.Action {
		case "output", "build-output":
			output[key] = append(output[key], e.Output)
		case "pass":
			t.slow[key] = e.Elapsed
			if e.Test != "" {
				t.passed++
			}
			delete(output, key)
		case "fail", "build-fail":
			t.failed++
			if verbose {
				fmt.Fprintf(w, "FAILED %s\n%s\n", key, clip(output[key]))
			}
		case "skip":
			t.skip(w, key, e.Test, output[key], verbose)
		}
	}
	if verbose {
		t.printSlow(w)
	}
	return t, scan.Err()
}

func (t *totals) skip(w io.Writer, key, test string, lines []string, verbose bool) {
	if test == "" {
		return // a package without tests
	}
	reason := ""
	for _, l := range lines {
		if _, after, ok := strings.Cut(l, "SKIP-REASON:"); ok {
			reason = strings.TrimSpace(after)
		}
	}
	if reason == "" {
		t.failed++
		reason = "no reason given: this counts as a failure"
	} else {
		t.skipped++
	}
	if verbose {
		fmt.Fprintf(w, "skipped %s: %s\n", key, reason)
	}
}

func (t *totals) printSlow(w io.Writer) {
	var keys []string
	for k, s := range t.slow {
		if s >= 10 && strings.HasSuffix(k, " ") {
			keys = append(keys, k)
		}
	}
	sort.Slice(keys, func(i, j int) bool { return t.slow[keys[i]] > t.slow[keys[j]] })
	for _, k := range keys[:min(len(keys), 8)] {
		fmt.Fprintf(w, "took %.0f s: %s\n", t.slow[k], k)
	}
}

func clip(lines []string) string {
	s := strings.Join(lines, "")
	if len(s) > 6000 {
		return s[:2000] + "\n[…]\n" + s[len(s)-4000:]
	}
	return s
}
