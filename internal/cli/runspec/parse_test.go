package runspec

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

func TestParseSize(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want int64
		err  string
	}{
		{"0", 0, ""}, {"512", 512, ""}, {"1b", 1, ""}, {"1k", 1 << 10, ""}, {"1KB", 1 << 10, ""}, {"1kib", 1 << 10, ""},
		{"512m", 512 << 20, ""}, {"1.5g", 3 << 29, ""}, {"2GiB", 2 << 30, ""}, {"1t", 1 << 40, ""}, {"1p", 1 << 50, ""},
		{".5k", 512, ""}, {"9223372036854775807", math.MaxInt64, ""},
		{"", 0, "not a size"}, {"m", 0, "not a size"}, {"-1", 0, "negative"}, {"-5m", 0, "negative"}, {"1x", 0, "not a size"},
		{"1bb", 0, "not a size"}, {"1 m", 0, "not a size"}, {"1e3", 0, "not a size"}, {"1.2.3m", 0, "not a size"}, {".", 0, "not a size"},
		{"0x10", 0, "not a size"}, {"9223372036854775808", 0, "larger"}, {"9999999p", 0, "larger"}, {"1mm", 0, "not a size"},
		{"١m", 0, "not a size"}, {"NaN", 0, "not a size"}, {"inf", 0, "not a size"}, {"1m\n", 0, "not a size"},
	} {
		got, err := ParseSize("--memory", tt.in)
		if tt.err == "" && (err != nil || got != tt.want) || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("ParseSize(%q) = %d, %v; want %d, %q", tt.in, got, err, tt.want, tt.err)
		}
	}
}

func FuzzParseSize(f *testing.F) {
	f.Add("1.5g")
	f.Add("-1")
	f.Add("99999999999999999999p")
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := ParseSize("--memory", s); err == nil && n < 0 {
			t.Errorf("ParseSize(%q) = %d", s, n)
		}
	})
}

func TestParseEnvFile(t *testing.T) {
	host := testHost()
	host.LookupEnv = func(name string) (string, bool) { return map[bool]string{true: "mine"}[name == "HAVE"], name == "HAVE" }
	for _, tt := range []struct {
		name, text string
		want       []assignment
		err        string
	}{
		{"usual", "A=1\n# no\n\n  B=x y \nC=\n", []assignment{{name: "A", value: "1"}, {name: "B", value: "x y "}, {name: "C"}}, ""},
		{"no newline at the end", "A=1", []assignment{{name: "A", value: "1"}}, ""},
		{"windows", "\xef\xbb\xbfA=1\r\nB=2\r\n", []assignment{{name: "A", value: "1"}, {name: "B", value: "2"}}, ""},
		{"literal quotes and equals", `A="b=c"`, []assignment{{name: "A", value: `"b=c"`}}, ""},
		{"inherited", "HAVE\nHAVENOT\n", []assignment{{name: "HAVE", value: "mine"}}, ""},
		{"empty", "", nil, ""},
		{"no name", "=x\n", nil, `line 1 "=x": the name is missing`},
		{"blank in name", "A=1\nB C=2\n", nil, "line 2"},
		{"export", "export A=1\n", nil, "blank"},
		{"not text", "A=\xff\xfe\n", nil, "UTF-8"},
		{"zero", "A=\x00\n", nil, "zero byte"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseEnvFile(host, "f", []byte(tt.text))
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want %q", err, tt.err)
				}
				return
			}
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(assignment{})); err != nil || diff != "" {
				t.Errorf("%v (-want +got)\n%s", err, diff)
			}
		})
	}
}

func FuzzParseEnvFile(f *testing.F) {
	f.Add([]byte("A=1\n# x\nB\n"))
	f.Add([]byte("\xef\xbb\xbf=\r\n\x00"))
	f.Fuzz(func(t *testing.T, text []byte) {
		as, err := parseEnvFile(testHost(), "f", text)
		for _, a := range as {
			if err == nil && (a.name == "" || strings.ContainsAny(a.name, "=\x00\n") || strings.ContainsAny(a.value, "\x00\n")) {
				t.Errorf("accepted %+v", a)
			}
		}
	})
}

