package temporal

import (
	"fmt"
	"io"
	"time"

	"go.temporal.io/server/common/authorization"
	"go.temporal.io/server/common/cluster"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/dynamicconfig"
	"go.temporal.io/server/common/log"
	"go.temporal.io/server/common/membership/static"
	"go.temporal.io/server/common/metrics"
	"go.temporal.io/server/common/primitives"
	temporalserver "go.temporal.io/server/temporal"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"tourniquet.dev/tourniquet/dev/port"
)

// clusterName is the one cluster that this server knows.
const clusterName = "active"

// tuning for one busy machine.
var tuning = dynamicconfig.StaticClient{
	// By default a shard polls its queues 20 times a second, so that each workflow task waits some 40 ms.
	dynamicconfig.TransferProcessorMaxPollRPS.Key():   1000,
	dynamicconfig.TimerProcessorMaxPollRPS.Key():      1000,
	dynamicconfig.VisibilityProcessorMaxPollRPS.Key(): 1000,
	dynamicconfig.OutboundProcessorMaxPollRPS.Key():   1000,
	// Whoever waits for a workflow (Get, the Web UI) can miss its end: the server drops a notice when the one before it was
	// not yet read. The next long poll sees it, by default 20 s later.
	dynamicconfig.HistoryLongPollExpirationInterval.Key(): 2 * time.Second,
	// A search attribute added at start is known to the next call, not some seconds later.
	dynamicconfig.ForceSearchAttributesCacheRefreshOnRead.Key(): true,
}

// ports of the server and of the Web UI, all on loopback.
type ports struct{ frontend, history, matching, worker, ui int }

// pickPorts finds free ports. One asked for by number is probed: the Web UI ends the whole process when its port is taken.
func pickPorts(opts Options) (ports, error) {
	free, err := port.Free(5)
	if err != nil {
		return ports{}, err
	}
	p := ports{frontend: free[0], history: free[1], matching: free[2], worker: free[3], ui: free[4]}
	if opts.Port != 0 {
		p.frontend = opts.Port
	}
	if opts.UIPort != 0 {
		p.ui = opts.UIPort
	}
	if err := port.Check(p.frontend); err != nil {
		return ports{}, fmt.Errorf("probe port of the frontend: %w", err)
	}
	if opts.NoUI {
		return p, nil
	}
	if err := port.Check(p.ui); err != nil {
		return ports{}, fmt.Errorf("probe port of the Web UI: %w", err)
	}
	return p, nil
}

// newServer puts the server together: one process, one shard, all four services, hosts fixed instead of gossiped.
func newServer(db *config.SQL, p ports, to io.Writer) (temporalserver.Server, error) {
	logger := newLogger(to)
	hosts := map[primitives.ServiceName]static.Hosts{}
	services := map[string]config.Service{}
	for name, number := range map[primitives.ServiceName]int{
		primitives.FrontendService: p.frontend, primitives.HistoryService: p.history,
		primitives.MatchingService: p.matching, primitives.WorkerService: p.worker,
	} {
		hosts[name] = static.SingleLocalHost(port.Addr(number))
		services[string(name)] = config.Service{RPC: config.RPC{GRPCPort: number, BindOnIP: "127.0.0.1"}}
	}
	server, err := temporalserver.NewServer(
		temporalserver.WithConfig(newConfig(db, services, port.Addr(p.frontend))),
		temporalserver.ForServices(temporalserver.DefaultServices),
		temporalserver.WithStaticHosts(hosts),
		temporalserver.WithLogger(logger),
		temporalserver.WithCustomMetricsHandler(metrics.NoopMetricsHandler),
		temporalserver.WithAuthorizer(authorization.NewNoopAuthorizer()),
		temporalserver.WithClaimMapper(func(*config.Config) authorization.ClaimMapper { return authorization.NewNoopClaimMapper() }),
		temporalserver.WithDynamicConfigClient(tuning),
	)
	if err != nil {
		return nil, fmt.Errorf("put the server together: %w", err)
	}
	return server, nil
}

func newConfig(db *config.SQL, services map[string]config.Service, frontend string) *config.Config {
	return &config.Config{
		Persistence: config.Persistence{
			DefaultStore: db.PluginName, VisibilityStore: db.PluginName, NumHistoryShards: 1,
			DataStores: map[string]config.DataStore{db.PluginName: {SQL: db}},
		},
		ClusterMetadata: &cluster.Config{
			FailoverVersionIncrement: 10, MasterClusterName: clusterName, CurrentClusterName: clusterName,
			ClusterInformation: map[string]cluster.ClusterInformation{
				clusterName: {Enabled: true, InitialFailoverVersion: 1, RPCAddress: frontend},
			},
		},
		DCRedirectionPolicy: config.DCRedirectionPolicy{Policy: "noop"},
		Services:            services,
		Archival: config.Archival{
			History:    config.HistoryArchival{State: config.ArchivalDisabled},
			Visibility: config.VisibilityArchival{State: config.ArchivalDisabled},
		},
		NamespaceDefaults: config.NamespaceDefaults{Archival: config.ArchivalNamespaceDefaults{
			History:    config.HistoryArchivalNamespaceDefaults{State: config.ArchivalDisabled},
			Visibility: config.VisibilityArchivalNamespaceDefaults{State: config.ArchivalDisabled},
		}},
		PublicClient: config.PublicClient{HostPort: frontend},
	}
}

// newLogger writes warnings and errors as JSON lines.
func newLogger(to io.Writer) log.Logger {
	encoder := zap.NewProductionEncoderConfig()
	encoder.EncodeTime = zapcore.ISO8601TimeEncoder
	core := zapcore.NewCore(zapcore.NewJSONEncoder(encoder), zapcore.Lock(zapcore.AddSync(to)), zap.WarnLevel)
	return log.NewZapLogger(zap.New(core))
}
