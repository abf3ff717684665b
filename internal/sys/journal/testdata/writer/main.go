// Command writer appends to a journal until it is killed, and prints the index of each entry that was acknowledged.
package main

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"os"

	"tourniquet.dev/tourniquet/internal/sys/journal"
)

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(dir string) error {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize))
	j, err := journal.Open(journal.Options{Dir: dir, Name: "tourniquet/test", Key: key})
	if err != nil {
		return err
	}
	for n := j.View().Size(); ; n++ {
		at, err := j.Append("intent", map[string]int64{"n": n})
		if err != nil {
			return err
		}
		fmt.Println(at)
	}
}
