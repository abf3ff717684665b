package stack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"go.temporal.io/sdk/client"
	"go.yaml.in/yaml/v3"

	"tourniquet.dev/tourniquet/dev/build"
	"tourniquet.dev/tourniquet/dev/cluster"
	"tourniquet.dev/tourniquet/dev/port"
	"tourniquet.dev/tourniquet/internal/sys/temporalclient"
	"tourniquet.dev/tourniquet/workflows"
)

// Programs of the product and of the dev module that the stack runs.
var (
	productPrograms = []string{"./starter/intake", "./starter/decide", "./worker/orchestrate", "./worker/investigate", "./worker/notify",
		"./worker/contain-aws", "./worker/contain-kubernetes", "./sensor", "./cmd/tourniquet"}
	devPrograms = []string{"./temporal/cmd/temporal-dev", "./aws/cmd/aws-standin", "./slack/cmd/slack-standin", "./workload/cmd/workload"}
)

// searchAttributes are those that the workflows set.
var searchAttributes = map[string]string{workflows.AttrSeverity: "Keyword", workflows.AttrState: "Keyword", workflows.AttrPlaybook: "Keyword",
	workflows.AttrTier: "Keyword", workflows.AttrIncident: "Keyword", workflows.AttrWorkload: "Keyword", workflows.AttrExposure: "Int"}

// Build builds every program that the stack runs and returns their folder. It is quick when all is up to date.
func (s *Stack) build(ctx context.Context) error {
	cache, err := build.Cache()
	if err != nil {
		return err
	}
	s.bin = filepath.Join(cache, "bin")
	if err := build.Go(ctx, s.root, productPrograms, s.bin, s.opts.Log); err != nil {
		return err
	}
	return build.Go(ctx, filepath.Join(s.root, "dev"), devPrograms, s.bin, s.opts.Log)
}

// Program is the path of a built program.
func (s *Stack) Program(name string) string { return filepath.Join(s.bin, name) }

// startAll starts the outside systems side by side, then the product's parts in the order of their need.
func (s *Stack) startAll(ctx context.Context) error {
	kube := make(chan error, 1)
	go func() { kube <- s.startKubernetes(ctx) }()
	err := s.build(ctx)
	if err == nil {
		s.say("programs are built")
		err = s.startOutside(ctx)
	}
	if err := errors.Join(err, <-kube); err != nil {
		return err
	}
	if err := s.seedKubernetes(ctx); err != nil {
		return err
	}
	if err := s.seedAWS(ctx); err != nil {
		return err
	}
	s.say("accounts, rights and policies are in place")
	return s.startProduct(ctx)
}

func (s *Stack) startKubernetes(ctx context.Context) error {
	bin, err := build.Kube(ctx, s.opts.Log)
	if err != nil {
		return err
	}
	c, err := cluster.Start(ctx, cluster.Options{StateDir: s.path("kubernetes"), BinDir: bin, Ephemeral: true})
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.Kubernetes = c
	s.mu.Unlock()
	s.say("etcd and kube-apiserver are ready at %s", c.URL())
	go func() { // ends with the cluster
		err := c.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.stopping {
			s.report(err)
		}
	}()
	return nil
}

// startOutside starts what stands for the outside: Temporal, AWS and Slack.
func (s *Stack) startOutside(ctx context.Context) error {
	free, err := port.Free(4)
	if err != nil {
		return err
	}
	s.CodecURL, s.IntakeURL, s.Decide = "http://"+port.Addr(free[0]), "http://"+port.Addr(free[1]), port.Addr(free[2])
	if err := s.startTemporal(ctx); err != nil {
		return err
	}
	s.say("Temporal is ready at %s, its Web UI at %s", s.TemporalAddr, s.UIURL)
	if err := s.startAWS(ctx); err != nil {
		return err
	}
	slackPort := s.opts.SlackPort
	if slackPort == 0 {
		slackPort = free[3]
	} else if err := port.Check(slackPort); err != nil {
		return fmt.Errorf("%w: free it, or leave the port out", err)
	}
	ready, err := s.start(ctx, command{name: "slack-standin", bin: s.Program("slack-standin"), args: []string{"-listen", port.Addr(slackPort),
		"-signing-secret-file", s.key("slack-signing-secret"), "-bot-token-file", s.key("slack-bot-token"),
		"-interactivity-url", "http://" + s.Decide + "/slack/interactions"}})
	if err != nil {
		return err
	}
	s.SlackURL, _ = ready["page"].(string)
	s.say("the Slack stand-in is ready at %s, the AWS stand-in at %s", s.SlackURL, s.AWSURL)
	return nil
}

