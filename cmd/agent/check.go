package main

import (
	"fmt"
	"io"
)

// check loads the configuration as run does, and reports.
func check(file string, out, warn io.Writer) error {
	cfg, warnings, err := load(file)
	if err != nil {
		return err
	}
	if _, err := loadPlan(&cfg); err != nil {
		return err
	}
	for _, warning := range warnings {
		fmt.Fprintln(warn, "weir: "+warning)
	}
	what := file
	if what == "" {
		what = "the configuration (no file)"
	}
	fmt.Fprintf(out, "%s is valid\n", what)
	return nil
}
