package apiwatch

import "varco.dev/internal/apiwatch/checked"

// converter reads an object, and gathers what is wrong with it.
type converter struct{ checked.Fields }
