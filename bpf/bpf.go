// Package bpf holds the kernel side of the sensor: one C program for each probe, the objects built from them, and what
// is needed to load them, attach them and set their filters. It decides nothing: which names, inodes, addresses and
// cgroups matter is told to it, and what an event means is judged by its callers, sensor/probe and sensor/hold.
package bpf

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
)

// Hook names one probe, and so one object file.
type Hook string

// The hooks there are. HookOpen is the dear one: it puts a tracepoint on every system call of the node.
const (
	HookExec    Hook = "exec"
	HookFork    Hook = "fork"
	HookExit    Hook = "exit"
	HookOpen    Hook = "open"
	HookConnect Hook = "connect"
	HookCgroup  Hook = "cgroup"
	HookCall    Hook = "call" // on every system call, as HookOpen; nothing is told before MatchCalls
	HookCred    Hook = "cred" // on every system call, twice
	HookDNS     Hook = "dns"  // on every packet that leaves
)

// Hooks returns all hooks, in the order in which they are attached: what describes processes comes first.
func Hooks() []Hook {
	return []Hook{HookCgroup, HookFork, HookExec, HookExit, HookConnect, HookOpen, HookCall, HookCred, HookDNS}
}

// Standard returns the hooks that are loaded where none are named: not those that only some rules need.
func Standard() []Hook {
	return []Hook{HookCgroup, HookFork, HookExec, HookExit, HookConnect, HookOpen}
}

// Tier says by what means a hook sees, from the strongest to the weakest.
type Tier string

// The tiers. A hook of TierTracepoint may have stronger ones, see stronger.
const (
	TierLSM        Tier = "lsm"
	TierFentry     Tier = "fentry"
	TierTracepoint Tier = "tracepoint"
	TierCgroup     Tier = "cgroup"
)

// HookStatus says how a hook fares. A hook without an error has been attached, which is not yet proof that it fires.
type HookStatus struct {
	Hook    Hook
	Tier    Tier
	Refused []Refusal // the stronger tiers that were tried before, and why they are not used
	Err     error
}

// Options says what to load.
type Options struct {
	Hooks          []Hook // none: Standard()
	CgroupRoot     string // where cgroup v2 is mounted; needed by HookConnect
	CriticalBytes  uint32 // size of the critical ring, a power of two pages; 0: 256 KiB
	TelemetryBytes uint32 // size of the telemetry ring; 0: 2 MiB
	SkipTiers      []Tier // not to be tried, for tests and for a kernel on which one is known to do harm
}

const (
	defaultCriticalBytes  = 256 << 10
	defaultTelemetryBytes = 2 << 20
)

// The maps of which all objects share one instance.
var sharedMaps = []string{execMapCritical, execMapTelemetry, execMapCounters, execMapConfig, execMapWatched, execMapNames, execMapBuckets}

type objects struct {
	hook     Hook
	tier     Tier
	weaker   []variant // not tried yet
	refused  []Refusal
	programs map[string]*ebpf.ProgramSpec
	loaded   *ebpf.Collection
	links    []link.Link // kept: a collected link detaches its program without a word
	err      error
}

// Programs are the loaded probes. Safe for concurrent use; Close detaches them all.
type Programs struct {
	options Options
	shared  map[string]*ebpf.Map
	hooks   []*objects

	mu     sync.Mutex
	config configValue

	hooksMu sync.RWMutex // of what is in hooks: SetHooks and Lower exchange it

	missedBefore map[Hook]uint64 // by programs that are unloaded
}

var loaders = map[Hook]variant{
	HookExec:    {TierTracepoint, loadExec},
	HookFork:    {TierTracepoint, loadFork},
	HookExit:    {TierTracepoint, loadExit},
	HookOpen:    {TierTracepoint, loadOpen},
	HookConnect: {TierCgroup, loadConnect},
	HookCgroup:  {TierTracepoint, loadCgroup},
	HookCall:    {TierTracepoint, loadCall},
	HookCred:    {TierTracepoint, loadCred},
	HookDNS:     {TierCgroup, loadDns},
}

// Load brings the programs into the kernel without attaching them. A hook that the kernel refuses is left out and told
// of by Status; an error is returned when none is left.
func Load(o Options) (*Programs, error) {
	if len(o.Hooks) == 0 {
		o.Hooks = Standard()
	}
	if o.CriticalBytes == 0 {
		o.CriticalBytes = defaultCriticalBytes
	}
	if o.TelemetryBytes == 0 {
		o.TelemetryBytes = defaultTelemetryBytes
	}
	limit := rlimit.RemoveMemlock() // needed before 5.11 only; if it is, the loads below fail too
	p := &Programs{options: o, shared: map[string]*ebpf.Map{}}
	if err := p.createShared(); err != nil {
		return nil, errors.Join(fmt.Errorf("create shared maps: %w", err), limit, p.Close())
	}
	var errs []error
	for _, hook := range o.Hooks {
		h := p.loadHook(hook)
		p.hooks = append(p.hooks, h)
		errs = append(errs, h.err)
	}
	if !slices.ContainsFunc(p.hooks, func(h *objects) bool { return h.err == nil }) {
		return nil, errors.Join(append(errs, limit, p.Close())...)
	}
	return p, nil
}

