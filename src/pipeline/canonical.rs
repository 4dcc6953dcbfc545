//! The canonical forms: one spelling for what is one thing, so that it has one pseudonym. Each is idempotent.

use std::borrow::Cow;
use std::net::IpAddr;

use super::contract::Canonical;

/// The canonical form of a text; `None` when the text is not of the kind that the form is for.
pub fn canonical<'a>(form: Canonical, text: Cow<'a, str>) -> Option<Cow<'a, str>> {
    match form {
        Canonical::Ip => ip(text),
        Canonical::Trim => Some(trim(text)),
        Canonical::Lower => Some(lower(text)),
        Canonical::Digits => Some(digits(text)),
    }
}

/// Rust's parser takes neither leading-zero octets (some read them as octal) nor abbreviations nor zones.
fn ip(text: Cow<'_, str>) -> Option<Cow<'_, str>> {
    let address: IpAddr = text.parse().ok()?;
    match address.to_canonical() {
        // Four decimal octets without leading zeros have one spelling only.
        IpAddr::V4(_) if address.is_ipv4() => Some(text),
        canonical => Some(Cow::Owned(canonical.to_string())),
    }
}

fn trim(text: Cow<'_, str>) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
        Cow::Owned(text) if text.trim().len() == text.len() => Cow::Owned(text),
        Cow::Owned(text) => Cow::Owned(text.trim().to_owned()),
    }
}

/// Lower-casing can make letters that lower-case again (`İ` becomes `i` and a dot above, and so on), so it is repeated
/// until it settles.
fn lower(text: Cow<'_, str>) -> Cow<'_, str> {
    let mut text = text;
    while text.chars().any(|c| c.is_ascii_uppercase() || !c.is_ascii()) {
        let lower = text.to_lowercase();
        if lower == text {
            break;
        }
        text = Cow::Owned(lower);
    }
    text
}

fn digits(text: Cow<'_, str>) -> Cow<'_, str> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return text;
    }
    Cow::Owned(text.chars().filter(char::is_ascii_digit).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(form: Canonical, text: &str, expected: Option<&str>) {
        assert_eq!(canonical(form, text.into()).as_deref(), expected, "{form:?}");
    }

    #[test]
    fn one_address_has_one_spelling() {
        check(Canonical::Ip, "192.0.2.1", Some("192.0.2.1"));
        check(Canonical::Ip, "::ffff:192.0.2.1", Some("192.0.2.1"));
        check(Canonical::Ip, "::FFFF:C000:201", Some("192.0.2.1"));
        check(Canonical::Ip, "2001:DB8:0:0:0:0:0:1", Some("2001:db8::1"));
        check(Canonical::Ip, "192.0.2.01", None);
        check(Canonical::Ip, "192.0.2", None);
        check(Canonical::Ip, "fe80::1%eth0", None);
        check(Canonical::Ip, " 192.0.2.1", None);
        check(Canonical::Ip, "", None);
    }

    #[test]
    fn texts_lose_what_does_not_tell_them_apart() {
        check(Canonical::Trim, " \u{a0}a b\n", Some("a b"));
        check(Canonical::Lower, "ÄB", Some("äb"));
        check(Canonical::Digits, "593-47-5928", Some("593475928"));
        check(Canonical::Digits, "٣-", Some(""));
    }
}
