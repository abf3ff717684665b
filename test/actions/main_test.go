package actions_test

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"

	deploy "tourniquet.dev/tourniquet/deploy/kubernetes"
	"tourniquet.dev/tourniquet/dev/cluster"
)

// shared is one API server for all tests here, started by the first that needs it, with the peacetime manifest.
var shared = struct {
	sync.Mutex
	dir     string
	cluster *cluster.Cluster
	err     error
}{}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.cluster != nil {
		if err := shared.cluster.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	if shared.dir != "" {
		_ = os.RemoveAll(shared.dir)
	}
	os.Exit(code)
}

// startCluster returns the shared cluster; the first time on a machine this builds it.
func startCluster(t *testing.T) *cluster.Cluster {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.cluster == nil && shared.err == nil {
		shared.cluster, shared.err = bootCluster(t)
	}
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.cluster
}

func bootCluster(t *testing.T) (*cluster.Cluster, error) {
	var err error
	if shared.dir, err = os.MkdirTemp("", "tourniquet-actions-"); err != nil {
		return nil, err
	}
	c, err := cluster.Start(context.Background(), cluster.Options{StateDir: shared.dir, Ephemeral: true, Log: t.Output()})
	if err != nil {
		return nil, err
	}
	config, err := c.RESTConfig()
	if err == nil {
		err = deploy.Install(context.Background(), config, deploy.BindRole([]string{"writer"}, []string{"app-wide"}))
	}
	if err != nil {
		return nil, fmt.Errorf("%w (stop: %w)", err, c.Stop())
	}
	return c, nil
}
