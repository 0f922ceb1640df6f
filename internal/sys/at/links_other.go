//go:build !amd64

package at

func setLinks(st *Stat, n uint32) { st.Nlink = n }
