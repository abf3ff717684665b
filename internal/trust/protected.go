package trust

import (
	"path"
	"strings"

	"golang.org/x/text/unicode/norm"
)

// alwaysProtected are namespaces that no trust file can open: losing them loses the cluster and its way back.
var alwaysProtected = Protected{
	Namespaces: []string{"kube-system", "kube-public", "kube-node-lease", "tourniquet-system"},
	Principals: []string{"root", "awsservicerolefor*", "awsreservedsso_*", "tourniquet-*", "*/aws-service-role/*", "*:root"},
}

// ProtectsNamespace reports whether nothing in this namespace may be touched.
func (f *File) ProtectsNamespace(ns string) bool {
	return match(alwaysProtected.Namespaces, ns) || match(f.Protected.Namespaces, ns)
}

// ProtectsServiceAccount reports whether this service account may not be cut.
func (f *File) ProtectsServiceAccount(ns, name string) bool {
	return f.ProtectsNamespace(ns) || match(f.Protected.ServiceAccounts, ns+"/"+name)
}

// ProtectsPrincipal reports whether an IAM user or role, by name or ARN, may not be cut.
func (f *File) ProtectsPrincipal(nameOrARN string) bool {
	short := nameOrARN[strings.LastIndexByte(nameOrARN, '/')+1:]
	for _, list := range [][]string{alwaysProtected.Principals, f.Protected.Principals} {
		if match(list, nameOrARN) || match(list, short) {
			return true
		}
	}
	return false
}

// match compares without regard to case and Unicode form, so that no spelling slips past. '*' also matches '/'.
func match(patterns []string, s string) bool {
	s = fold(s)
	for _, p := range patterns {
		p = fold(p)
		if p == s {
			return true
		}
		flat := func(x string) string { return strings.ReplaceAll(x, "/", "\x01") }
		if ok, err := path.Match(flat(p), flat(s)); ok && err == nil {
			return true
		}
	}
	return false
}

func fold(s string) string { return strings.ToLower(norm.NFKC.String(strings.TrimSpace(s))) }
