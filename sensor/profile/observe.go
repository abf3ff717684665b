package profile

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"tourniquet.dev/tourniquet/internal/canonical"
)

// Mode says what is done with profiles.
type Mode string

// The modes. In Alert a workload is learned first, for the window, and what differs from then on is a drift.
const (
	Off   Mode = "off"
	Learn Mode = "learn"
	Alert Mode = "alert"
)

// Valid reports whether m is one of the modes.
func (m Mode) Valid() bool { return m == Off || m == Learn || m == Alert }

// Event is one thing that a process of the workload did. All of it may be an attacker's text.
type Event struct {
	Kind     Kind
	Path     string // executed or opened, resolved
	Written  bool   // the executable came after the image, or has no name any more
	By       string // the executable of the process that opens
	Main     bool   // it is the container's main program
	Addr     netip.AddrPort
	Protocol string
	// Suspect says that a rule told of this event, or of its process tree before. That is never learned: an attacker who is
	// there while a profile is learned does not become a part of it by what rules know already.
	Suspect bool
}

// Window is how long a workload is learned before its profile alarms: both have to be reached.
type Window struct {
	For          time.Duration
	Observations uint64
}

// Reason says why something is a drift.
type Reason string

const (
	// Unknown is what the workload did not do while it was learned.
	Unknown Reason = "not in the profile"
	// Full is what is not in a profile that had no room for all that there was to learn: it may be known, or not.
	Full Reason = "profile full"
)

// Drift is what a workload did that it did not do while it was learned, with what that rests on.
type Drift struct {
	Kind         Kind
	Reason       Reason
	Item         Item
	Since        time.Time // learned from then
	Until        time.Time // to then
	Observations uint64
	Known        int      // items of that kind that were learned
	Like         []string // some of them
	Repeated     int      // drifts of the profile that were not told since the last one that was
	Profile      string   // the profile's id, which is its file's name
}

// rules is what Observe needs to know besides the event.
type rules struct {
	mode   Mode
	window Window
	ranges []netip.Prefix // the addresses of which are one destination, the narrowest first
}

// observe learns from an event, or tells how it drifts. It is deterministic; now is the event's time.
func (p *Profile) observe(e Event, r rules, now time.Time) (Drift, bool) {
	item, ok := normalize(e, r.ranges)
	if !ok || r.mode == Off {
		return Drift{}, false
	}
	now = now.UTC().Truncate(time.Second)
	if p.Since.IsZero() {
		p.Since, p.dirty = now, true
	}
	p.advance(r, now)
	set, limit := p.set(e.Kind)
	if p.Alerting.IsZero() {
		p.dirty = true
		if e.Suspect {
			p.Withheld++
			return Drift{}, false
		}
		p.Observations++
		set.learn(item, limit, now)
		return Drift{}, false
	}
	if _, known := set.find(item); known {
		return Drift{}, false
	}
	repeated, tell := p.told.take(item, now)
	if !tell {
		return Drift{}, false
	}
	d := Drift{Kind: e.Kind, Reason: Unknown, Item: item, Since: p.Since, Until: p.Alerting, Observations: p.Observations,
		Known: len(set.Items), Repeated: repeated, Profile: p.Key.ID()}
	if set.Full {
		d.Reason = Full
	}
	for _, l := range set.Items[:min(len(set.Items), 5)] {
		d.Like = append(d.Like, l.Item.String())
	}
	return d, true
}

// advance lets the profile alarm when it has learned for long enough, and learn again when it is told to.
func (p *Profile) advance(r rules, now time.Time) {
	switch {
	case r.mode == Learn && !p.Alerting.IsZero():
		p.Alerting, p.dirty = time.Time{}, true
	case r.mode == Alert && p.Alerting.IsZero() && now.Sub(p.Since) >= r.window.For && p.Observations >= r.window.Observations:
		p.Alerting, p.dirty = now, true
	}
}

var (
	projected = regexp.MustCompile(`/\.\.[0-9]{4}_[0-9]{2}_[0-9_.]+/`) // a projected volume's folder of one rotation
	ofProcess = regexp.MustCompile(`^/proc/[0-9]+/`)
)

// normalize makes the item of an event: what differs only by chance becomes equal.
func normalize(e Event, ranges []netip.Prefix) (Item, bool) {
	switch e.Kind {
	case Executable:
		return Item{Path: text(e.Path), Written: e.Written}, e.Path != ""
	case Credential:
		path := ofProcess.ReplaceAllString(projected.ReplaceAllString(e.Path, "/..data/"), "/proc/PID/")
		i := Item{Path: text(path)}
		if !e.Main {
			if i.By = text(e.By); i.By == "" {
				i.By = "an unknown executable"
			}
		}
		return i, e.Path != ""
	case Destination:
		addr := e.Addr.Addr().Unmap().WithZone("")
		if !addr.IsValid() || addr.IsLoopback() || addr.IsUnspecified() || e.Addr.Port() == 0 || !protocols[e.Protocol] {
			return Item{}, false // leads nowhere, or asks the kernel for a route only
		}
		net := netip.PrefixFrom(addr, addr.BitLen())
		for _, r := range ranges {
			if r.Contains(addr) {
				net = r
				break
			}
		}
		return Item{Net: net.String(), Port: e.Addr.Port(), Protocol: e.Protocol}, true
	}
	return Item{}, false
}

// text bounds a path and spells what is not plain text, so that no two paths become one.
func text(s string) string {
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == utf8.RuneError }) {
		s = strconv.QuoteToASCII(s)
	}
	if len(s) > maxText {
		s = fmt.Sprintf("%s…%s", strings.ToValidUTF8(s[:maxText-80], ""), canonical.DigestOf([]byte(s)))
	}
	return s
}

const (
	tellAgain    = time.Hour // the same drift of one profile
	tellWithin   = time.Minute
	tellMost     = 20 // different drifts of one profile within tellWithin
	tellRemember = 256
)

// told keeps a flood of drifts from being a flood of detections: it counts what it keeps back, for the next one to tell.
type told struct {
	at     map[Item]time.Time
	order  []Item
	since  time.Time
	within int
	held   int
}

func (t *told) take(i Item, now time.Time) (repeated int, tell bool) {
	if now.Sub(t.since) >= tellWithin || now.Before(t.since) {
		t.since, t.within = now, 0
	}
	at, before := t.at[i]
	if (before && now.Sub(at) < tellAgain && !now.Before(at)) || t.within >= tellMost {
		t.held++
		return 0, false
	}
	if t.at == nil {
		t.at = map[Item]time.Time{}
	}
	if !before {
		if t.order = append(t.order, i); len(t.order) > tellRemember {
			delete(t.at, t.order[0])
			t.order = t.order[1:]
		}
	}
	t.at[i], repeated, t.held = now, t.held, 0
	t.within++
	return repeated, true
}
