package manifest_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/image/manifest"
)

const dig = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func desc(mediaType string) string {
	return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":3}`, mediaType, dig)
}

func good() string {
	return `{"schemaVersion":2,"mediaType":"` + manifest.OCIManifest + `","config":` + desc(manifest.OCIConfig) +
		`,"layers":[` + desc(manifest.OCILayerGzip) + `]}`
}

const goodConfig = `{"os":"linux","architecture":"amd64","config":{"Env":["A=b"],"Cmd":["x"],"WorkingDir":"/w"},"rootfs":{"type":"layers","diff_ids":["` + dig + `"]}}`

func TestParse(t *testing.T) {
	m, err := manifest.Parse([]byte(good()))
	if err != nil || len(m.Layers) != 1 || m.Layers[0].Size != 3 {
		t.Fatalf("Parse(good) = %+v, %v", m, err)
	}
	for name, tt := range map[string]struct{ doc, want string }{
		"empty":         {``, "truncated"},
		"not JSON":      {`<html>`, "not JSON"},
		"truncated":     {good()[:60], "truncated"},
		"trailing":      {good() + `{}`, "followed by other text"},
		"list":          {`[]`, "is a JSON array"},
		"both":          {strings.Replace(good(), `"layers"`, `"manifests":[],"layers"`, 1), "also an index"},
		"schema 1":      {`{"schemaVersion":1,"fsLayers":[]}`, "schema 1"},
		"version":       {strings.Replace(good(), `:2,`, `:3,`, 1), "schema version 3"},
		"artifact":      {strings.Replace(good(), manifest.OCIConfig, "application/vnd.oci.empty.v1+json", 1), "not a container image"},
		"unknown layer": {strings.Replace(good(), manifest.OCILayerGzip, "text/plain", 1), "media type text/plain is not a layer"},
		"foreign layer": {strings.Replace(good(), manifest.OCILayerGzip, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", 1), "foreign"},
		"unknown type":  {strings.Replace(good(), manifest.OCIManifest, "application/x-evil", 1), "application/x-evil"},
		"wrong type":    {strings.Replace(good(), `:3}`, `:"3"}`, 1), "want a whole number"},
		"negative":      {strings.Replace(good(), `:3}`, `:-3}`, 1), "size of -3 bytes"},
		"huge":          {strings.Replace(good(), `:3}`, `:99999999999999999999}`, 1), "want a whole number"},
		"digest":        {strings.Replace(good(), dig, "sha256:../../../../etc/passwd", 1), "hexadecimal"},
		"md5":           {strings.Replace(good(), "sha256", "md5", 1), "want sha256"},
		"layers":        {strings.Replace(good(), desc(manifest.OCILayerGzip), strings.Repeat(desc(manifest.OCILayerGzip)+",", 500)+desc(manifest.OCILayerGzip), 1), "501 layers"},
		"many values":   {`{"layers":[{}` + strings.Repeat(",{}", 1<<20) + `]}`, "more than 200000 values"},
		"deep":          {strings.Repeat("[", 100000), "nested deeper"},
		"deep in field": {strings.Replace(good(), `"layers"`, `"x":`+strings.Repeat(`{"a":`, 100)+`1`+strings.Repeat(`}`, 100)+`,"layers"`, 1), "nested deeper"},
		"long":          {strings.Repeat(" ", manifest.MaxManifestBytes) + good(), "longer than"},
	} {
		_, err := manifest.Parse([]byte(tt.doc))
		if !errors.Is(err, manifest.ErrInvalid) || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got error %v, want ErrInvalid with %q", name, err, tt.want)
		}
	}
}

func TestParseConfig(t *testing.T) {
	c, err := manifest.ParseConfig([]byte(goodConfig))
	if err != nil || c.Config.WorkingDir != "/w" {
		t.Fatalf("ParseConfig(good) = %+v, %v", c, err)
	}
	for name, tt := range map[string]struct{ old, new, want string }{
		"env type":   {`["A=b"]`, `"A=b"`, "config.Env is a JSON string, want a list"},
		"env number": {`["A=b"]`, `[1]`, "config.Env is a JSON number, want a string"},
		"env name":   {`A=b`, `=b`, "not NAME=value"},
		"env no =":   {`A=b`, `A`, "not NAME=value"},
		"env NUL":    {`A=b`, `A=\u0000`, "zero byte"},
		"cmd type":   {`["x"]`, `{"x":1}`, "config.Cmd is a JSON object"},
		"cwd":        {`"/w"`, `"../w"`, "not absolute"},
		"os":         {`"linux"`, `""`, "names no operating system"},
		"rootfs":     {`"layers"`, `"zip"`, "rootfs type zip"},
		"diff id":    {dig, "sha256:0", "hexadecimal"},
		"created":    {`"os"`, `"created":"yesterday","os"`, "config"},
	} {
		_, err := manifest.ParseConfig([]byte(strings.Replace(goodConfig, tt.old, tt.new, 1)))
		if !errors.Is(err, manifest.ErrInvalid) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got error %v, want ErrInvalid with %q", name, err, tt.want)
		}
	}
	for _, cfg := range []manifest.RunConfig{{Volumes: map[string]struct{}{"x": {}}}, {ExposedPorts: map[string]struct{}{"80/http": {}}}} {
		if err := cfg.Check(); !errors.Is(err, manifest.ErrInvalid) {
			t.Errorf("Check(%+v) = %v, want ErrInvalid", cfg, err)
		}
	}
}

