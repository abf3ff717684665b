package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"tourniquet.dev/tourniquet/internal/authz"
)

// readEnvelope reads a signed envelope. It checks no signature.
func readEnvelope(path string) (authz.Envelope, error) {
	data, err := readFile(path, authz.MaxEnvelope)
	if err != nil {
		return authz.Envelope{}, err
	}
	e, err := authz.DecodeEnvelope(data)
	if err != nil {
		return e, usage(fmt.Errorf("%s: %w", path, err), "want a signed envelope in JSON")
	}
	return e, nil
}

// readFile reads a file of at most limit bytes.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path) // #nosec G304 -- named by the operator
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if int64(len(data)) > limit {
		return nil, usage(fmt.Errorf("%s: longer than %d bytes", path, limit), "")
	}
	return data, nil
}

// writeEnvelope writes a signed envelope in its canonical form. replace says whether an older one may be there.
func (a *app) writeEnvelope(path string, e authz.Envelope, replace bool) error {
	data, err := e.Encode()
	if err != nil {
		return err
	}
	return writeFile(path, data, 0o644, replace)
}

// writeFile writes a file so that it is whole or not there at all.
func writeFile(path string, data []byte, mode os.FileMode, replace bool) error {
	if _, err := os.Lstat(path); err == nil && !replace {
		return usage(fmt.Errorf("%s is there already", path), "give another name with -o, or move it away")
	}
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode) // #nosec G304 -- named by the operator
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(path+".new"))
	}
	return nil
}