func (p *Programs) createShared() error {
	spec, err := loadExec()
	if err != nil {
		return fmt.Errorf("read object: %w", err)
	}
	p.resize(spec)
	for _, name := range sharedMaps {
		m, err := ebpf.NewMap(spec.Maps[name])
		if err != nil {
			return fmt.Errorf("map %s: %w", name, err)
		}
		p.shared[name] = m
	}
	return nil
}

func (p *Programs) resize(spec *ebpf.CollectionSpec) {
	spec.Maps[execMapCritical].MaxEntries = p.options.CriticalBytes
	spec.Maps[execMapTelemetry].MaxEntries = p.options.TelemetryBytes
}

// loadHook loads the strongest tier that the kernel takes.
func (p *Programs) loadHook(hook Hook) *objects {
	h := &objects{hook: hook, weaker: p.variants(hook)}
	if len(h.weaker) == 0 {
		h.err = fmt.Errorf("hook %q: unknown", hook)
		return h
	}
	p.loadNext(h)
	return h
}

// Attach makes the loaded programs run. A hook that cannot be attached is told of by Status; an error is returned when
// none is attached. Set filters and Configure first, or the first events pass unfiltered.
func (p *Programs) Attach() error {
	p.hooksMu.Lock()
	defer p.hooksMu.Unlock()
	var errs []error
	attached := 0
	for _, h := range p.hooks {
		p.attachStrongest(h)
		if h.err == nil {
			attached++
		}
		errs = append(errs, h.err)
	}
	if attached == 0 {
		return fmt.Errorf("attach probes: %w", errors.Join(errs...))
	}
	return nil
}

func (p *Programs) attachHook(h *objects) error {
	for name, spec := range h.programs {
		l, err := attach(h.loaded.Programs[name], spec, p.options.CgroupRoot)
		if err != nil {
			return errors.Join(fmt.Errorf("hook %s: attach %s: %w", h.hook, name, err), h.detach())
		}
		h.links = append(h.links, l)
	}
	return nil
}

func attach(program *ebpf.Program, spec *ebpf.ProgramSpec, cgroupRoot string) (link.Link, error) {
	if spec.Type == ebpf.LSM {
		return link.AttachLSM(link.LSMOptions{Program: program})
	}
	if spec.Type == ebpf.Tracing {
		return link.AttachTracing(link.TracingOptions{Program: program, AttachType: spec.AttachType})
	}
	return link.AttachCgroup(link.CgroupOptions{Path: cgroupRoot, Attach: spec.AttachType, Program: program})
}

func (h *objects) detach() error {
	var errs []error
	for _, l := range h.links {
		errs = append(errs, l.Close())
	}
	h.links = nil
	return errors.Join(errs...)
}

// Status says of each hook whether it is attached, and if not, why.
func (p *Programs) Status() []HookStatus {
	p.hooksMu.RLock()
	defer p.hooksMu.RUnlock()
	var all []HookStatus
	for _, h := range p.hooks {
		all = append(all, HookStatus{Hook: h.hook, Tier: h.tier, Refused: slices.Clone(h.refused), Err: h.err})
	}
	return all
}

// Critical returns the ring of the records that wake their reader.
func (p *Programs) Critical() *ebpf.Map { return p.shared[execMapCritical] }

// Telemetry returns the ring of the records that wait to be fetched.
func (p *Programs) Telemetry() *ebpf.Map { return p.shared[execMapTelemetry] }

// Detach stops the programs; the rings and counters can still be read.
func (p *Programs) Detach() error {
	p.hooksMu.Lock()
	defer p.hooksMu.Unlock()
	var errs []error
	for _, h := range p.hooks {
		errs = append(errs, h.detach())
	}
	return errors.Join(errs...)
}

// Close detaches and unloads everything.
func (p *Programs) Close() error {
	p.hooksMu.Lock()
	defer p.hooksMu.Unlock()
	var errs []error
	for _, h := range p.hooks {
		errs = append(errs, h.detach())
		if h.loaded != nil {
			h.loaded.Close()
		}
	}
	for _, m := range p.shared {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}
