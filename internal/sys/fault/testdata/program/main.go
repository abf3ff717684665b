// Command program comes to one fault point three times.
package main

import (
	"fmt"

	"tourniquet.dev/tourniquet/internal/sys/fault"
)

func main() {
	for i := range 3 {
		fmt.Println(i)
		fault.Point("spool.append/after")
	}
	fmt.Println("done")
}
