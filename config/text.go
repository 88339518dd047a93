package config

import _ "embed" // for the shipped file

//go:embed stsmap.toml
var shipped string

// Text returns the configuration file as it is shipped: every key with its consequences, an example, and
// its default commented out. Loading it is loading an empty file.
func Text() string { return shipped }
