// Command mute stands where bulkhead-dns stands, and never says that it answers.
package main

import "time"

func main() {
	for {
		time.Sleep(time.Hour)
	}
}
