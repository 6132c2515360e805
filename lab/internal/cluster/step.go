package cluster

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"time"
)

// State of a step.
type State string

// A step is running once, then either done or failed.
const (
	Running State = "running"
	Done    State = "done"
	Failed  State = "failed"
)

// Step is one part of the start of a lab, as it is told to who waits for it. Title names the step.
type Step struct {
	Title string        `json:"title"`
	State State         `json:"state"`
	Took  time.Duration `json:"took,omitempty"` // of a step that is done or failed
	// Detail is what was made, or why it failed: several lines then.
	Detail string `json:"detail,omitempty"`
}

// Progress is called for each change of a step, one call at a time.
type Progress func(Step)

// steps tells about steps as lines of JSON.
type steps struct{ out io.Writer }

// newSteps returns steps that write to the file; those who read it may go away at any time.
func newSteps(f *os.File) steps { return steps{f} }

func (s steps) tell(step Step) {
	_ = json.NewEncoder(s.out).Encode(step) // nobody reads any more: the lab does not depend on it
}

// begin tells that a step begins and returns what tells how it ended. That returns its error.
func (s steps) begin(title string) func(detail string, err error) error {
	start := time.Now()
	s.tell(Step{Title: title, State: Running})
	return func(detail string, err error) error {
		end := Step{Title: title, State: Done, Took: time.Since(start), Detail: detail}
		if err != nil {
			end.State, end.Detail = Failed, err.Error()
		}
		s.tell(end)
		return err
	}
}

// errSilent says that the supervisor's end of the pipe was closed without a word on the end of the last step.
var errSilent = errors.New("the supervisor ended")

// follow reads steps until the one with the title last is done or one has failed.
func follow(in io.Reader, last string, progress Progress) error {
	for dec := json.NewDecoder(in); ; {
		var s Step
		if err := dec.Decode(&s); err != nil {
			return errSilent
		}
		if s.Title == last && s.State == Done {
			return nil
		}
		progress(s)
		if s.State == Failed {
			return errors.New(s.Detail)
		}
	}
}
