// Package turns is the other end of benches/src/peer.rs: it lets a peer take its turns.
package turns

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// Name is whom all certificates are for, as in benches/src/material.rs.
const Name = "spiffe://cluster.local/ns/shop/sa/cart"

// Lifetime is that of all certificates, as in benches/src/issuance.rs.
const Lifetime = 24 * time.Hour

// Material is what a CA works on, as PEM.
type Material struct {
	Key, Certificate, Request []byte
}

// Work issues one certificate.
type Work func() error

// Serve answers each line "<CA key> <CSR key> <count>" with "<nanoseconds> <of the processor> <allocations> <bytes>",
// until there are no more. The material lies in the folder that is the only argument.
func Serve(description string, prepare func(Material) (Work, error)) {
	if err := serve(description, prepare); err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
}

func serve(description string, prepare func(Material) (Work, error)) error {
	if len(os.Args) != 2 {
		return fmt.Errorf("usage: %s <folder>", os.Args[0])
	}
	fmt.Printf("%s, %s\n", description, runtime.Version())
	prepared := map[string]Work{}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var ca, csr string
		var count int
		if _, err := fmt.Sscanf(lines.Text(), "%s %s %d", &ca, &csr, &count); err != nil {
			return fmt.Errorf("%q: %w", lines.Text(), err)
		}
		work, known := prepared[ca+" "+csr]
		if !known {
			material, err := read(os.Args[1], ca, csr)
			if err != nil {
				return err
			}
			if work, err = prepare(material); err != nil {
				return err
			}
			prepared[ca+" "+csr] = work
		}
		if err := turn(work, count); err != nil {
			return err
		}
	}
	return lines.Err()
}

// The first one is not counted: it finds the caches as others left them.
func turn(work Work, count int) error {
	if err := work(); err != nil {
		return err
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	begin, processorBegin := time.Now(), processorTime()
	for range count {
		if err := work(); err != nil {
			return err
		}
	}
	took, processor := time.Since(begin), processorTime()-processorBegin
	runtime.ReadMemStats(&after)
	fmt.Println(took.Nanoseconds(), processor.Nanoseconds(), after.Mallocs-before.Mallocs, after.TotalAlloc-before.TotalAlloc)
	return nil
}

// Of all threads: the garbage collector's is part of the work.
func processorTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func read(folder, ca, csr string) (material Material, err error) {
	if material.Key, err = os.ReadFile(filepath.Join(folder, ca+".key")); err != nil {
		return material, err
	}
	if material.Certificate, err = os.ReadFile(filepath.Join(folder, ca+".crt")); err != nil {
		return material, err
	}
	material.Request, err = os.ReadFile(filepath.Join(folder, csr+".csr"))
	return material, err
}
