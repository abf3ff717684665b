// Command benchjson turns the output of `go test -bench` into one JSON line for each figure: the median over the
// rounds that were run, with their number and spread.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
)

type figure struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	N     int     `json:"n"`
	Note  string  `json:"note,omitempty"`
}

func main() {
	if err := convert(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "benchjson:", err)
		os.Exit(1)
	}
}

func convert(r io.Reader, w io.Writer) error {
	values := map[[2]string][]float64{}
	var order [][2]string
	pkg := ""
	for scan := bufio.NewScanner(r); scan.Scan(); {
		line := scan.Text()
		if after, ok := strings.CutPrefix(line, "pkg: "); ok {
			pkg = after[strings.LastIndexByte(after, '/')+1:]
		}
		fields := strings.Fields(line)
		if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(fields[0], "Benchmark"), "-")
		for i := 2; i+1 < len(fields); i += 2 {
			v, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				continue
			}
			key := [2]string{pkg + "_" + strings.ToLower(name), fields[i+1]}
			if values[key] == nil {
				order = append(order, key)
			}
			values[key] = append(values[key], v)
		}
	}
	enc := json.NewEncoder(w)
	for _, key := range order {
		vs := values[key]
		slices.Sort(vs)
		f := figure{Name: key[0], Value: vs[len(vs)/2], Unit: key[1], N: len(vs), Note: fmt.Sprintf("median of %d rounds, %g to %g", len(vs), vs[0], vs[len(vs)-1])}
		if err := enc.Encode(f); err != nil {
			return err
		}
	}
	if len(order) == 0 {
		return fmt.Errorf("no benchmark ran")
	}
	return nil
}
