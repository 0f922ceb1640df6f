package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/meter"
)

var trafficAbout = fmt.Sprintf("One TCP stream of %v, in MB/s of what arrived, then %v of requests of 64 bytes over one connection, each sent when "+
	"the answer to the last one is there. Medians of the rounds; the round trip is given as the rounds' median and 99th percentile, "+
	"each the median of the rounds. Client and server share the machine's processors.", streaming, talking)

// sample is what one round of a case finds out that is more than a time.
type sample struct {
	rate     float64       // bytes a second
	p50, p99 time.Duration // of round trips
	cpu      time.Duration // processor time of one probe
}

// parseTraffic reads what bulkhead-meter call prints.
func parseTraffic(out string) (sample, error) {
	t, err := meter.DecodeTraffic([]byte(out))
	if err != nil {
		return sample{}, fmt.Errorf("bulkhead-meter says %q: %w", lastLine([]byte(out)), err)
	}
	duration := func(seconds float64) time.Duration { return time.Duration(seconds * float64(time.Second)) }
	return sample{rate: t.Rate, p50: duration(t.P50), p99: duration(t.P99)}, nil
}

// of takes one figure of each sample.
func of[T any](samples []sample, figure func(sample) T) (all []T) {
	for _, s := range samples {
		all = append(all, figure(s))
	}
	return all
}

func rates(s []sample) []float64 { return of(s, func(s sample) float64 { return s.rate }) }

// trafficTable writes throughput and round trips. Ratios are of throughput, against
// the first contender.
func trafficTable(b *strings.Builder, results []result) {
	fmt.Fprintln(b, "| | MB/s | least | most | × first | round trip µs | p99 | rounds | |")
	fmt.Fprintln(b, "|---|---:|---:|---:|---:|---:|---:|---:|---|")
	mb := func(bytes float64) string { return fmt.Sprintf("%.0f", bytes/1e6) }
	us := func(d time.Duration) string { return fmt.Sprintf("%.0f", float64(d)/1e3) }
	var reference float64
	for i, r := range results {
		if r.err != nil {
			fmt.Fprintf(b, "| %s | – | – | – | – | – | – | – | left out: %s |\n", r.label, cell(r.err.Error()))
			continue
		}
		if len(r.samples) == 0 {
			continue
		}
		all := rates(r.samples)
		if i == 0 {
			reference = median(all)
		}
		ratio := "–"
		if reference > 0 {
			ratio = fmt.Sprintf("%.2f", median(all)/reference)
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s | %s | %d | %s |\n", r.label, mb(median(all)), mb(quantile(all, 0)), mb(quantile(all, 1)), ratio,
			us(median(of(r.samples, func(s sample) time.Duration { return s.p50 }))),
			us(median(of(r.samples, func(s sample) time.Duration { return s.p99 }))), len(all), r.note)
	}
}

// meterArchive writes the image that holds the program above the root file system
// of all cases.
func meterArchive(path, rootfs, program string) error {
	base, err := tarTree(rootfs)
	if err != nil {
		return err
	}
	content, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	h := &tar.Header{
		Name: strings.TrimPrefix(meterProgram, "/"), Mode: 0o755, Size: int64(len(content)),
		ModTime: time.Unix(1_700_000_000, 0), Format: tar.FormatPAX,
	}
	if err := errors.Join(w.WriteHeader(h), second(w.Write(content)), w.Close()); err != nil {
		return err
	}
	return writeArchive(path, meterImage, [][]byte{base, b.Bytes()})
}
