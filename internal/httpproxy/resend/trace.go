package resend

import (
	"context"
	"net/http/httptrace"
)

// Traced is a context whose trace is another one. httptrace.WithClientTrace joins the old and the new one by reflection, at the
// cost of a tenth of a small request.
type Traced struct {
	context.Context
	Trace *httptrace.ClientTrace
}

// Value implements context.Context.
func (c *Traced) Value(key any) any {
	v := c.Context.Value(key)
	if _, ok := v.(*httptrace.ClientTrace); ok {
		return c.Trace
	}
	return v
}
