// Pause holds a pod's namespaces open: it waits for the signal to end.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM, syscall.SIGINT)
	// Where a pod shares its process namespace, the orphans of its containers come to us.
	signal.Ignore(syscall.SIGCHLD)
	<-ended
}
