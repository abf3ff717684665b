package rule

import "net/netip"

// Watch is what the kernel has to tell of at once, or at all, for the bundled rules to see it. Names are those of the file
// itself, not of the path that a caller used.
type Watch struct {
	Files     []string // opened files, by name
	Dirs      []string // opened files, by the name of their directory
	Programs  []string // executed files, by name
	Addresses []netip.Addr
}

// Watched returns what the bundled rules need. A rule about a file that is not named here never sees it: a test compares
// the two.
func Watched() Watch {
	w := Watch{
		Files: []string{
			"credentials", "config", "token", "eks-pod-identity-token",
			"kubeconfig", "kubelet.conf", "admin.conf", "super-admin.conf",
			"id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", "id_ecdsa_sk", "id_ed25519_sk",
			"credentials.db", "application_default_credentials.json", "accessTokens.json", "msal_token_cache.json", "config.json",
			".git-credentials", ".netrc", ".pgpass", ".vault-token",
		},
		Dirs:     []string{"cache"}, // .aws/sso/cache, .aws/cli/cache
		Programs: append([]string(nil), shells...),
	}
	for _, a := range []string{"169.254.169.254", "169.254.170.2", "169.254.170.23", "fd00:ec2::254", "fd00:ec2::23"} {
		w.Addresses = append(w.Addresses, netip.MustParseAddr(a))
	}
	return w
}
