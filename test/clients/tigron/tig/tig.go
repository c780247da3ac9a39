// Package tig stands in for the test library of nerdctl, which is published with none of its releases. The client
// itself imports one type of it.
package tig

// T is what nerdctl's helpers ask of a running test.
type T interface {
	FailNow()
	Log(args ...any)
}
