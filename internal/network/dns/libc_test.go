package dns_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// asker is getaddrinfo(3) of the C library that it is compiled with.
const asker = `
#include <netdb.h>
#include <stdio.h>
#include <arpa/inet.h>
int main(int argc, char **argv) {
	struct addrinfo hint = {.ai_socktype = SOCK_STREAM}, *r;
	int e = getaddrinfo(argv[1], 0, &hint, &r);
	if (e) { printf("error %s\n", gai_strerror(e)); return 1; }
	for (; r; r = r->ai_next) {
		char b[64];
		void *a = r->ai_family == AF_INET ? (void *)&((struct sockaddr_in *)r->ai_addr)->sin_addr : (void *)&((struct sockaddr_in6 *)r->ai_addr)->sin6_addr;
		puts(inet_ntop(r->ai_family, a, b, sizeof b));
	}
	return 0;
}
`

// TestCLibraries asks as programs do: by C libraries, which find the name server
// in /etc/resolv.conf, and by tools.
func TestCLibraries(t *testing.T) {
	for _, tool := range []string{"dig", "musl-gcc", "busybox", "getent"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("needs other programs that ask: ", err)
		}
	}
	p := populated(t)
	const me = "10.77.255.254" // whence a packet comes if nobody says so
	p.lease(me, "me", "me")
	newFake(t, first)
	p.start(ports(first)...)
	dir := t.TempDir()
	resolv := filepath.Join(dir, "resolv.conf")
	if err := os.WriteFile(resolv, []byte("nameserver 10.77.0.1\nsearch corp.example\noptions ndots:0\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	musl := filepath.Join(dir, "musl")
	if err := os.WriteFile(musl+".c", []byte(asker), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("musl-gcc", "-static", "-o", musl, musl+".c").CombinedOutput(); err != nil {
		t.Fatalf("compile with musl: %v: %s", err, out)
	}
	for _, c := range []struct {
		command string
		want    string // a line of the output
		status  int
	}{
		{"getent ahostsv4 web", web4, 0},
		{"getent ahostsv6 web", web6, 0},
		{"getent ahostsv4 WEB.lab.", web4, 0},
		{"getent ahostsv4 www.shop.example", web4, 0},
		{"getent ahostsv4 fine.example", "192.0.2.1", 0},
		{"getent hosts " + db4, "db.lab", 0},
		{"getent ahosts nobody.lab", "", 2},
		{musl + " web", web6, 0},
		{musl + " web2", web2, 0}, // which has no IPv6 address
		{musl + " web2.lab", web2, 0},
		{musl + " fine.example", "192.0.2.1", 0},
		{musl + " big.example", "192.0.0.7", 0}, // over TCP, or as much as there is
		{musl + " nobody", "error", 1},
		{musl + " nobody.lab", "error", 1},
		{"busybox nslookup web.", web4, 0},
		{"busybox nslookup web.", web6, 0}, // without the dot it looks at the search list first, whatever ndots is
		{"busybox nslookup nobody.lab", "NXDOMAIN", 1},
		{"busybox nslookup " + web4, "web.lab", 0},
		{"dig +short web", web4, 0},
		{"dig +tcp +short web AAAA", web6, 0},
		{"dig +short -x " + web6, "web.lab.", 0},
		{"dig big.example", "ANSWER: 300,", 0},
		{"dig +dnssec +short fine.example", "192.0.2.1", 0},
		{"dig nobody", "NXDOMAIN", 0},
		{"dig web MX", "NOERROR", 0},
	} {
		var out []byte
		var err error
		p.inside(func() {
			out, err = exec.Command("unshare", "-m", "sh", "-c", fmt.Sprintf("mount --bind %s /etc/resolv.conf && exec %s", resolv, c.command)).CombinedOutput()
		})
		status := 0
		if exit, ok := err.(*exec.ExitError); ok {
			status = exit.ExitCode()
		} else if err != nil {
			t.Fatal(err)
		}
		if status != c.status || !strings.Contains(string(out), c.want) {
			t.Errorf("%s: status %d, want %d with %q in\n%s", c.command, status, c.status, c.want, out)
		}
	}
}
