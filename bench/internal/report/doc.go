// Package report turns samples into figures, tables and plots. It measures nothing and writes no file.
package report
