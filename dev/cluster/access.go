package cluster

import (
	"context"
	"crypto/ecdsa"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// URL is the API server's address.
func (c *Cluster) URL() string { return c.url }

// CA is the certificate authority of the API server and of client certificates, as PEM.
func (c *Cluster) CA() []byte { return c.clients.pem }

// Issuer is the issuer of service account tokens.
func (c *Cluster) Issuer() string { return c.opts.Issuer }

// SigningKey signs service account tokens (ES256): with its public half a stand-in for AWS can check them by itself.
func (c *Cluster) SigningKey() *ecdsa.PrivateKey { return c.signingKey }

// Kubeconfig is the admin's (group system:masters: no policy binds it).
func (c *Cluster) Kubeconfig() []byte { return c.admin }

// KubeconfigPath is the file that holds Kubeconfig.
func (c *Cluster) KubeconfigPath() string { return c.file("admin.kubeconfig") }

// RESTConfig is the admin's, without client-side rate limits.
func (c *Cluster) RESTConfig() (*rest.Config, error) {
	config, err := clientcmd.RESTConfigFromKubeConfig(c.admin)
	if err != nil {
		return nil, fmt.Errorf("read admin kubeconfig: %w", err)
	}
	config.QPS = -1 // 5 a second by default
	return config, nil
}

// Client is a client with the admin's rights.
func (c *Cluster) Client() (*kubernetes.Clientset, error) {
	config, err := c.RESTConfig()
	if err != nil {
		return nil, err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make admin client: %w", err)
	}
	return client, nil
}

// UserKubeconfig returns a kubeconfig with a new client certificate for a user in these groups. A user has the rights
// that RBAC gives the name; the certificate gives none, and cannot be taken back.
func (c *Cluster) UserKubeconfig(user string, groups ...string) ([]byte, error) {
	cert, key, err := c.clients.issue(clientTemplate(user, groups))
	if err != nil {
		return nil, fmt.Errorf("make kubeconfig of %s: %w", user, err)
	}
	return c.kubeconfig(user, &clientcmdapi.AuthInfo{ClientCertificateData: cert, ClientKeyData: key})
}

// TokenKubeconfig returns a kubeconfig that presents a bearer token.
func (c *Cluster) TokenKubeconfig(token string) ([]byte, error) {
	return c.kubeconfig("token", &clientcmdapi.AuthInfo{Token: token})
}

// A TokenRequest asks for a service account's token.
type TokenRequest struct {
	Namespace, ServiceAccount string
	// Pod and PodUID bind the token to a pod that runs under the account: it names the pod, and ends with it. Both or none.
	Pod    string
	PodUID types.UID
	// Audiences; empty: the API server's own.
	Audiences []string
	// Lifetime is at least 10 minutes, and an hour when it is 0.
	Lifetime time.Duration
}

// ServiceAccountToken has the API server issue a token, as a kubelet does for a pod.
func (c *Cluster) ServiceAccountToken(ctx context.Context, in TokenRequest) (string, error) {
	client, err := c.Client()
	if err != nil {
		return "", err
	}
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: in.Audiences}}
	if in.Lifetime != 0 {
		seconds := int64(in.Lifetime / time.Second)
		request.Spec.ExpirationSeconds = &seconds
	}
	if in.Pod != "" {
		request.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: in.Pod, UID: in.PodUID}
	}
	issued, err := client.CoreV1().ServiceAccounts(in.Namespace).CreateToken(ctx, in.ServiceAccount, request, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("issue token of %s/%s: %w", in.Namespace, in.ServiceAccount, err)
	}
	return issued.Status.Token, nil
}

func (c *Cluster) writeAdmin() (err error) {
	if c.admin, err = c.UserKubeconfig("tourniquet-dev-admin", "system:masters"); err != nil {
		return err
	}
	return writeFile(c.KubeconfigPath(), c.admin)
}

func (c *Cluster) kubeconfig(user string, auth *clientcmdapi.AuthInfo) ([]byte, error) {
	const name = "tourniquet-dev"
	b, err := clientcmd.Write(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{name: {Server: c.url, CertificateAuthorityData: c.clients.pem}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{user: auth},
		Contexts:       map[string]*clientcmdapi.Context{name: {Cluster: name, AuthInfo: user}},
		CurrentContext: name,
	})
	if err != nil {
		return nil, fmt.Errorf("write kubeconfig of %s: %w", user, err)
	}
	return b, nil
}
