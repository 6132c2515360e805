// Package config reads the configuration of the load balancer in front of the API servers: a YAML file, strictly, with
// defaults, and with everything that is wrong named at once by its field and line.
package config
