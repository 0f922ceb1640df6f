package cgroup

// OOMKilled reports whether the kernel killed any process of the cgroup for
// lack of memory.
func (m *Manager) OOMKilled() (bool, error) {
	n, err := m.OOMKills()
	return n > 0, err
}

// OOMKills counts processes of the cgroup and its children that the kernel
// killed for lack of memory. It is zero where memory is not accounted.
func (m *Manager) OOMKills() (uint64, error) {
	if dir := m.dirOn("memory"); dir != "" {
		// v1 counts a kill only where the victim was.
		var sum uint64
		err := walk(dir, func(at int, dir string) error {
			n, err := readKeyedAt(at, dir, "memory.oom_control", "oom_kill")
			sum += n
			return err
		})
		return sum, err
	}
	if m.v2 == "" {
		return 0, nil
	}
	return readKeyed(m.v2, "memory.events", "oom_kill")
}
