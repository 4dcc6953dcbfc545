//! Numbers and texts as people read them.

use std::env;
use std::path::Path;
use std::time::Duration;

/// `1234567` as `1,234,567`.
pub fn number(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 row`, `2 rows`.
pub fn counted(count: usize, noun: &str) -> String {
    format!("{} {}", number(count), plural(count, noun))
}

/// `row`, `rows`; `batch`, `batches`.
fn plural(count: usize, noun: &str) -> String {
    let ending = if noun.ends_with("ch") { "es" } else { "s" };
    format!("{noun}{}", if count == 1 { "" } else { ending })
}

/// `once`, `twice`, `3 times`.
pub fn times(count: usize) -> String {
    match count {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        _ => format!("{} times", number(count)),
    }
}

/// The first `length` characters, and `…` for what follows them.
pub fn shortened(text: &str, length: usize) -> String {
    match text.char_indices().nth(length) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A path as somebody in the current folder would write it.
pub fn path(path: &Path) -> String {
    let here = env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).display().to_string()
}

/// Milliseconds with one digit behind the point.
pub fn milliseconds(duration: Duration) -> String {
    format!("{:.1}", duration.as_secs_f64() * 1_000.0)
}

/// The middle one, or the mean of the two in the middle; zero of none.
pub fn median(sorted: &[Duration]) -> Duration {
    match (sorted.len(), sorted.len() / 2) {
        (0, _) => Duration::ZERO,
        (length, middle) if length % 2 == 0 => (sorted[middle - 1] + sorted[middle]) / 2,
        (_, middle) => sorted[middle],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        for (plain, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(number(plain), text);
        }
    }

    #[test]
    fn a_text_is_shortened_by_characters_not_bytes() {
        assert_eq!(shortened("äöü", 2), "äö…");
        assert_eq!(shortened("äöü", 3), "äöü");
    }

    #[test]
    fn the_median_of_an_even_count_lies_between_the_two_in_the_middle() {
        let of = |millis: &[u64]| median(&millis.iter().copied().map(Duration::from_millis).collect::<Vec<_>>());
        assert_eq!(of(&[]), Duration::ZERO);
        assert_eq!(of(&[1, 2, 9]), Duration::from_millis(2));
        assert_eq!(of(&[1, 2, 4, 9]), Duration::from_millis(3));
    }
}
