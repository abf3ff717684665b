// Package risk puts money on waiting and on each containment option, in Open FAIR's words. It is pure: a seed and
// inputs go in, quantiles come out, bit for bit the same on every replay. The figures are an aid for choosing between
// options, never a forecast; values that nobody but us gave are marked as defaults wherever they show.
package risk

import "time"

// Money is an amount in minor units (cents) of a currency.
type Money struct {
	Minor    int64  `json:"minor"`
	Currency string `json:"currency"`
}

// Inputs are what one option's exposure is computed from.
type Inputs struct {
	// True and False are this detector family's verdicts so far; the prior is Beta(1,1).
	True, False int
	// Horizon is how far ahead losses count; 0 means 8 hours.
	Horizon time.Duration
	// Before and After are the blast radius scores (0 to 100) before and after the option.
	Before, After float64
	Admin         bool
	// Delay is how long the option takes until it holds: the best, the usual and the worst case.
	Delay [3]time.Duration
	// CollateralPerHour is what the option's outage costs an hour, whether or not the alarm is true.
	CollateralPerHour Money
	Duration          time.Duration
}

// Exposure is a LossExposure: quantiles of money within the horizon.
type Exposure struct {
	Currency string `json:"currency"`
	P10      int64  `json:"p10"`
	P50      int64  `json:"p50"`
	P90      int64  `json:"p90"`
	Mean     int64  `json:"mean"`
	// WaitingPerMinute is what another minute of waiting costs on average.
	WaitingPerMinute int64 `json:"waiting_per_minute"`
	// Defaults is set when no owner's values were given.
	Defaults bool   `json:"defaults"`
	Formula  string `json:"formula"` // version of the formula
	Seed     uint64 `json:"seed,string"`
	Trials   int    `json:"trials"`
}
