#!/bin/sh
# Prints what docs/docker.md is compared with: the help of every command of the
# docker client on PATH, each after a line "### docker COMMAND".
#
#	sh capture.sh >help.txt
set -eu
export DOCKER_CONFIG=/nonexistent COLUMNS=80 HOME=/nonexistent
docker --version | sed 's/^/# /'
show() {
	echo "### $*"
	"$@" --help 2>&1
	# Commands below this one, but for those that plugins bring.
	"$@" --help 2>&1 | awk '
		/^(Management |Common |Swarm )?Commands:/ { on = 1; next }
		/^[A-Z]/ { on = 0 }
		on && /^  [a-z]/ && $1 !~ /\*$/ { print $1 }' | while read -r sub; do
		show "$@" "$sub"
	done
}
show docker
