package commands

import "strings"

// typedLine is a line of bash as far as the cursor.
type typedLine struct {
	words  []string
	quote  byte   // the quote that is open at the end; 0 is none
	kept   int    // how many bytes of the last word readline leaves as they are: it replaces what follows
	breaks string // what readline breaks words at
	// redirected says that the last word is the file of a < or >. Others of these, with theirs, are no words.
	redirected bool
}

// splitLine cuts a line into words as POSIX.1-2024, Shell Command Language, 2.2 has it. Nothing is run: of all expansions only $NAME and
// ${NAME} are made, by env, and where there is no such variable not even these.
func splitLine(line, breaks string, env func(string) string) typedLine {
	t := typedLine{breaks: breaks}
	var word strings.Builder
	in := false
	for i := 0; i < len(line); i++ {
		ch := line[i]
		switch {
		case t.quote == 0 && (ch == ' ' || ch == '\t' || ch == '\n'):
			t.end(&word, in)
			in = false
			continue
		case t.quote == 0 && (ch == '<' || ch == '>') && strings.IndexByte(breaks, ch) >= 0:
			if strings.Trim(word.String(), "0123456789&") == "" { // 2>file
				word.Reset()
				in = false
			}
			t.end(&word, in)
			in, t.redirected = false, true
			continue
		case t.redirected && !in && (ch == '&' || ch == '|'): // >&2 and >|file
			continue
		case ch == t.quote:
			t.quote = 0
		case t.quote == 0 && (ch == '"' || ch == '\''):
			t.quote, t.kept = ch, word.Len()
		case ch == '\\' && t.quote != '\'' && i+1 < len(line) && (t.quote == 0 || strings.IndexByte("$`\"\\\n", line[i+1]) >= 0):
			i++
			word.WriteByte(line[i])
		case ch == '$' && t.quote != '\'':
			value, length := variable(line[i:], env)
			word.WriteString(value)
			i += length - 1
		default:
			word.WriteByte(ch)
			if t.quote == 0 && strings.IndexByte(breaks, ch) >= 0 {
				t.kept = word.Len()
				if ch == '@' { // readline takes it to be a part of the word
					t.kept--
				}
			}
		}
		in = true
	}
	t.words = append(t.words, word.String())
	return t
}

// end ends a word, where there is one.
func (t *typedLine) end(word *strings.Builder, in bool) {
	t.kept = 0
	if !in {
		return
	}
	if !t.redirected {
		t.words = append(t.words, word.String())
	}
	t.redirected = false
	word.Reset()
}

// unquoted gives a word as its program will get it.
func unquoted(word string, env func(string) string) string {
	return strings.Join(splitLine(word, "", env).words, " ")
}

// variable reads $NAME or ${NAME} at the beginning of text, and gives what stands for it, and how long it is.
func variable(text string, env func(string) string) (value string, length int) {
	name := text[1:]
	braced := strings.HasPrefix(name, "{")
	if braced {
		name = name[1:]
	}
	n := 0
	for n < len(name) && (name[n] == '_' || name[n] >= 'a' && name[n] <= 'z' || name[n] >= 'A' && name[n] <= 'Z' || n > 0 && name[n] >= '0' && name[n] <= '9') {
		n++
	}
	length = 1 + n
	if braced {
		if length += 2; n >= len(name) || name[n] != '}' {
			return "$", 1
		}
	}
	if value = env(name[:n]); value == "" {
		return text[:1], 1
	}
	return value, length
}

// replacement is what stands for a candidate in bash: the part that readline replaces, quoted, and the space that ends a word.
func (t typedLine) replacement(word string) string {
	rest := word[min(t.kept, len(word)):]
	if t.quote != 0 {
		return rest // readline closes the quote
	}
	var b strings.Builder
	for i, r := range rest {
		if strings.ContainsRune(" \t\\'\"`$&|;<>()*?[]{}!#", r) || r == '~' && i == 0 && t.kept == 0 && !strings.HasPrefix(rest, "~/") {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	if goesOn(word) {
		return b.String()
	}
	return b.String() + " "
}

// goesOn reports whether a candidate is the beginning of a word.
func goesOn(word string) bool {
	return word != "" && strings.IndexByte("=/:.@", word[len(word)-1]) >= 0
}
