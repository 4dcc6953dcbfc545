//! The faults of a contract: where each is, what is wrong, and what to do. Which faults there are is in `draft` and `check`.

use std::fmt;
use std::ops::Range;

/// All faults of a contract, by position. Displayed one a line, as `file:line:column: sentence`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    file: String,
    list: Vec<Fault>,
}

/// One fault of a contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What is wrong and what to do.
    pub message: String,
}

impl Faults {
    /// The faults, by position; never none.
    pub fn list(&self) -> &[Fault] {
        &self.list
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.list.iter().enumerate() {
            let end_of_previous = if index == 0 { "" } else { "\n" };
            write!(f, "{end_of_previous}{}:{}:{}: {}", self.file, fault.line, fault.column, fault.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// The faults found so far, each with the byte where it is.
#[derive(Default)]
pub(super) struct Notes(Vec<(usize, String)>);

impl Notes {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn add(&mut self, at: Range<usize>, message: impl Into<String>) {
        self.0.push((at.start, message.into()));
    }

    /// Faults of a place that they name: `column "x"`, say. The top of the file has no name.
    pub(super) fn of(&mut self, place: impl Into<String>) -> Scope<'_> {
        Scope { notes: self, place: place.into() }
    }

    /// Leaves one fault a line, the first: what broke the first leads to the others.
    pub(super) fn keep_first_of_line(&mut self, text: &str) {
        let lines = Lines::of(text);
        self.sort();
        self.0.dedup_by_key(|(at, _)| lines.position(*at).0);
    }

    /// Adds the faults of another reading, save those on lines that have one.
    pub(super) fn add_elsewhere(&mut self, others: Notes, text: &str) {
        let lines = Lines::of(text);
        let taken: Vec<usize> = self.0.iter().map(|(at, _)| lines.position(*at).0).collect();
        let is_elsewhere = |at: usize| taken.binary_search(&lines.position(at).0).is_err();
        self.0.extend(others.0.into_iter().filter(|(at, _)| is_elsewhere(*at)));
    }

    /// By position; faults of one position stay in the order in which they were found.
    fn sort(&mut self) {
        self.0.sort_by_key(|(at, _)| *at);
    }

    /// Sorts the faults and turns bytes into lines and columns.
    pub(super) fn into_faults(mut self, file: &str, text: &str) -> Faults {
        let lines = Lines::of(text);
        self.sort();
        let fault = |(at, message)| {
            let (line, column) = lines.position(at);
            Fault { line, column, message }
        };
        Faults { file: file.to_owned(), list: self.0.into_iter().map(fault).collect() }
    }
}

/// Faults of one place in the contract.
pub(super) struct Scope<'n> {
    notes: &'n mut Notes,
    place: String,
}

impl Scope<'_> {
    /// A place within.
    pub(super) fn of(&mut self, place: impl Into<String>) -> Scope<'_> {
        self.notes.of(place)
    }

    pub(super) fn add(&mut self, at: Range<usize>, message: impl fmt::Display) {
        let colon = if self.place.is_empty() { "" } else { ": " };
        self.notes.add(at, format!("{}{colon}{message}", self.place));
    }
}

/// Where the lines of a text start.
struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    fn of(text: &'t str) -> Self {
        let ends = text.match_indices('\n').map(|(at, _)| at + 1);
        Lines { text, starts: std::iter::once(0).chain(ends).collect() }
    }

    /// Line and column of a byte, both from 1. A byte order mark is no character of the first line.
    fn position(&self, at: usize) -> (usize, usize) {
        let line = self.starts.partition_point(|start| *start <= at);
        let start = self.starts[line - 1];
        let before = self.text.get(start..at).unwrap_or_default();
        (line, before.trim_start_matches('\u{feff}').chars().count() + 1)
    }
}

/// A text of the contract as messages show it: in quotes, on one line, not too long, else as it was written.
pub(super) fn shown(text: &str) -> String {
    const MOST: usize = 60;
    let mut shown = String::from("\"");
    for c in text.chars().take(MOST) {
        if c.is_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    let is_cut = text.chars().nth(MOST).is_some();
    shown + if is_cut { "…\"" } else { "\"" }
}

/// What to write instead of a word that is none: the word that was probably meant, or all there are.
pub(super) fn instead<'w>(word: &str, words: impl IntoIterator<Item = &'w str>) -> String {
    let words: Vec<&str> = words.into_iter().collect();
    match meant(word, words.iter().copied()) {
        Some(known) => format!("did you mean \"{known}\"?"),
        None => format!("use {}", one_of(&words)),
    }
}

/// The word that was probably meant by one that is none.
pub(super) fn meant<'w>(word: &str, words: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let nearest = words.into_iter().map(|known| (distance(word, known), known)).min();
    nearest.filter(|(distance, known)| *distance <= 1 + known.len() / 6).map(|(_, known)| known)
}

/// `one of "a", "b", "c"`; `"a"` if there is but one.
fn one_of(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    let prefix = if words.len() > 1 { "one of " } else { "" };
    format!("{prefix}{}", quoted.join(", "))
}

/// How many characters must be inserted, dropped, replaced or swapped with their neighbour, ASCII case aside.
fn distance(a: &str, b: &str) -> usize {
    // No word of a contract is longer.
    const LONGEST: usize = 40;
    let lower = |s: &str| s.chars().take(LONGEST).map(|c| c.to_ascii_lowercase()).collect::<Vec<char>>();
    let (a, b) = (lower(a), lower(b));
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut row = vec![i + 1];
        for j in 0..b.len() {
            let replaced = last[j] + usize::from(a[i] != b[j]);
            let swapped = if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                before_last[j - 1] + 1
            } else {
                usize::MAX
            };
            row.push(replaced.min(swapped).min(last[j + 1] + 1).min(row[j] + 1));
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_no_byte_order_mark() {
        let text = "\u{feff}a = 1\r\nö = \"é\" x\n";
        let lines = Lines::of(text);
        assert_eq!(lines.position(3), (1, 1));
        assert_eq!(lines.position(text.find('x').unwrap()), (2, 9));
        assert_eq!(lines.position(text.len()), (3, 1));
    }

    #[test]
    fn a_misspelt_word_names_the_one_meant() {
        let check = |word: &str, expected: &str| assert_eq!(instead(word, ["required", "redact", "mask"]), expected);
        check("requierd", "did you mean \"required\"?");
        check("Mask", "did you mean \"mask\"?");
        check("maks", "did you mean \"mask\"?");
        check("nullable", "use one of \"required\", \"redact\", \"mask\"");
    }

    #[test]
    fn what_is_shown_stays_on_one_line() {
        assert_eq!(shown("it's\n\"\\d\""), r#""it's\n"\d"""#);
        assert_eq!(shown(&"a".repeat(1000)).chars().count(), 63);
    }
}
