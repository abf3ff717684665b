package main

import (
	"regexp"

	"github.com/prometheus/client_golang/prometheus"

	"tourniquet.dev/tourniquet/bpf"
	"tourniquet.dev/tourniquet/internal/sys/spool"
	"tourniquet.dev/tourniquet/sensor/node"
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
	descLoss  = prometheus.NewDesc("tourniquet_sensor_loss_total",
		"What is missing, by cause: kernel events by kind and class, detections by the spool's lane.", []string{"cause", "kind", "class"}, nil)
	descWait    = prometheus.NewDesc("tourniquet_sensor_waiting", "Detections that wait for their pod to be known.", nil, nil)
	descBytes   = prometheus.NewDesc("tourniquet_spool_bytes", "Size of the spool on disk.", nil, nil)
	descProfile = prometheus.NewDesc("tourniquet_sensor_profiles", "Profiles of workloads in memory.", []string{"state"}, nil)
	descDrift   = prometheus.NewDesc("tourniquet_sensor_profile_total", "Drifts told, and what profiles could not take.", []string{"what"}, nil)
	descTree    = prometheus.NewDesc("tourniquet_sensor_processes", "Processes that are remembered.", []string{"state"}, nil)
	descHook    = prometheus.NewDesc("tourniquet_sensor_hook", "1 for the tier by which a hook sees; 0 for a hook that sees nothing.", []string{"hook", "tier"}, nil)
)

// Describe implements prometheus.Collector.
func (c collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descKernel, descNode, descShip, descSpool, descFull, descLost, descLoss, descWait, descBytes, descProfile, descDrift, descHook, descTree} {
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
		"blind": n.Blind, "uring": n.Uring, "rule-error": n.RuleError, "orders": n.Orders, "orders-refused": n.Refused, "told-of-loss": n.Told, "pod-unknown": n.Nameless,
		"rules-reloaded": c.a.rules.reloaded.Load(), "rules-refused": c.a.rules.refused.Load(), "rules-observed": c.a.rules.set.Observed()} {
		count(descNode, v, what)
	}
	for labels, v := range lossFigures(n.Losses) {
		count(descLoss, v, labels[:]...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(descWait, float64(n.Waiting))
	c.profiles(n.Unprofiled, count, gauge)
	s := c.a.ship.Stats()
	for outcome, v := range map[string]uint64{"sent": s.Sent, "dead-letter": s.DeadLetter, "rejected": s.Rejected, "retried": s.Retries} {
		count(descShip, v, outcome)
	}
	p := c.a.spool.Stats()
	count(descLost, p.Lost)
	gauge(descBytes, float64(p.Bytes))
	for lane := range p.Pending {
		count(descFull, p.Refused[lane], spool.Lane(lane).String())
		gauge(descSpool, float64(p.Pending[lane]), spool.Lane(lane).String())
	}
	t := c.a.eyes.tree.Stats()
	gauge(descTree, float64(t.Live), "live")
	gauge(descTree, float64(t.Dead), "dead")
	c.kernel(gauge, count)
}

func (c collector) profiles(unprofiled uint64, count func(*prometheus.Desc, uint64, ...string), gauge func(*prometheus.Desc, float64, ...string)) {
	if c.a.profiles == nil {
		return
	}
	s := c.a.profiles.Stats()
	gauge(descProfile, float64(s.Alerting), "alert")
	gauge(descProfile, float64(s.Profiles-s.Alerting), "learn")
	for what, v := range map[string]uint64{"drift": s.Drifts, "failed": s.Failed, "refused": s.Refused, "unprofiled": unprofiled} {
		count(descDrift, v, what)
	}
}

// labelForm is what a label may be: a recording may name any kind. How many there are node bounds.
var labelForm = regexp.MustCompile(`^[a-z][a-z-]{0,23}$`)

// lossFigures are the losses by cause, kind and class, those of a strange name together.
func lossFigures(losses []node.Loss) map[[3]string]uint64 {
	out := map[[3]string]uint64{}
	for _, l := range losses {
		labels := [3]string{l.Cause, l.Kind, l.Class}
		for i, v := range labels {
			if v != "" && !labelForm.MatchString(v) {
				labels[i] = "other"
			}
		}
		out[labels] += l.Count
	}
	return out
}

func (c collector) kernel(gauge func(*prometheus.Desc, float64, ...string), count func(*prometheus.Desc, uint64, ...string)) {
	if c.a.eyes.reader == nil {
		return
	}
	for _, h := range c.a.eyes.reader.Status() {
		sees := 1.0
		if h.Err != nil {
			sees = 0
		}
		gauge(descHook, sees, string(h.Hook), string(h.Tier))
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
