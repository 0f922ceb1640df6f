package audit

// Detect tells whose words a text is in. It looks at the first element of a list.
func Detect(b []byte) (Kind, error) {
	v, err := parseJSON(b)
	if err != nil {
		return "", err
	}
	if list, ok := v.([]any); ok {
		if len(list) == 0 {
			return "", malformed("an empty list: there is nothing to look at")
		}
		v = list[0]
	}
	n := node{value: v, f: &fault{}}
	switch {
	case n.has("ociVersion"):
		return OCI, nil
	case n.has("Spec") && n.has("Boundary"):
		return Bulkhead, nil
	case n.has("HostConfig") && (n.has("BoundingCaps") || n.has("OCIRuntime") || n.has("ImageName")):
		return Podman, nil
	case n.has("HostConfig"):
		return Docker, nil
	}
	return "", malformed("neither what `bulkhead inspect`, `docker inspect` or `podman inspect` print of workloads, nor a config.json of the OCI runtime specification")
}

// Parse reads a text of one kind. Engine is that of Docker's and Podman's
// containers, nil if nobody asked it.
func Parse(kind Kind, b []byte, engine *Engine) ([]*Config, error) {
	switch kind {
	case Bulkhead:
		return ParseWorkload(b)
	case Docker:
		return ParseDocker(b, engine)
	case Podman:
		return ParsePodman(b, engine)
	}
	c, err := ParseOCI(b)
	if err != nil {
		return nil, err
	}
	return []*Config{c}, nil
}
