package bpf

import "runtime"

// Call is one of the rare system calls that HookCall and HookCred tell of, or a few of which none is told apart.
type Call uint16

// The calls, as event.h numbers them.
const (
	CallPtrace Call = 1 + iota
	CallVMRead
	CallVMWrite
	CallSetns
	CallUnshare
	CallMount
	CallMoveMount
	CallFsmount
	CallOpenTree
	CallPivotRoot
	CallChroot
	CallInitModule
	CallFinitModule
	CallBPF
	CallMemfd
	CallDup
	CallDupTo
	CallFcntl
	CallUserfaultfd
	CallSocket
	CallPidfdGetfd
	CallConnect
	CallSetID
	CallCapset
)

const (
	maxCalls  = 32
	tableSize = 512
)

// callRow has a call's name and its numbers, on a 64-bit machine and for the 32-bit programs that this one runs.
type callRow struct {
	name                      string
	amd64, i386, arm64, arm32 []uint16
}

type numbers = []uint16

var callRows = map[Call]callRow{
	CallPtrace:      {"ptrace", numbers{101}, numbers{26}, numbers{117}, numbers{26}},
	CallVMRead:      {"process_vm_readv", numbers{310}, numbers{347}, numbers{270}, numbers{376}},
	CallVMWrite:     {"process_vm_writev", numbers{311}, numbers{348}, numbers{271}, numbers{377}},
	CallSetns:       {"setns", numbers{308}, numbers{346}, numbers{268}, numbers{375}},
	CallUnshare:     {"unshare", numbers{272}, numbers{310}, numbers{97}, numbers{337}},
	CallMount:       {"mount", numbers{165}, numbers{21}, numbers{40}, numbers{21}},
	CallMoveMount:   {"move_mount", numbers{429}, numbers{429}, numbers{429}, numbers{429}},
	CallFsmount:     {"fsmount", numbers{432}, numbers{432}, numbers{432}, numbers{432}},
	CallOpenTree:    {"open_tree", numbers{428}, numbers{428}, numbers{428}, numbers{428}},
	CallPivotRoot:   {"pivot_root", numbers{155}, numbers{217}, numbers{41}, numbers{218}},
	CallChroot:      {"chroot", numbers{161}, numbers{61}, numbers{51}, numbers{61}},
	CallInitModule:  {"init_module", numbers{175}, numbers{128}, numbers{105}, numbers{128}},
	CallFinitModule: {"finit_module", numbers{313}, numbers{350}, numbers{273}, numbers{379}},
	CallBPF:         {"bpf", numbers{321}, numbers{357}, numbers{280}, numbers{386}},
	CallMemfd:       {"memfd_create", numbers{319}, numbers{356}, numbers{279}, numbers{385}},
	CallDup:         {"dup", numbers{32}, numbers{41}, numbers{23}, numbers{41}},
	CallDupTo:       {"dup2", numbers{33, 292}, numbers{63, 330}, numbers{24}, numbers{63, 358}}, // and dup3
	CallFcntl:       {"fcntl", numbers{72}, numbers{55, 221}, numbers{25}, numbers{55, 221}},
	CallUserfaultfd: {"userfaultfd", numbers{323}, numbers{374}, numbers{282}, numbers{388}},
	CallSocket:      {"socket", numbers{41}, numbers{359}, numbers{198}, numbers{281}},
	CallPidfdGetfd:  {"pidfd_getfd", numbers{438}, numbers{438}, numbers{438}, numbers{438}},
	CallConnect:     {"connect", numbers{42}, numbers{362}, numbers{203}, numbers{283}},
	CallSetID: {"setid", // setuid, setgid, setreuid, setregid, setgroups, setresuid, setresgid, setfsuid, setfsgid
		numbers{105, 106, 113, 114, 116, 117, 119, 122, 123},
		numbers{23, 46, 70, 71, 81, 138, 139, 164, 170, 203, 204, 206, 208, 210, 213, 214, 215, 216},
		numbers{143, 144, 145, 146, 147, 149, 151, 152, 159},
		numbers{23, 46, 70, 71, 81, 138, 139, 164, 170, 203, 204, 206, 208, 210, 213, 214, 215, 216}},
	CallCapset: {"capset", numbers{126}, numbers{185}, numbers{91}, numbers{185}},
}

// Calls returns all calls in the order of their numbers.
func Calls() []Call {
	var all []Call
	for c := CallPtrace; c <= CallCapset; c++ {
		all = append(all, c)
	}
	return all
}

// Valid reports whether c is one of the calls.
func (c Call) Valid() bool { return c >= CallPtrace && c <= CallCapset }

// String returns the name of the call, as manual pages have it where it stands for one only.
func (c Call) String() string {
	if !c.Valid() {
		return "unknown"
	}
	return callRows[c].name
}

// tableRow says which call a number means: to a native program, and to a 32-bit one.
type tableRow struct {
	Native uint8
	Compat uint8
}

type callTable struct {
	Rows [tableSize]tableRow
}

// callTableOf makes the table of the machine that this program runs on.
func callTableOf(calls []Call) callTable {
	var t callTable
	for _, c := range calls {
		row := callRows[c]
		native, compat := row.amd64, row.i386
		if runtime.GOARCH == "arm64" {
			native, compat = row.arm64, row.arm32
		}
		for _, nr := range native {
			t.Rows[nr].Native = uint8(c)
		}
		for _, nr := range compat {
			t.Rows[nr].Compat = uint8(c)
		}
	}
	return t
}
