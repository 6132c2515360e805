// Package nft is the nftables data plane: it turns the desired state of Services into the elements of a few maps, and
// commits them to the kernel over netlink in one transaction.
//
// There is one table per IP family. Its chains and rules are fixed; what grows with the cluster is map elements only, so
// that a change touches the elements of the ports that changed and nothing else. README.md of the parent folder has the
// picture and the reason of each rule.
package nft