func TestMergeEnv(t *testing.T) {
	got := mergeEnv([]string{"A=1", "B=2", "C=3"}, []assignment{
		{name: "B", unset: true}, {name: "D", value: "4"}, {name: "A", value: "9"}, {name: "C", unset: true}, {name: "C", value: "7"}, {name: "E", unset: true},
	})
	if diff := cmp.Diff([]string{"A=9", "C=7", "D=4"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestCheckName(t *testing.T) {
	for _, name := range []string{"ab", "a1", "Web_1.x-y", "0a", strings.Repeat("a", 63)} {
		if err := CheckName(name); err != nil {
			t.Errorf("CheckName(%q) = %v", name, err)
		}
	}
	for _, name := range []string{"", "a", "-a", ".a", "_a", "a b", "a/b", "a\n", "ä1", "a\x1b", "..", strings.Repeat("a", 64)} {
		if CheckName(name) == nil {
			t.Errorf("CheckName(%q) accepts it", name)
		}
	}
}

func TestCheckUser(t *testing.T) {
	for _, s := range []string{"root", "1000", "1000:1000", "www-data:www", "0:0", "a.b", "müller", "2147483647"} {
		if err := CheckUser("--user", s); err != nil {
			t.Errorf("CheckUser(%q) = %v", s, err)
		}
	}
	for _, s := range []string{"", ":", "a:", ":b", "a:b:c", "a b", "a\n", "../x", "-1", "2147483648", "1:4294967295", "99999999999999999999", "a\x1b", "a\u0085"} {
		if CheckUser("--user", s) == nil {
			t.Errorf("CheckUser(%q) accepts it", s)
		}
	}
}

func FuzzCheckUser(f *testing.F) {
	f.Add("root:wheel")
	f.Fuzz(func(t *testing.T, s string) {
		if CheckUser("--user", s) == nil && (s == "" || strings.ContainsAny(s, "\x00\n/ ") || strings.Count(s, ":") > 1) {
			t.Errorf("accepted %q", s)
		}
	})
}

func TestParseLabel(t *testing.T) {
	for _, tt := range []struct{ in, key, value string }{
		{"a=b", "a", "b"}, {"a", "a", ""}, {"a=", "a", ""}, {"a=b=c", "a", "b=c"}, {"com.example.x=1\n2", "com.example.x", "1\n2"},
	} {
		if k, v, err := parseLabel(tt.in); k != tt.key || v != tt.value || err != nil {
			t.Errorf("parseLabel(%q) = %q, %q, %v", tt.in, k, v, err)
		}
	}
	for _, s := range []string{"", "=x", " a=b", "a =b", "a=\x00"} {
		if _, _, err := parseLabel(s); err == nil {
			t.Errorf("parseLabel(%q) accepts it", s)
		}
	}
}

func FuzzParseLabel(f *testing.F) {
	f.Add("a=b")
	f.Fuzz(func(t *testing.T, s string) {
		if k, v, err := parseLabel(s); err == nil && (k == "" || strings.ContainsAny(k+v, "\x00")) {
			t.Errorf("accepted %q", s)
		}
	})
}

func TestParseDevice(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want workload.Device
		err  string
	}{
		{in: "/dev/fuse", want: workload.Device{Source: "/dev/fuse", Target: "/dev/fuse", Permissions: "rwm"}},
		{in: "/dev/fuse:r", want: workload.Device{Source: "/dev/fuse", Target: "/dev/fuse", Permissions: "r"}},
		{in: "/dev/fuse:/dev/x", want: workload.Device{Source: "/dev/fuse", Target: "/dev/x", Permissions: "rwm"}},
		{in: "/dev/fuse:/dev/x:rw", want: workload.Device{Source: "/dev/fuse", Target: "/dev/x", Permissions: "rw"}},
		{in: "", err: "absolute"}, {in: "fuse", err: "absolute"}, {in: "/dev/fuse:", err: "permissions"}, {in: "/dev/fuse:x", err: "permissions"},
		{in: "/dev/fuse:/dev/x:", err: "permissions"}, {in: "/dev/fuse:/dev/x:rwmr", err: "permissions"}, {in: "/dev/fuse:dev/x:r", err: "absolute"},
		{in: "/dev/a:/b:r:w", err: "colons"}, {in: "/missing", err: "no such file"}, {in: "/a", err: "not a device"},
	} {
		t.Run(tt.in, func(t *testing.T) {
			got, err := parseDevice(testHost(), tt.in)
			checkParse(t, got, err, tt.want, tt.err)
		})
	}
}

func TestParseUlimits(t *testing.T) {
	got, err := parseUlimits([]string{"nofile=1024:4096", "core=0", "nofile=10", "stack=-1", "cpu=1:unlimited"})
	want := []workload.Rlimit{
		{Type: "RLIMIT_CORE"}, {Type: "RLIMIT_NOFILE", Soft: 10, Hard: 10},
		{Type: "RLIMIT_STACK", Soft: math.MaxUint64, Hard: math.MaxUint64}, {Type: "RLIMIT_CPU", Soft: 1, Hard: math.MaxUint64},
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	for _, s := range []string{"", "nofile", "nofile=", "nofile=x", "nofile=2:1", "nofile=-2", "foo=1", "nofile=1:2:3", "NOFILE=1", "nofile=99999999999999999999"} {
		if _, err := parseUlimits([]string{s}); err == nil {
			t.Errorf("parseUlimits(%q) accepts it", s)
		}
	}
}

func TestParseCaps(t *testing.T) {
	got, err := parseCaps("--cap-add", []string{"net_raw", "CAP_SYS_ADMIN", "all", "NET_RAW"})
	if diff := cmp.Diff([]string{"CAP_NET_RAW", "CAP_SYS_ADMIN", "ALL"}, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	for _, s := range []string{"", "CAP_", "CAP_ALLX", "root", "NET RAW", "CAP_CAP_KILL"} {
		if _, err := parseCaps("--cap-add", []string{s}); err == nil {
			t.Errorf("parseCaps(%q) accepts it", s)
		}
	}
	if len(capabilities) != 41 {
		t.Errorf("%d capabilities, Linux 6.1 has 41", len(capabilities))
	}
}

func TestCheckHostname(t *testing.T) {
	for _, s := range []string{"a", "web-1", "a.b.example", "A1", "under_score", strings.Repeat("a", 63)} {
		if err := checkHostname(s); err != nil {
			t.Errorf("checkHostname(%q) = %v", s, err)
		}
	}
	for _, s := range []string{"", ".", "a.", ".a", "-a", "a-", "a b", "a/b", "a\n", "ä", "a..b", strings.Repeat("a", 64), strings.Repeat("a.", 32) + "a"} {
		if checkHostname(s) == nil {
			t.Errorf("checkHostname(%q) accepts it", s)
		}
	}
}

func TestLaterFlagsAreNotFlags(t *testing.T) {
	fs := testFlags(&Options{})
	for name := range laterFlags {
		if fs.Lookup(name) != nil || len(name) == 1 && fs.ShorthandLookup(name) != nil {
			t.Errorf("--%s exists", name)
		}
	}
	if LaterFlag("nonsense") != "" {
		t.Error("advice on nonsense")
	}
}
