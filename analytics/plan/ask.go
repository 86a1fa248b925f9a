package plan

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// Ask completes a draft by asking for what is missing, again until the answer will
// do. It offers only what can be combined. The error is that of the input.
func (p *Plan) Ask(d *Draft, in io.Reader, out io.Writer) error {
	a := &asker{in: bufio.NewScanner(in), out: out}
	if d.Event == "" {
		d.Event = a.text("Event, what is done to what (team.created)", p.CheckName)
	}
	if d.Description == "" {
		d.Description = a.text("Description, who does what and when it is sent", CheckDescription)
	}
	if d.Owner == "" {
		d.Owner = a.text("Owner, the team that knows what it means", present("owner"))
	}
	if d.URL == "" {
		d.URL = a.text("URL of the change that introduces it", present("url"))
	}
	if len(d.Attributes) == 0 {
		a.attributes(d)
	}
	if len(d.Unique) == 0 && len(d.Sum) == 0 && !d.Total {
		a.counts(d)
	}
	if len(d.TimeFrames) == 0 && (d.Total || len(d.Unique)+len(d.Sum) > 0) {
		a.frames(d)
	}
	return a.err
}

// asker asks until the input ends; then all answers are empty.
type asker struct {
	in  *bufio.Scanner
	out io.Writer
	err error
}

func (a *asker) line(question string) string {
	if a.err != nil {
		return ""
	}
	fmt.Fprintf(a.out, "%s: ", question)
	if a.in.Scan() {
		return strings.TrimSpace(a.in.Text())
	}
	if a.err = a.in.Err(); a.err == nil {
		a.err = errors.New("the input ended before all was answered")
	}
	return ""
}

func (a *asker) text(question string, check func(string) error) string {
	for a.err == nil {
		answer := a.line(question)
		if a.err != nil {
			break
		}
		err := check(answer)
		if err == nil {
			return answer
		}
		fmt.Fprintf(a.out, "  %v\n", err)
	}
	return ""
}

func present(what string) func(string) error {
	return func(answer string) error {
		if answer == "" {
			return fmt.Errorf("%s: it is needed", what)
		}
		return nil
	}
}

func (a *asker) attributes(d *Draft) {
	fmt.Fprintf(a.out, "Attributes, as NAME:TYPE[:required][:ROLE]. Types: %s, enum(one|two). Roles: %s.\n",
		list(plainTypes), list(roles))
	for a.err == nil && len(d.Attributes) < maxAttributes {
		answer := a.text("Attribute (none for no more)", func(answer string) error {
			if answer == "" {
				return nil
			}
			return allowed(append(slices.Clone(d.Attributes), answer))
		})
		if answer == "" {
			return
		}
		d.Attributes = append(d.Attributes, answer)
	}
}

// allowed says what is wrong with the attributes of an event, as Make would at the end,
// when all answers were given.
func allowed(attributes []string) error {
	_, _, err := Empty(DefaultOptions()).Make(Draft{
		Event: "event", Description: strings.Repeat("x", minDescription), Owner: "x", URL: "https://x", Attributes: attributes,
	})
	return err
}

// counts offers what an event with the attributes of the draft can be counted by.
func (a *asker) counts(d *Draft) {
	type offer struct {
		words string
		take  func()
	}
	offers := []offer{{"how often it happens", func() { d.Total = true }}}
	for _, text := range d.Attributes {
		attribute, err := ParseAttribute(text)
		switch {
		case err != nil:
		case attribute.Role == Identity:
			offers = append(offers, offer{"how many different " + attribute.Identity, func() { d.Unique = append(d.Unique, attribute.Identity) }})
		case attribute.Role == Number || attribute.Role == RawOnly && attribute.number() && attribute.Type != Timestamp:
			offers = append(offers, offer{"the sum of " + attribute.Name, func() { d.Sum = append(d.Sum, attribute.Name) }})
		}
	}
	for i, o := range offers {
		fmt.Fprintf(a.out, "  %d  %s\n", i+1, o.words)
	}
	chosen := a.choose("What to count (numbers with blanks between, none for nothing)", len(offers))
	for _, i := range chosen {
		offers[i].take()
	}
}

// frames offers the time frames that all that is counted can have.
func (a *asker) frames(d *Draft) {
	offers := [][]TimeFrame{{Frame7d, Frame28d}, {Frame7d}, {Frame28d}, {Frame1d, Frame7d, Frame28d}, {FrameWeek, FrameMonth}}
	if len(d.Unique) == 0 {
		offers = append(offers, []TimeFrame{FrameAll})
	}
	for i, frames := range offers {
		fmt.Fprintf(a.out, "  %d  %s\n", i+1, joinFrames(frames))
	}
	chosen := a.choose("Over which time (one number, none for the first)", len(offers))
	if len(chosen) == 0 {
		chosen = []int{0}
	}
	for _, frame := range offers[chosen[0]] {
		d.TimeFrames = append(d.TimeFrames, string(frame))
	}
}

func joinFrames(frames []TimeFrame) string {
	words := make([]string, len(frames))
	for i, frame := range frames {
		words[i] = string(frame)
	}
	return list(words)
}

// choose reads numbers from 1 to most and returns them from 0.
func (a *asker) choose(question string, most int) []int {
	var chosen []int
	a.text(question, func(answer string) error {
		chosen = nil
		for _, word := range strings.Fields(strings.ReplaceAll(answer, ",", " ")) {
			n, err := strconv.Atoi(word)
			if err != nil || n < 1 || n > most {
				return fmt.Errorf("%q is not a number from 1 to %d", short(word), most)
			}
			if !slices.Contains(chosen, n-1) {
				chosen = append(chosen, n-1)
			}
		}
		return nil
	})
	return chosen
}
