package temporal

import (
	"context"
	"fmt"
	"net/http"

	uiserver "github.com/temporalio/ui-server/v2/server"
	uiconfig "github.com/temporalio/ui-server/v2/server/config"
	"github.com/temporalio/ui-server/v2/server/server_options"

	"tourniquet.dev/tourniquet/dev/port"
)

// startUI starts the Web UI and waits until it answers. Its port was probed: when it cannot listen, it ends the process.
func (s *Server) startUI(ctx context.Context, p ports) error {
	if err := port.Check(p.ui); err != nil { // again, a second later
		return fmt.Errorf("probe port of the Web UI: %w", err)
	}
	config := &uiconfig.Config{
		TemporalGRPCAddress: s.frontend, Host: "127.0.0.1", Port: p.ui,
		EnableUI: true, HideLogs: true, DisableNewsFetch: true, // asks nothing outside of this machine
		DefaultNamespace:    s.opts.Namespace,
		DisableWriteActions: s.opts.ReadOnlyUI,
		CORS:                uiconfig.CORS{CookieInsecure: true}, // plain http
		Codec:               uiconfig.Codec{Endpoint: s.opts.CodecEndpoint},
	}
	if err := config.Validate(); err != nil { // the UI's constructor would panic
		return fmt.Errorf("configure the Web UI: %w", err)
	}
	s.web = uiserver.NewServer(server_options.WithConfigProvider(config))
	s.webDone = make(chan struct{})
	go func() { // ends by Stop, which waits for it
		defer close(s.webDone)
		_ = s.web.Start() // only ever nil
	}()
	return eventually(ctx, func() error { return answers(ctx, s.ui+"/healthz") })
}

// answers returns nil when a GET of the URL succeeds.
func answers(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("ask %s: %w", url, err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("ask %s: %w", url, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("ask %s: %s", url, response.Status)
	}
	return nil
}