func (s *Stack) startTemporal(ctx context.Context) error {
	args := []string{"-db", s.path("temporal.db"), "-codec", s.CodecURL}
	if s.opts.UIPort != 0 {
		if err := port.Check(s.opts.UIPort); err != nil {
			return fmt.Errorf("%w: free it, or leave the port out", err)
		}
		args = append(args, "-ui-port", fmt.Sprint(s.opts.UIPort))
	}
	for name, kind := range searchAttributes {
		args = append(args, "-search-attribute", name+"="+kind)
	}
	ready, err := s.start(ctx, command{name: "temporal-dev", bin: s.Program("temporal-dev"), args: args})
	if err != nil {
		return err
	}
	s.TemporalAddr, _ = ready["addr"].(string)
	s.UIURL, _ = ready["ui"].(string)
	return nil
}

// startProduct starts the product's own processes.
func (s *Stack) startProduct(ctx context.Context) error {
	for _, p := range []struct {
		name   string
		config any
	}{
		{"orchestrate", s.orchestrate()}, {"investigate", s.investigate()}, {"notify", s.notify()}, {"contain-aws", s.containAWS()},
		{"contain-kubernetes", s.containKubernetes()}, {"decide", s.decide()}, {"intake", s.intake()},
	} {
		if err := s.startPart(ctx, p.name, p.config); err != nil {
			return err
		}
	}
	s.say("intake, decide and the five workers are ready")
	for _, p := range People {
		if err := s.configure(s.Operator(p.ID), s.operator(p.ID)); err != nil {
			return err
		}
	}
	return nil
}

// StartSensor starts the node's sensor. It comes last, so that what it sees has somewhere to go.
func (s *Stack) StartSensor(ctx context.Context) error {
	if err := s.startPart(ctx, "sensor", s.sensor()); err != nil {
		return err
	}
	s.say("the sensor is ready")
	return nil
}

// Play has the sensor, which is not started yet, play a recording of kernel events with its pauses. replace is what stands
// for the texts in it.
func (s *Stack) Play(recording string, replace map[string]string) {
	s.recording = doc{"recording": filepath.Join(s.root, recording), "replace": replace, "paced": true, "pins": ""}
}

func (s *Stack) startPart(ctx context.Context, name string, config any) error {
	path := s.path("config", name+".yaml")
	if err := s.configure(path, config); err != nil {
		return err
	}
	_, err := s.start(ctx, command{name: name, bin: s.Program(name), args: []string{"--config", path}})
	return err
}

func (s *Stack) configure(path string, config any) error {
	data, err := yaml.Marshal(config)
	if err == nil {
		err = os.WriteFile(path, data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func (s *Stack) dial(ctx context.Context) (client.Client, error) {
	ring, err := temporalclient.LoadKeyRing(s.key("codec.json"))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return temporalclient.Dial(ctx, temporalclient.Options{Address: s.TemporalAddr, Namespace: "default", Identity: "demo", Ring: ring,
		Logger: slog.New(slog.DiscardHandler)})
}

// Run starts a further program with the stack, such as the demo's workload: it says that it is ready by a line of JSON,
// and is ended with the stack.
func (s *Stack) Run(ctx context.Context, name, bin string, args ...string) (ready map[string]any, err error) {
	return s.start(ctx, command{name: name, bin: bin, args: args})
}
