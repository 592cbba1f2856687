// Package suggest finds what a mistyped word was meant to be.
package suggest

import (
	"strings"
	"unicode/utf8"
)

const (
	// near is the largest number of slips that still counts as a typing mistake.
	near = 2
	// longest is the most runes that are compared: the work grows with the square of it.
	longest = 128
)

// Closest gives the word of among that is nearest to word, or "" where none is near. Near is at most two slips (a
// letter too many, missing, wrong, or swapped with the next; letter case does not count) and fewer than half of the
// word's letters, or that one of the two begins with the other and it has at least two letters. Of equals, the first
// wins. A word that is in among is its own answer.
func Closest(word string, among []string) string {
	w := fold(word)
	best, bestCost := "", near+2
	for _, candidate := range among {
		if candidate == word {
			return candidate
		}
		if cost := cost(w, fold(candidate)); cost < bestCost {
			best, bestCost = candidate, cost
		}
	}
	return best
}

// cost is the number of slips between two words, near+1 for a prefix, and more for words that are not near.
func cost(a, b []rune) int {
	short, long := min(len(a), len(b)), max(len(a), len(b))
	const far = near + 2
	if short == 0 || long > longest {
		return far
	}
	if long-short <= near {
		if d := distance(a, b); d <= near && 2*d <= short {
			return d
		}
	}
	if short >= 2 && string(a[:short]) == string(b[:short]) {
		return near + 1
	}
	return far
}

// distance is the optimal string alignment distance (Damerau-Levenshtein without edits inside a swapped pair).
func distance(a, b []rune) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range a {
		row[0] = i + 1
		for j := range b {
			change := 1
			if a[i] == b[j] {
				change = 0
			}
			row[j+1] = min(last[j+1]+1, row[j]+1, last[j]+change)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

func fold(s string) []rune {
	if utf8.RuneCountInString(s) > longest {
		return make([]rune, longest+1)
	}
	return []rune(strings.ToLower(s))
}
