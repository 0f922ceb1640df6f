package main

import (
	"path"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/image"
)

// imageFilters are the keys of images --filter.
var imageFilters = filterSet{keys: map[string]filterCheck{
	"dangling": truth, "reference": pattern, "label": anyText, "before": anyText, "since": anyText, "until": untilText,
}}

// pattern wants what path.Match understands.
func pattern(s string) string {
	if _, err := path.Match(s, ""); err != nil {
		return "a pattern has *, ? and [CLASSES]"
	}
	return ""
}

// matchImage reports whether a filter holds of an image by one of its names.
func matchImage(im image.Image, row imageRow, key, value string, now time.Time) bool {
	switch key {
	case "dangling":
		return isTrue(value) == im.Dangling
	case "reference":
		return matchesReference(row, value)
	case "label":
		return hasLabel(im.Config.Labels, value)
	case "before", "since":
		other, err := time.Parse(time.RFC3339Nano, value) // see resolveImageFilters
		return err == nil && (key == "before" && im.Created.Before(other) || key == "since" && im.Created.After(other))
	case "until":
		until, err := parseTime("until", value, now)
		return err == nil && im.Created.Before(until)
	}
	return false
}

// matchesReference compares a pattern with a name, with and without its tag.
func matchesReference(row imageRow, pattern string) bool {
	for _, s := range []string{row.Repository, row.Repository + ":" + row.Tag} {
		if ok, err := path.Match(pattern, s); ok && err == nil {
			return true
		}
	}
	return false
}

// resolveImageFilters replaces names of images by the time when they were built.
func resolveImageFilters(s *image.Store, f filters) error {
	for _, key := range []string{"before", "since"} {
		for i, ref := range f[key] {
			im, err := s.Resolve(ref)
			if err != nil {
				return err
			}
			f[key][i] = im.Created.Format(time.RFC3339Nano)
		}
	}
	return nil
}
