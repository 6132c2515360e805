package observe

import "fmt"

// units are those of IEC 80000-13, each 1024 times the one before.
var units = [...]string{"", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"}

// Size writes a number of bytes with three digits or less and a binary unit: "12.3Mi".
func Size(bytes uint64) string {
	value, unit := float64(bytes), 0
	for value >= 999.5 && unit < len(units)-1 { // what would be rounded to four digits
		value, unit = value/1024, unit+1
	}
	if unit == 0 {
		return fmt.Sprint(bytes)
	}
	return fmt.Sprintf("%.3g%s", value, units[unit])
}
