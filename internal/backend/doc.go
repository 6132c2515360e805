// Package backend is a pool of targets: what is known of each, and which one is next.
//
// A pool balances by power of two choices: of two targets drawn at random the one that clearly has less to do is taken, and if
// there is none, the one that has had less so far. Drawing two costs the same for ten targets and for ten thousand, and does
// not have all proxies run to the same target as taking the least busy of all would (Mitzenmacher, The Power of Two Choices
// in Randomized Load Balancing, 1996). Counting what each has had keeps the shares of equal targets equal, which chance alone
// does not. Targets that fail are left out for a while, tried by one request at a time, and taken back slowly.
//
// Who knows more of a target, such as by probes, says so with Set: one that drains is picked if nothing else is up, one that is
// down if nothing else is left. For connections, which last, the number that each target has decides (Config.Least).
package backend
