//! "Did you mean": the name with the fewest edits.

/// The candidate nearest to `wrong`, if it is near enough to be meant: at most a third of its letters differ.
/// The first of equals wins.
pub fn nearest<'a>(wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near = |name: &&str| distance(wrong, name) <= (name.chars().count() / 3).max(2);
    candidates.into_iter().filter(near).min_by_key(|name| distance(wrong, name))
}

/// Insertions, removals, replacements and swaps of neighbours that lead from `a` to `b` (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before_last = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before_last[j - 2] + 1);
            }
        }
        before_last = last;
        last = row;
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_mistake_is_understood_and_nonsense_is_not() {
        let names = ["log.retention", "log.retention_bytes", "store.threads"];
        assert_eq!(nearest("log.retenton", names), Some("log.retention"));
        assert_eq!(nearest("log.retention_byte", names), Some("log.retention_bytes"));
        assert_eq!(nearest("store.thraeds", names), Some("store.threads"));
        assert_eq!(nearest("colour", names), None);
        assert_eq!(distance("ab", "ba"), 1);
        assert_eq!(distance("", "abc"), 3);
    }
}
