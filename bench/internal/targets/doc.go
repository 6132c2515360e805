// Package targets is what the proxies of an API server lead to: servers at several addresses that answer at once.
package targets
