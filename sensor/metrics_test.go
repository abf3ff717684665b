package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"tourniquet.dev/tourniquet/internal/authz/authztest"
	"tourniquet.dev/tourniquet/sensor/node"
)

func TestFiguresAreAsPrometheusWantsThem(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	path := configure(t, authztest.New(time.Now()), "http://127.0.0.1:1", func(c map[string]any) { c["metrics"] = "127.0.0.1:0" })
	said, stdout := io.Pipe()
	ended := make(chan int, 1)
	go func() { ended <- run(ctx, []string{"--config", path}, stdout, io.Discard) }()
	line, err := bufio.NewReader(said).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var ready struct {
		Metrics string `json:"metrics"`
	}
	if err := json.Unmarshal([]byte(line), &ready); err != nil {
		t.Fatal(err)
	}
	response, err := http.Get("http://" + ready.Metrics + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	response.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.New(strings.NewReader(string(body))).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
	for _, name := range []string{"tourniquet_sensor_waiting", "tourniquet_spool_bytes", "tourniquet_spool_refused_total{lane=\"critical\"}"} {
		if !strings.Contains(string(body), name) {
			t.Errorf("%s is not exported", name)
		}
	}
	cancel()
	if code := <-ended; code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestLossLabelsAreBounded(t *testing.T) {
	got := lossFigures([]node.Loss{{Cause: "ring-full", Kind: "open", Class: "telemetry", Count: 1}, {Cause: "x\n", Kind: "A", Count: 2}, {Cause: "Y", Kind: "B", Count: 3}})
	if diff := cmp.Diff(map[[3]string]uint64{{"ring-full", "open", "telemetry"}: 1, {"other", "other", ""}: 5}, got); diff != "" {
		t.Error(diff)
	}
}
