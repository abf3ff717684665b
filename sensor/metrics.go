package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"tourniquet.dev/tourniquet/bpf"
	"tourniquet.dev/tourniquet/internal/sys/spool"
)

// collector shows what the sensor saw, and what it did not.
type collector struct{ a *agent }

var (
	descKernel = prometheus.NewDesc("tourniquet_sensor_kernel_events_total",
		"What the kernel programs saw, by kind, class and outcome: seen = filtered + submitted + dropped.", []string{"kind", "class", "outcome"}, nil)
	descNode  = prometheus.NewDesc("tourniquet_sensor_total", "Events, detections and orders by what became of them.", []string{"what"}, nil)
	descShip  = prometheus.NewDesc("tourniquet_sensor_shipped_total", "Spooled items by intake's answer.", []string{"outcome"}, nil)
	descSpool = prometheus.NewDesc("tourniquet_spool_pending", "Records in the spool that are not acknowledged.", []string{"lane"}, nil)
	descFull  = prometheus.NewDesc("tourniquet_spool_refused_total", "Records that found no room.", []string{"lane"}, nil)
	descLost  = prometheus.NewDesc("tourniquet_spool_lost_total", "Records that were lost to damage on the disk.", nil, nil)
	descTree  = prometheus.NewDesc("tourniquet_sensor_processes", "Processes that are remembered.", []string{"state"}, nil)
)

// Describe implements prometheus.Collector.
func (c collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descKernel, descNode, descShip, descSpool, descFull, descLost, descTree} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	count := func(d *prometheus.Desc, n uint64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	n := c.a.node.Stats()
	for what, v := range map[string]uint64{"events": n.Events, "matched": n.Matched, "coalesced": n.Coalesced, "spooled": n.Spooled, "lost": n.Lost,
		"blind": n.Blind, "uring": n.Uring, "rule-error": n.RuleError, "orders": n.Orders, "orders-refused": n.Refused,
		"rules-reloaded": c.a.rules.reloaded.Load(), "rules-refused": c.a.rules.refused.Load(), "rules-observed": c.a.rules.set.Observed()} {
		count(descNode, v, what)
	}
	s := c.a.ship.Stats()
	for outcome, v := range map[string]uint64{"sent": s.Sent, "dead-letter": s.DeadLetter, "rejected": s.Rejected, "retried": s.Retries} {
		count(descShip, v, outcome)
	}
	p := c.a.spool.Stats()
	count(descLost, p.Lost)
	for lane := range p.Pending {
		count(descFull, p.Refused[lane], spool.Lane(lane).String())
		out <- prometheus.MustNewConstMetric(descSpool, prometheus.GaugeValue, float64(p.Pending[lane]), spool.Lane(lane).String())
	}
	t := c.a.eyes.tree.Stats()
	out <- prometheus.MustNewConstMetric(descTree, prometheus.GaugeValue, float64(t.Live), "live")
	out <- prometheus.MustNewConstMetric(descTree, prometheus.GaugeValue, float64(t.Dead), "dead")
	c.kernel(count)
}

func (c collector) kernel(count func(*prometheus.Desc, uint64, ...string)) {
	if c.a.eyes.reader == nil {
		return
	}
	stats, err := c.a.eyes.reader.Stats()
	if err != nil {
		return // the programs are gone: the process ends
	}
	for _, k := range stats.Kernel {
		count(descKernel, k.Seen, k.Kind.String(), "", "seen")
		count(descKernel, k.Filtered, k.Kind.String(), "", "filtered")
		count(descKernel, k.Missed, k.Kind.String(), "", "missed")
		for _, class := range []bpf.Class{bpf.Critical, bpf.Telemetry} {
			count(descKernel, k.Submitted[class], k.Kind.String(), class.String(), "submitted")
			count(descKernel, k.Dropped[class], k.Kind.String(), class.String(), "dropped")
		}
	}
}
