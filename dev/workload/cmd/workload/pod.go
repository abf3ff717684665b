package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// box is where the pod's process lives: a cgroup, and a root of its own that nobody else sees.
type box struct {
	netns            string // path
	cgroup, root     string // root is an empty folder; what is mounted on it is seen by this process only
	credentials      string // file that becomes ~/.aws/credentials
	token, ca        string // files that become the projected service account token
	namespace, keyID string
}

const (
	home     = "/home/cart"
	secrets  = "/run/secrets/kubernetes.io/serviceaccount"
	projects = "..2026_11_01_08_30_00.3141592653" // the kubelet's way of changing all files at once
)

// pod makes the box and becomes the server inside of it. `ip netns exec` would hide the cgroups, so it goes by itself.
func pod(_ context.Context, args []string, _ io.Writer) error {
	var b box
	flags := flag.NewFlagSet("pod", flag.ContinueOnError)
	flags.StringVar(&b.netns, "netns", "", "`path` of the network namespace")
	flags.StringVar(&b.cgroup, "cgroup", "", "`folder` of the container's cgroup")
	flags.StringVar(&b.root, "root", "", "empty `folder` to mount the container's root on")
	flags.StringVar(&b.credentials, "credentials", "", "`file` for ~/.aws/credentials")
	flags.StringVar(&b.token, "token", "", "`file` with the service account's token")
	flags.StringVar(&b.ca, "ca", "", "`file` with the cluster's certificate authority")
	flags.StringVar(&b.namespace, "namespace", "", "the pod's namespace")
	flags.StringVar(&b.keyID, "key-id", "", "`id` for AWS_ACCESS_KEY_ID")
	if err := flags.Parse(args); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if b.cgroup != "" {
		if err := os.WriteFile(filepath.Join(b.cgroup, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0); err != nil { //nolint:gosec // a control file
			return fmt.Errorf("join cgroup: %w", err)
		}
	}
	runtime.LockOSThread() // for good: this thread becomes the server
	if err := enterNetns(b.netns); err != nil {
		return err
	}
	// A cut must not kill the connection that is to be seen living on after it. This is the namespace's own setting.
	if err := os.WriteFile("/proc/sys/net/ipv4/tcp_retries2", []byte("255"), 0); err != nil { //nolint:gosec // a control file
		return fmt.Errorf("have TCP be patient: %w", err)
	}
	if err := b.enter(self); err != nil {
		return err
	}
	env := []string{"PATH=/usr/bin:/bin", "HOME=" + home, "AWS_ACCESS_KEY_ID=" + b.keyID, "AWS_REGION=us-east-1"}
	return fmt.Errorf("become the server: %w", syscall.Exec("/app/cart", append([]string{"/app/cart", "serve"}, flags.Args()...), env))
}

// enter mounts a root of a few folders of this machine, read-only, with the pod's own home and secrets, and goes there.
func (b box) enter(self string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare mounts: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", b.root, "tmpfs", 0, "mode=755,size=16m"); err != nil {
		return fmt.Errorf("mount root: %w", err)
	}
	for _, dir := range []string{"/usr", "/bin", "/lib", "/lib64"} {
		if err := b.bring(dir); err != nil {
			return err
		}
	}
	if err := errors.Join(b.file("/app/cart"), b.bind(self, "/app/cart"), b.file("/dev/null"), b.bind("/dev/null", "/dev/null"),
		os.MkdirAll(b.root+"/tmp", 0o777), os.MkdirAll(b.root+"/var", 0o755), os.Symlink("/run", b.root+"/var/run")); err != nil {
		return err
	}
	if err := errors.Join(b.copy(b.credentials, home+"/.aws/credentials"), b.project()); err != nil {
		return err
	}
	if err := errors.Join(unix.Chroot(b.root), unix.Chdir("/")); err != nil {
		return fmt.Errorf("enter root: %w", err)
	}
	return nil
}

// bring has one of the machine's folders in the box: a link stays a link.
func (b box) bring(dir string) error {
	info, err := os.Lstat(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&os.ModeSymlink != 0 {
		to, err := os.Readlink(dir)
		if err != nil {
			return err
		}
		return os.Symlink(to, b.root+dir)
	}
	if err := os.MkdirAll(b.root+dir, 0o755); err != nil {
		return err
	}
	return b.bind(dir, dir)
}

func (b box) bind(from, to string) error {
	if err := unix.Mount(from, b.root+to, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s: %w", from, err)
	}
	if strings.HasPrefix(to, "/dev/") {
		return nil
	}
	if err := unix.Mount("", b.root+to, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("make %s read-only: %w", to, err)
	}
	return nil
}

// file makes an empty file to bind on.
func (b box) file(path string) error {
	if err := os.MkdirAll(filepath.Dir(b.root+path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(b.root+path, nil, 0o755)
}

func (b box) copy(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(b.root+to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(b.root+to, data, 0o600)
}

// project lays the service account's files out as the kubelet does, on a file system of their own.
func (b box) project() error {
	dir := b.root + secrets
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755,size=1m"); err != nil {
		return fmt.Errorf("mount service account: %w", err)
	}
	if err := errors.Join(b.copy(b.token, secrets+"/"+projects+"/token"), b.copy(b.ca, secrets+"/"+projects+"/ca.crt"),
		os.WriteFile(filepath.Join(dir, projects, "namespace"), []byte(b.namespace), 0o600), os.Symlink(projects, dir+"/..data")); err != nil {
		return err
	}
	var errs []error
	for _, name := range []string{"token", "ca.crt", "namespace"} {
		errs = append(errs, os.Symlink("..data/"+name, filepath.Join(dir, name)))
	}
	return errors.Join(errs...)
}
