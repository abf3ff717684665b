package risk

import (
	"math"
	"math/rand/v2"
	"sort"
	"time"

	"gonum.org/v1/gonum/stat/distuv"
)

// The formula's version and its default inputs. Nobody at the owner's gave them: they are marked as defaults wherever
// they show. Magnitude: insured claims of large enterprises, median USD 283 k, sigma 2.0 (Verizon 2026 Breach Impact
// Study, second-hand), capped. Hours to harm: 90 % between 2 minutes and 24 hours.
const (
	formula       = "tourniquet/1"
	currency      = "USD"
	trials        = 20000
	medianLoss    = 283_000.0
	sigmaLoss     = 2.0
	capLoss       = 20_000_000.0
	hoursLow      = 1.0 / 30
	hoursHigh     = 24.0
	defaultSpread = 3.2897 // standard deviations between the ends of a 90 % interval
)

// Expose computes an option's LossExposure within the horizon. The same inputs and seed give the same figures; the
// same seed across options compares them on common random numbers.
func Expose(in Inputs, seed uint64) Exposure {
	if in.Horizon == 0 {
		in.Horizon = 8 * time.Hour
	}
	losses := make([]float64, trials)
	now, later := 0.0, 0.0
	for i, d := range draw(in, seed) {
		losses[i] = d.loss(in, 0)
		now += losses[i]
		later += d.loss(in, 10*time.Minute)
	}
	sort.Float64s(losses)
	return Exposure{Currency: currency, P10: minor(losses[trials/10]), P50: minor(losses[trials/2]), P90: minor(losses[trials*9/10]),
		Mean: minor(now / trials), WaitingPerMinute: minor(max(0, later-now) / trials / 10), Defaults: true, Formula: formula, Seed: seed, Trials: trials}
}

// trial is one possible world.
type trial struct {
	real     bool
	harm     float64 // hours until harm is done
	loss0    float64 // loss if everything reachable is harmed
	delay    float64 // hours until the option holds
	collater float64
}

// draw makes the worlds. Every input has its own stream, so that changing one leaves the others' draws as they were.
func draw(in Inputs, seed uint64) []trial {
	src := func(n uint64) rand.Source { return rand.NewPCG(seed, n) }
	p := distuv.Beta{Alpha: 1 + float64(in.True), Beta: 1 + float64(in.False), Src: src(1)}
	verdict := rand.New(src(2))
	harm := distuv.LogNormal{Mu: (math.Log(hoursLow) + math.Log(hoursHigh)) / 2, Sigma: (math.Log(hoursHigh) - math.Log(hoursLow)) / defaultSpread, Src: src(3)}
	loss := distuv.LogNormal{Mu: math.Log(medianLoss), Sigma: sigmaLoss, Src: src(4)}
	wait := pert(in.Delay, src(5))
	collateral := float64(in.CollateralPerHour.Minor) / 100 * in.Duration.Hours()
	out := make([]trial, trials)
	for i := range out {
		out[i] = trial{real: verdict.Float64() < p.Rand(), harm: harm.Rand(), loss0: min(loss.Rand(), capLoss), delay: wait(), collater: collateral}
	}
	return out
}

// loss is what one world costs when the option starts later by d.
func (t trial) loss(in Inputs, d time.Duration) float64 {
	if !t.real {
		return t.collater
	}
	horizon, holds := in.Horizon.Hours(), t.delay+d.Hours()
	share := 0.0
	switch {
	case t.harm > horizon:
	case t.harm <= holds:
		share = in.Before / 100
	default:
		share = in.After / 100
	}
	return t.loss0*share + t.collater
}

// pert draws hours from best, usual and worst case.
func pert(d [3]time.Duration, src rand.Source) func() float64 {
	lo, mode, hi := d[0].Hours(), d[1].Hours(), d[2].Hours()
	if hi <= lo {
		return func() float64 { return lo }
	}
	b := distuv.Beta{Alpha: 1 + 4*(mode-lo)/(hi-lo), Beta: 1 + 4*(hi-mode)/(hi-lo), Src: src}
	return func() float64 { return lo + (hi-lo)*b.Rand() }
}

// minor rounds to two significant digits and returns cents: more would claim what nobody knows.
func minor(dollars float64) int64 {
	if dollars < 1 {
		return 0
	}
	scale := math.Pow(10, math.Floor(math.Log10(dollars))-1)
	return int64(math.Round(dollars/scale)*scale) * 100
}
