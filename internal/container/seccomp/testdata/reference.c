/*
 * Builds filters with libseccomp, the reference for the differential test.
 * Reads jobs from standard input, a command a line:
 *
 *   default ACTION          starts a job
 *   arch NAME               as seccomp_arch_resolve_name(3) has it
 *   optimize LEVEL          SCMP_FLTATR_CTL_OPTIMIZE
 *   rule ACTION SYSCALL N (INDEX OP A B)*N
 *   end                     prints the result
 *
 * and prints for each job "unknown SYSCALL" for names that libseccomp does not
 * know, "missing ARCH SYSCALL" for names that it knows, but not on that
 * architecture, then "fail STEP ERRNO" or "bpf HEX".
 */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void print_bpf(scmp_filter_ctx ctx)
{
	int fd = memfd_create("bpf", 0);
	unsigned char b[4096];
	ssize_t n;

	if (fd < 0 || seccomp_export_bpf(ctx, fd) < 0 || lseek(fd, 0, SEEK_SET) < 0) {
		printf("fail export %d\n", errno);
		return;
	}
	printf("bpf ");
	while ((n = read(fd, b, sizeof b)) > 0)
		for (ssize_t i = 0; i < n; i++)
			printf("%02x", b[i]);
	printf("\n");
	close(fd);
}

int main(void)
{
	char line[4096], word[256];
	scmp_filter_ctx ctx = NULL;
	uint32_t def = 0, action, arches[32];
	char names[32][32];
	int failed = 0, narch = 0;

	while (fgets(line, sizeof line, stdin)) {
		unsigned level;
		int skip, rc = 0, n = 0;
		if (sscanf(line, "default %" SCNu32, &def) == 1) {
			ctx = seccomp_init(def);
			narch = 0;
			failed = ctx == NULL;
			if (failed)
				printf("fail init 0\n");
		} else if (sscanf(line, "optimize %u", &level) == 1) {
			if (!failed)
				seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, level);
		} else if (sscanf(line, "arch %255s", word) == 1) {
			uint32_t arch = seccomp_arch_resolve_name(word);
			if (narch < 32) {
				arches[narch] = arch;
				snprintf(names[narch++], sizeof names[0], "%.31s", word);
			}
			if (!failed && arch != seccomp_arch_native() && (rc = seccomp_arch_add(ctx, arch)) < 0 && rc != -EEXIST) {
				printf("fail arch %d\n", -rc);
				failed = 1;
			}
		} else if (sscanf(line, "rule %" SCNu32 " %255s %d%n", &action, word, &n, &skip) == 3) {
			struct scmp_arg_cmp args[6];
			char *p = line + skip;
			int nr = seccomp_syscall_resolve_name(word);
			if (nr == __NR_SCMP_ERROR) {
				printf("unknown %s\n", word);
				continue;
			}
			for (int i = 0; i < narch; i++) {
				int there = seccomp_syscall_resolve_name_arch(arches[i], word);
				/* -1xx and -2xx stand for calls that are also multiplexed */
				if (there < 0 && !(there <= -100 && there >= -224))
					printf("missing %s %s\n", names[i], word);
			}
			for (int i = 0; i < n; i++) {
				args[i].arg = strtoul(p, &p, 10);
				args[i].op = strtoul(p, &p, 10);
				args[i].datum_a = strtoull(p, &p, 10);
				args[i].datum_b = strtoull(p, &p, 10);
			}
			if (!failed && (rc = seccomp_rule_add_array(ctx, action, nr, n, args)) < 0) {
				printf("fail rule %d\n", -rc);
				failed = 1;
			}
		} else if (strncmp(line, "end", 3) == 0) {
			if (!failed)
				print_bpf(ctx);
			if (ctx)
				seccomp_release(ctx);
			ctx = NULL;
			fflush(stdout);
		}
	}
	return 0;
}
