package at

func setLinks(st *Stat, n uint32) { st.Nlink = uint64(n) }
