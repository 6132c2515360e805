// Package apiserverlb measures varco apiserver-lb beside HAProxy and nginx: the same backends and the same clients, by turns
// where speed is measured, and side by side where API servers fail.
package apiserverlb
