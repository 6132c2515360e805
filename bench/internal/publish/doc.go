// Package publish writes reports: facts of the machine and the programs, tables, a plot and all samples.
package publish
