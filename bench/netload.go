package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

var loadAbout = fmt.Sprintf("One TCP stream of %v, in MB/s of what arrived, then %v of requests of 64 bytes over one connection, each sent when "+
	"the answer to the last one is there. Medians of the rounds; the round trip is given as the rounds' median and 99th percentile, "+
	"each the median of the rounds. Client and server share the machine's processors.", streaming, asking)

// sample is what one round of a case finds out that is more than a time.
type sample struct {
	rate     float64       // bytes a second
	p50, p99 time.Duration // of round trips
	cpu      time.Duration // processor time of one probe
}

// parseLoad reads what load call prints.
func parseLoad(out string) (sample, error) {
	var r struct{ Bytes, Nanoseconds, Trips, P50, P99 int64 }
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		return sample{}, fmt.Errorf("what load says: %w", err)
	}
	if r.Bytes <= 0 || r.Nanoseconds <= 0 || r.Trips <= 0 || r.P50 <= 0 || r.P99 < r.P50 {
		return sample{}, fmt.Errorf("load says %q", lastLine([]byte(out)))
	}
	return sample{
		rate: float64(r.Bytes) / time.Duration(r.Nanoseconds).Seconds(),
		p50:  time.Duration(r.P50), p99: time.Duration(r.P99),
	}, nil
}

// of takes one figure of each sample.
func of[T any](samples []sample, figure func(sample) T) (all []T) {
	for _, s := range samples {
		all = append(all, figure(s))
	}
	return all
}

func rates(s []sample) []float64 { return of(s, func(s sample) float64 { return s.rate }) }

// loadTable writes throughput and round trips. Ratios are of throughput, against
// the first contender.
func loadTable(b *strings.Builder, results []result) {
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

// loadArchive writes the image that holds the program above the root file system
// of all cases.
func loadArchive(path, rootfs, program string) error {
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
		Name: strings.TrimPrefix(loadProgram, "/"), Mode: 0o755, Size: int64(len(content)),
		ModTime: time.Unix(1_700_000_000, 0), Format: tar.FormatPAX,
	}
	if err := errors.Join(w.WriteHeader(h), second(w.Write(content)), w.Close()); err != nil {
		return err
	}
	return writeArchive(path, loadImage, [][]byte{base, b.Bytes()})
}