func TestSelect(t *testing.T) {
	entry := func(platform string) manifest.Descriptor {
		d := manifest.Descriptor{MediaType: manifest.OCIManifest, Digest: dig, Annotations: map[string]string{"p": platform}}
		if platform != "" {
			p := manifest.Platform{}
			parts := strings.Split(platform, "/")
			p.OS, p.Architecture = parts[0], parts[1]
			if len(parts) > 2 {
				p.Variant = parts[2]
			}
			d.Platform = &p
		}
		return d
	}
	all := []string{"linux/amd64", "linux/arm/v5", "linux/arm/v7", "linux/arm64/v8", "unknown/unknown"}
	for _, tt := range []struct {
		want   string
		have   []string
		expect string // "" for an error
	}{
		{"linux/amd64", all, "linux/amd64"},
		{"x86_64", all, "linux/amd64"},
		{"linux/arm64", all, "linux/arm64/v8"},
		{"linux/arm/v6", all, "linux/arm/v5"},
		{"linux/arm", all, "linux/arm/v7"},
		{"linux/s390x", all, ""},
		{"windows/amd64", all, ""},
	} {
		var x manifest.Index
		for _, h := range tt.have {
			x.Manifests = append(x.Manifests, entry(h))
		}
		p, err := manifest.ParsePlatform(tt.want)
		if err != nil {
			t.Fatal(err)
		}
		d, err := x.Select(p)
		if got := d.Annotations["p"]; got != tt.expect || (err == nil) != (tt.expect != "") {
			t.Errorf("Select(%s) = %q, %v; want %q", tt.want, got, err, tt.expect)
		}
	}
	for _, bad := range []string{"", "/", "a/b/c/d", "linux/", "LINUX/x"} {
		if p, err := manifest.ParsePlatform(bad); err == nil {
			t.Errorf("ParsePlatform(%q) = %v, want an error", bad, p)
		}
	}
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(good()))
	f.Add([]byte(`{"schemaVersion":2,"manifests":[` + desc(manifest.OCIManifest) + `]}`))
	f.Add([]byte(`{"mediaType":1}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if m, err := manifest.Parse(raw); err == nil {
			for _, l := range append(m.Layers, m.Config) {
				if manifest.CheckDigest(l.Digest) != nil || l.Size < 0 {
					t.Errorf("accepted a bad descriptor %+v", l)
				}
			}
		} else if !errors.Is(err, manifest.ErrInvalid) {
			t.Errorf("error %v is not ErrInvalid", err)
		}
		if x, err := manifest.ParseIndex(raw); err == nil {
			x.Select(manifest.Host())
		}
	})
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte(goodConfig))
	f.Add([]byte(`{"config":{"Volumes":{"/a":{}}},"rootfs":null}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := manifest.ParseConfig(raw)
		if err != nil {
			return
		}
		again, err := json.Marshal(c)
		if err != nil {
			t.Fatalf("a config that was read cannot be written: %v", err)
		}
		if _, err := manifest.ParseConfig(again); err != nil {
			t.Errorf("a config that was written cannot be read: %v", err)
		}
	})
}
