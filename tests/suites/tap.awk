# Turns TAP into lines of name, result, reason. The variable file is put in
# front of every name. Tests of the plan that never reported are failures.
BEGIN { OFS = "\t" }
/^1\.\.[0-9]+/ { plan = substr($0, 4) + 0 }
/^(not )?ok [0-9]+/ {
	result = /^not / ? "fail" : "pass"
	name = $0
	sub(/^(not )?ok [0-9]+ *(- )?/, "", name)
	reason = ""
	if (match(name, / *# ([Ss][Kk][Ii][Pp]|[Tt][Oo][Dd][Oo])/)) {
		reason = substr(name, RSTART + RLENGTH)
		name = substr(name, 1, RSTART - 1)
		gsub(/^[ :(]+|\)?[ \t]*$/, "", reason)
		result = "skip"
	}
	gsub(/\t/, " ", name)
	gsub(/\t/, " ", reason)
	print file "/" name, result, reason
	seen++
}
END {
	for (i = seen + 1; i <= plan; i++)
		print file "/test " i, "fail", "did not finish"
}
