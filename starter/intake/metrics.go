package main

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"tourniquet.dev/tourniquet/internal/sys/spool"
	"tourniquet.dev/tourniquet/starter/intake/adapter"
	"tourniquet.dev/tourniquet/starter/intake/correlate"
)

// refusals counts by code, or by another text of ours, so there are few.
type refusals struct {
	mu sync.Mutex
	by map[adapter.Code]int64
}

func (r *refusals) add(c adapter.Code) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.by == nil {
		r.by = map[adapter.Code]int64{}
	}
	r.by[c]++
}

func (r *refusals) snapshot() map[adapter.Code]int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make(map[adapter.Code]int64, len(r.by))
	for c, n := range r.by {
		out[c] = n
	}
	return out
}

// collector shows the counters to Prometheus.
type collector struct {
	count   *correlate.Counters
	refused *refusals
	passed  *refusals
	dead    *correlate.DeadLetters
}

var (
	descItems   = prometheus.NewDesc("tourniquet_intake_items_total", "Items by kind and by what became of them.", []string{"kind", "outcome"}, nil)
	descPending = prometheus.NewDesc("tourniquet_intake_pending", "Items that are accepted and not yet correlated or put aside.", []string{"kind"}, nil)
	descRefused = prometheus.NewDesc("tourniquet_intake_refused_total", "Items and requests that were found wrong, by code.", []string{"code"}, nil)
	descPassed  = prometheus.NewDesc("tourniquet_intake_passed_over_total", "Items of third parties that are no finding, by why.", []string{"reason"}, nil)
	descDead    = prometheus.NewDesc("tourniquet_intake_dead_letters", "Dead letters in the folder.", nil, nil)
)

// Describe implements prometheus.Collector.
func (c collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descItems, descPending, descRefused, descPassed, descDead} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	for _, k := range correlate.Kinds() {
		a := c.count.Of(k)
		for outcome, n := range map[string]int64{"accepted": a.Accepted, "recovered": a.Recovered, "correlated": a.Correlated,
			"duplicate": a.Duplicates, "dead-letter": a.DeadLettered} {
			out <- prometheus.MustNewConstMetric(descItems, prometheus.CounterValue, float64(n), k.String(), outcome)
		}
		out <- prometheus.MustNewConstMetric(descPending, prometheus.GaugeValue, float64(a.Pending()), k.String())
	}
	for code, n := range c.refused.snapshot() {
		out <- prometheus.MustNewConstMetric(descRefused, prometheus.CounterValue, float64(n), string(code))
	}
	for reason, n := range c.passed.snapshot() {
		out <- prometheus.MustNewConstMetric(descPassed, prometheus.CounterValue, float64(n), string(reason))
	}
	out <- prometheus.MustNewConstMetric(descDead, prometheus.GaugeValue, float64(c.dead.Len()))
}

// spoolCollector shows the spool's figures.
type spoolCollector struct{ stats func() spool.Stats }

var (
	descSpoolBytes   = prometheus.NewDesc("tourniquet_spool_bytes", "Bytes in the spool's segments.", nil, nil)
	descSpoolPending = prometheus.NewDesc("tourniquet_spool_pending", "Records in the spool that are not acknowledged.", []string{"lane"}, nil)
	descSpoolRefused = prometheus.NewDesc("tourniquet_spool_refused_total", "Records that found no room.", []string{"lane"}, nil)
	descSpoolLost    = prometheus.NewDesc("tourniquet_spool_lost_total", "Records that were lost to damage on the disk.", nil, nil)
)

// Describe implements prometheus.Collector.
func (c spoolCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descSpoolBytes, descSpoolPending, descSpoolRefused, descSpoolLost} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c spoolCollector) Collect(out chan<- prometheus.Metric) {
	s := c.stats()
	out <- prometheus.MustNewConstMetric(descSpoolBytes, prometheus.GaugeValue, float64(s.Bytes))
	out <- prometheus.MustNewConstMetric(descSpoolLost, prometheus.CounterValue, float64(s.Lost))
	for lane := range s.Pending {
		name := spool.Lane(lane).String()
		out <- prometheus.MustNewConstMetric(descSpoolPending, prometheus.GaugeValue, float64(s.Pending[lane]), name)
		out <- prometheus.MustNewConstMetric(descSpoolRefused, prometheus.CounterValue, float64(s.Refused[lane]), name)
	}
}
