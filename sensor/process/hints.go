package process

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
)

// Hints are what a process's environment says about the AWS identity it uses. Anyone who may start a process can write
// it, so a hint is a claim, never a proof.
type Hints struct {
	AccessKeyID string // AWS_ACCESS_KEY_ID, an id and no secret
	RoleARN     string // AWS_ROLE_ARN (IRSA)
	SessionName string // AWS_ROLE_SESSION_NAME
	TokenFile   string // AWS_WEB_IDENTITY_TOKEN_FILE: the path of the token
	FullURI     string // AWS_CONTAINER_CREDENTIALS_FULL_URI (Pod Identity)
	Profile     string // AWS_PROFILE
	// Present are names of secrets that the environment holds, sorted; and listed names whose value is not what it
	// should be, of which nothing else is kept. The values were never read into more than a few bytes.
	Present []string
	Cut     bool // the environment is longer than was read
}

const (
	environChunk = 16 // so much of a secret is in memory at once, and is overwritten by what follows
	maxEnviron   = 256 << 10
	maxName      = 48
	maxValue     = 2048
)

// kept are the names whose values are kept, each with the only form in which it is.
var kept = map[string]*regexp.Regexp{
	"AWS_ACCESS_KEY_ID":                  regexp.MustCompile(`^A[A-Z0-9]{15,127}$`),
	"AWS_ROLE_ARN":                       regexp.MustCompile(`^arn:[a-z0-9-]+:iam::[0-9]{12}:role/[\w+=,.@/-]+$`),
	"AWS_ROLE_SESSION_NAME":              regexp.MustCompile(`^[\w+=,.@-]{2,64}$`),
	"AWS_WEB_IDENTITY_TOKEN_FILE":        regexp.MustCompile(`^/[\w+=,.@/-]+$`),
	"AWS_CONTAINER_CREDENTIALS_FULL_URI": regexp.MustCompile(`^https?://[\w.:\[\]-]+(/[\w./-]*)?$`),
	"AWS_PROFILE":                        regexp.MustCompile(`^[\w+=,.@ -]{1,128}$`),
}

// secrets are the names of which only the presence is noted.
var secrets = map[string]bool{
	"AWS_SECRET_ACCESS_KEY":                  true,
	"AWS_SESSION_TOKEN":                      true,
	"AWS_SECURITY_TOKEN":                     true,
	"AWS_CONTAINER_AUTHORIZATION_TOKEN":      true,
	"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": true, // names the credentials for whoever asks
	"AWS_BEARER_TOKEN_BEDROCK":               true,
	"ANTHROPIC_API_KEY":                      true,
	"OPENAI_API_KEY":                         true,
	"AZURE_OPENAI_API_KEY":                   true,
	"GITHUB_TOKEN":                           true,
	"VAULT_TOKEN":                            true,
}

// ReadHints reads the environment with which a process was started. It takes a system call for every 16 bytes, so it is
// for once per container, not for each event. Needs CAP_SYS_PTRACE for other users' processes.
func ReadHints(proc string, pid uint32) (Hints, error) {
	file, err := os.Open(filepath.Join(proc, strconv.FormatUint(uint64(pid), 10), "environ"))
	if err != nil {
		return Hints{}, fmt.Errorf("read environment of process %d: %w", pid, err)
	}
	defer file.Close()
	h, err := scanEnviron(file)
	if err != nil {
		return h, fmt.Errorf("read environment of process %d: %w", pid, err)
	}
	return h, nil
}

// environ takes an environment byte by byte, and keeps the bytes of listed values only.
type environ struct {
	hints Hints
	name  []byte // of the entry, as far as it is read
	value []byte
	state environState
}

type environState uint8

const (
	inName environState = iota
	inKept
	inSecret
	inOther
)

func scanEnviron(r io.Reader) (Hints, error) {
	buffer := make([]byte, environChunk)
	e := &environ{name: make([]byte, 0, maxName), value: make([]byte, 0, maxValue)}
	defer e.wipe(buffer)
	for read := 0; ; {
		n, err := r.Read(buffer)
		for _, b := range buffer[:n] {
			e.take(b)
		}
		read += n
		if err != nil {
			e.end()
			slices.Sort(e.hints.Present)
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return e.hints, err
		}
		if read >= maxEnviron {
			e.hints.Cut = true // the last entry may be cut too: it is not kept
			slices.Sort(e.hints.Present)
			return e.hints, nil
		}
	}
}

func (e *environ) wipe(buffer []byte) {
	clear(buffer)
	clear(e.name[:cap(e.name)])
	clear(e.value[:cap(e.value)])
}

func (e *environ) take(b byte) {
	switch {
	case b == 0:
		e.end()
	case e.state == inName && b == '=':
		e.state = stateOf(e.name)
	case e.state == inName && len(e.name) == maxName:
		e.state = inOther
	case e.state == inName:
		e.name = append(e.name, b)
	case e.state == inKept && len(e.value) == maxValue:
		e.value = e.value[:0]
		e.state = inSecret // too long to be what its name says: noted, not kept
	case e.state == inKept:
		e.value = append(e.value, b)
	}
}

func stateOf(name []byte) environState {
	if kept[string(name)] != nil {
		return inKept
	}
	if secrets[string(name)] {
		return inSecret
	}
	return inOther
}

// end concludes an entry. A second entry of one name does not count: the first is what getenv finds.
func (e *environ) end() {
	if len(e.name) > 0 && (e.state == inKept || e.state == inSecret) {
		name := string(e.name)
		field := e.field(name)
		switch {
		case e.state == inKept && *field == "" && kept[name].Match(e.value):
			*field = string(e.value)
		case e.state == inSecret || *field == "" && len(e.value) > 0:
			e.note(name)
		}
	}
	clear(e.name[:cap(e.name)])
	clear(e.value[:cap(e.value)])
	e.name, e.value, e.state = e.name[:0], e.value[:0], inName
}

func (e *environ) note(name string) {
	if !slices.Contains(e.hints.Present, name) {
		e.hints.Present = append(e.hints.Present, name)
	}
}

func (e *environ) field(name string) *string {
	switch name {
	case "AWS_ACCESS_KEY_ID":
		return &e.hints.AccessKeyID
	case "AWS_ROLE_ARN":
		return &e.hints.RoleARN
	case "AWS_ROLE_SESSION_NAME":
		return &e.hints.SessionName
	case "AWS_WEB_IDENTITY_TOKEN_FILE":
		return &e.hints.TokenFile
	case "AWS_CONTAINER_CREDENTIALS_FULL_URI":
		return &e.hints.FullURI
	case "AWS_PROFILE":
		return &e.hints.Profile
	}
	return nil
}
