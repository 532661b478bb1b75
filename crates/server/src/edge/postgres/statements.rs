//! A text of several statements cut at its semicolons, where they are not inside of quotes, comments or dollar quotes.

/// The statements of a text, without their semicolons and the blanks around them. Empty ones are left out.
pub fn split(text: &str) -> Vec<&str> {
    let mut statements = Vec::new();
    let mut from = 0;
    let mut scanner = Scanner { text: text.as_bytes(), at: 0 };
    while let Some(semicolon) = scanner.next_semicolon() {
        push(&mut statements, &text[from..semicolon]);
        from = semicolon + 1;
    }
    push(&mut statements, &text[from..]);
    statements
}

/// Whether the text ends outside of a statement: after a semicolon, or with nothing but blanks and comments.
pub fn is_complete(text: &str) -> bool {
    let mut scanner = Scanner { text: text.as_bytes(), at: 0 };
    let mut from = 0;
    while let Some(semicolon) = scanner.next_semicolon() {
        from = semicolon + 1;
    }
    is_blank(&text[from..])
}

fn push<'a>(statements: &mut Vec<&'a str>, statement: &'a str) {
    let trimmed = statement.trim();
    if !is_blank(trimmed) {
        statements.push(trimmed);
    }
}

/// Only blanks and comments.
pub fn is_blank(text: &str) -> bool {
    skip_blanks(text).is_empty()
}

/// The text after leading blanks and comments.
pub fn skip_blanks(text: &str) -> &str {
    let mut rest = text.trim_start();
    loop {
        let comment = if rest.starts_with("--") {
            rest.find('\n').map_or(rest.len(), |end| end + 1)
        } else if rest.starts_with("/*") {
            let mut scanner = Scanner { text: rest.as_bytes(), at: 0 };
            scanner.block_comment();
            scanner.at
        } else {
            return rest;
        };
        rest = rest[comment..].trim_start();
    }
}

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    /// The position of the next semicolon that ends a statement; the scanner stands behind it.
    fn next_semicolon(&mut self) -> Option<usize> {
        while let Some(byte) = self.text.get(self.at) {
            match byte {
                b';' => {
                    self.at += 1;
                    return Some(self.at - 1);
                }
                b'\'' => {
                    let escapes = self.at > 0
                        && matches!(self.text[self.at - 1], b'e' | b'E')
                        && !self.at.checked_sub(2).is_some_and(|before| is_word(self.text[before]));
                    self.quoted(b'\'', escapes);
                }
                b'"' => self.quoted(b'"', false),
                b'-' if self.looking_at(b"--") => self.line_comment(),
                b'/' if self.looking_at(b"/*") => self.block_comment(),
                b'$' if self.at == 0 || !is_word(self.text[self.at - 1]) => self.dollar_quoted(),
                _ => self.at += 1,
            }
        }
        None
    }

    fn looking_at(&self, word: &[u8]) -> bool {
        self.text[self.at..].starts_with(word)
    }

    /// A doubled quote closes one string and opens the next, which comes to the same.
    fn quoted(&mut self, quote: u8, escapes: bool) {
        self.at += 1;
        while let Some(byte) = self.text.get(self.at) {
            self.at += 1;
            if *byte == quote {
                return;
            }
            if escapes && *byte == b'\\' {
                self.at += 1;
            }
        }
        self.at = self.text.len();
    }

    fn line_comment(&mut self) {
        while self.text.get(self.at).is_some_and(|byte| *byte != b'\n') {
            self.at += 1;
        }
    }

    /// Block comments nest, as in PostgreSQL.
    fn block_comment(&mut self) {
        let mut depth = 0_usize;
        while self.at < self.text.len() {
            if self.looking_at(b"/*") {
                depth += 1;
                self.at += 2;
            } else if self.looking_at(b"*/") {
                depth = depth.saturating_sub(1);
                self.at += 2;
                if depth == 0 {
                    return;
                }
            } else {
                self.at += 1;
            }
        }
        self.at = self.text.len();
    }

    /// `$$ ... $$` or `$tag$ ... $tag$`; a lone `$1` is a parameter.
    fn dollar_quoted(&mut self) {
        let tag_end = self.text[self.at + 1..].iter().position(|byte| !is_word(*byte));
        let Some(length) = tag_end.filter(|end| self.text[self.at + 1 + end] == b'$') else {
            self.at += 1;
            return;
        };
        let tag = &self.text[self.at..self.at + length + 2];
        if tag.get(1).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
            return;
        }
        let body = self.at + tag.len();
        let close = self.text[body..].windows(tag.len()).position(|window| window == tag);
        self.at = close.map_or(self.text.len(), |position| body + position + tag.len());
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_cut_where_they_end() {
        let cases: [(&str, &[&str]); 12] = [
            ("SELECT 1", &["SELECT 1"]),
            ("SELECT 1; SELECT 2;", &["SELECT 1", "SELECT 2"]),
            (" ; ;\n", &[]),
            ("SELECT ';', \"a;b\", 'it''s;'; SELECT 2", &["SELECT ';', \"a;b\", 'it''s;'", "SELECT 2"]),
            ("SELECT E'\\';'; SELECT 2", &["SELECT E'\\';'", "SELECT 2"]),
            ("SELECT 'a\\'; SELECT 2", &["SELECT 'a\\'", "SELECT 2"]),
            ("SELECT 1 -- ; not here\n; SELECT 2", &["SELECT 1 -- ; not here", "SELECT 2"]),
            ("/* ; /* ; */ ; */ SELECT 1; -- end", &["/* ; /* ; */ ; */ SELECT 1"]),
            ("SELECT $$;$$; SELECT $a$;$$;$a$", &["SELECT $$;$$", "SELECT $a$;$$;$a$"]),
            ("SELECT $1; SELECT $2", &["SELECT $1", "SELECT $2"]),
            ("SELECT '열;림'; SELECT 2", &["SELECT '열;림'", "SELECT 2"]),
            ("SELECT 'open ; ", &["SELECT 'open ;"]),
        ];
        for (text, expected) in cases {
            assert_eq!(split(text), expected, "{text}");
        }
    }

    #[test]
    fn the_shell_knows_when_a_statement_is_whole() {
        assert!(is_complete("SELECT 1;"));
        assert!(is_complete("SELECT 1; -- done"));
        assert!(is_complete("  "));
        assert!(!is_complete("SELECT 1"));
        assert!(!is_complete("SELECT ';"));
        assert!(!is_complete("SELECT 1 /* ;"));
    }

    #[test]
    fn no_text_panics() {
        for text in ["'", "\"", "$", "$$", "$a", "/*", "--", "E'\\", "$é$;$é$;", "a$b$;"] {
            let _ = split(text);
            let _ = is_complete(text);
        }
        assert_eq!(split("$é$;$é$; x"), ["$é$;$é$", "x"]);
    }
}
