package bpf

// The objects and their bindings are committed, so that a build needs no clang. To make them again:
// apt-get install clang llvm libbpf-dev, then go generate ./bpf. One object serves amd64 and arm64: both are
// little-endian, and what differs between them is decided when a program is loaded.

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -target bpfel -no-global-types -cflags "-O2 -g -Wall -Werror -mcpu=v3" exec exec.bpf.c
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -target bpfel -no-global-types -cflags "-O2 -g -Wall -Werror -mcpu=v3" fork fork.bpf.c
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -target bpfel -no-global-types -cflags "-O2 -g -Wall -Werror -mcpu=v3" exit exit.bpf.c
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -target bpfel -no-global-types -cflags "-O2 -g -Wall -Werror -mcpu=v3" open open.bpf.c
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -target bpfel -no-global-types -cflags "-O2 -g -Wall -Werror -mcpu=v3" connect connect.bpf.c
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -target bpfel -no-global-types -cflags "-O2 -g -Wall -Werror -mcpu=v3" cgroup cgroup.bpf.c
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -target bpfel -no-global-types -cflags "-O2 -g -Wall -Werror -mcpu=v3" hold hold.bpf.c
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -target bpfel -no-global-types -cflags "-O2 -g -Wall -Werror -mcpu=v3" call call.bpf.c
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -target bpfel -no-global-types -cflags "-O2 -g -Wall -Werror -mcpu=v3" cred cred.bpf.c
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -target bpfel -no-global-types -cflags "-O2 -g -Wall -Werror -mcpu=v3" dns dns.bpf.c
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -target bpfel -no-global-types -cflags "-O2 -g -Wall -Werror -mcpu=v3" -output-stem lsm_open lsmOpen lsm_open.bpf.c
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -target bpfel -no-global-types -cflags "-O2 -g -Wall -Werror -mcpu=v3" -output-stem fentry_open fentryOpen fentry_open.bpf.c
