package wire

// SplitWords splits a command line as a shell splits a simple command: blanks separate, single quotes keep everything,
// double quotes keep everything but backslashes before $ ` " \ and newline, a backslash keeps the next character.
// Nothing is expanded. It returns ok false when a quote or an escape is not finished.
func SplitWords(line string) (words []string, ok bool) {
	var word []byte
	inWord := false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; c {
		case ' ', '\t', '\n', '\r':
			if inWord {
				words, word, inWord = append(words, string(word)), word[:0], false
			}
			continue
		case '\'', '"':
			if word, i, ok = quoted(word, line, i); !ok {
				return nil, false
			}
		case '\\':
			if i++; i == len(line) {
				return nil, false
			}
			if line[i] == '\n' {
				continue // a line joined to the next
			}
			word = append(word, line[i])
		default:
			word = append(word, c)
		}
		inWord = true
	}
	if inWord {
		words = append(words, string(word))
	}
	return words, true
}

// quoted appends what stands between the quote at line[i] and its end to word, and returns the end's index.
func quoted(word []byte, line string, i int) ([]byte, int, bool) {
	quote := line[i]
	for i++; i < len(line); i++ {
		c := line[i]
		if c == quote {
			return word, i, true
		}
		if c == '\\' && quote == '"' && i+1 < len(line) {
			switch next := line[i+1]; next {
			case '\n':
				i++
				continue
			case '$', '`', '"', '\\':
				c = next
				i++
			}
		}
		word = append(word, c)
	}
	return word, i, false
}
