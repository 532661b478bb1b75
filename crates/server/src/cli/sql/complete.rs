//! Completion of keywords and of the node's tables, columns and functions.

use std::collections::BTreeSet;

use reedline::{Completer, CompletionResult, Span, Suggestion};

use super::run::Runner;

#[rustfmt::skip]
const KEYWORDS: [&str; 52] = [
    "ALL", "AND", "AS", "ASC", "BETWEEN", "BY", "CASE", "CAST", "COUNT", "CROSS", "DESC", "DISTINCT", "ELSE", "END",
    "EXISTS", "EXPLAIN", "FALSE", "FILTER", "FROM", "FULL", "GROUP", "GROUPING", "HAVING", "IN", "INNER", "INTERVAL", "IS",
    "JOIN", "LEFT", "LIKE", "LIMIT", "NOT", "NULL", "OFFSET", "ON", "OR", "ORDER", "OVER", "PARTITION", "PLAN FOR", "RIGHT",
    "SELECT", "SETS", "THEN", "TIMESTAMP", "TRUE", "UNION", "UNNEST", "USING", "WHEN", "WHERE", "WITH",
];
const COMMANDS: [&str; 9] = ["\\d", "\\dt", "\\df", "\\q", "\\x", "\\timing", "\\format", "\\refresh", "\\?"];
/// Suggestions shown at most.
const SHOWN_MAX: usize = 200;
/// Names asked for at most.
const NAMES_MAX: usize = 20_000;

/// What can be completed.
#[derive(Debug, Clone, Default)]
pub struct Names {
    words: BTreeSet<String>,
}

impl Names {
    /// Asks the node. What it does not tell is not completed.
    pub fn ask(runner: &Runner) -> Self {
        let mut words: BTreeSet<String> = KEYWORDS.iter().map(|word| (*word).to_owned()).collect();
        let questions = [
            format!("SELECT DISTINCT TABLE_NAME FROM INFORMATION_SCHEMA.TABLES LIMIT {NAMES_MAX}"),
            format!("SELECT DISTINCT COLUMN_NAME FROM INFORMATION_SCHEMA.COLUMNS LIMIT {NAMES_MAX}"),
            format!("SELECT DISTINCT ROUTINE_NAME FROM INFORMATION_SCHEMA.ROUTINES LIMIT {NAMES_MAX}"),
        ];
        for question in questions {
            let rows = runner.rows(&question).unwrap_or_default();
            words.extend(rows.into_iter().filter_map(|row| Some(quoted(row.first()?.as_str()?))));
        }
        Self { words }
    }
}

/// A name that is not all lower-case letters, digits and underscores needs its quotes.
fn quoted(name: &str) -> String {
    let plain =
        name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !name.starts_with(|c: char| c.is_ascii_digit());
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

impl Completer for Names {
    fn complete(&mut self, line: &str, pos: usize) -> CompletionResult {
        let before = line.get(..pos).unwrap_or(line);
        let word_char = |c: char| c.is_alphanumeric() || matches!(c, '_' | '\\' | '"');
        let start = before
            .rfind(|c: char| !word_char(c))
            .map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
        let typed = &before[start..];
        let matches: Vec<Suggestion> = self
            .matching(typed)
            .into_iter()
            .map(|value| Suggestion { value, span: Span { start, end: pos }, ..Suggestion::default() })
            .collect();
        CompletionResult::fresh(matches)
    }
}

impl Names {
    /// Case does not matter; a keyword follows the case of what was typed.
    fn matching(&self, typed: &str) -> Vec<String> {
        if typed.starts_with('\\') {
            return COMMANDS.iter().filter(|word| word.starts_with(typed)).map(|word| (*word).to_owned()).collect();
        }
        let sought = typed.trim_start_matches('"').to_lowercase();
        if sought.is_empty() {
            return Vec::new();
        }
        let lower = !typed.chars().any(char::is_uppercase);
        let shown = |word: &String| {
            if lower && KEYWORDS.contains(&word.as_str()) { word.to_lowercase() } else { word.clone() }
        };
        let fits = |word: &&String| word.trim_start_matches('"').to_lowercase().starts_with(&sought);
        self.words.iter().filter(fits).map(shown).take(SHOWN_MAX).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let words = ["SELECT", "SETS", "seawall_requests", "\"isRobot\"", "\"some page\""];
        Names { words: words.iter().map(|word| (*word).to_owned()).collect() }
    }

    #[test]
    fn words_complete_in_the_case_that_is_typed() {
        assert_eq!(names().matching("se"), ["select", "sets", "seawall_requests"]);
        assert_eq!(names().matching("SE"), ["SELECT", "SETS", "seawall_requests"]);
        assert_eq!(names().matching("isr"), ["\"isRobot\""]);
        assert_eq!(names().matching("\\t"), ["\\timing"]);
        assert!(names().matching("").is_empty());
    }

    #[test]
    fn only_the_word_under_the_cursor_is_replaced() {
        let result = names().complete("SELECT 줄, som FROM", 14);
        let spans: Vec<(usize, usize)> = result.suggestions().iter().map(|s| (s.span.start, s.span.end)).collect();
        assert_eq!((result.suggestions()[0].value.as_str(), spans[0]), ("\"some page\"", (12, 14)));
    }

    #[test]
    fn names_that_need_quotes_get_them() {
        assert_eq!(
            [quoted("page"), quoted("some page"), quoted("1st"), quoted("a\"b")],
            ["page", "\"some page\"", "\"1st\"", "\"a\"\"b\""]
        );
    }
}
