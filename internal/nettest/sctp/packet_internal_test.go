package sctp

import (
	"encoding/hex"
	"testing"
)

// unhex returns the packet of these bytes with its checksum put in.
func unhex(t *testing.T, s string) packet {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	p := packet(b)
	return withPorts(p, p.source(), p.destination())
}

func TestAnswerToStray(t *testing.T) {
	const (
		ports = "1b590050" // 7001 to 80
		back  = "00501b59"
		tag   = "0a0b0c0d"
		sum   = "00000000"
	)
	for _, tc := range []struct{ name, in, want string }{
		{"INIT is aborted with its own tag",
			ports + "00000000" + sum + "01000014" + tag + "00010000" + "0001" + "0001" + "00000001",
			back + tag + sum + "06000004"},
		{"INIT without a tag", ports + "00000000" + sum + "01000004", ""},
		{"DATA is aborted with the tag reflected", ports + tag + sum + "00030004", back + tag + sum + "06010004"},
		{"SHUTDOWN ACK is completed", ports + tag + sum + "08000004", back + tag + sum + "0e010004"},
		{"ABORT is left alone", ports + tag + sum + "06000004", ""},
		{"SHUTDOWN COMPLETE is left alone", ports + tag + sum + "0e000004", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := answerToStray(unhex(t, tc.in))
			if tc.want == "" {
				if got != nil {
					t.Errorf("answered %x", got)
				}
				return
			}
			if want := unhex(t, tc.want); string(got) != string(want) {
				t.Errorf("answered %x, want %x", got, want)
			}
		})
	}
}

func TestCheckRefuses(t *testing.T) {
	good := unhex(t, "1b5900500a0b0c0d0000000000030004")
	if _, err := check(good); err != nil {
		t.Fatal(err)
	}
	for i := range good {
		bad := append([]byte(nil), good...)
		bad[i] ^= 1
		if _, err := check(bad); err != errChecksum {
			t.Errorf("byte %d flipped: %v", i, err)
		}
		if _, err := check(good[:i]); err != errShort {
			t.Errorf("cut to %d bytes: %v", i, err)
		}
	}
}
