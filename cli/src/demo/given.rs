//! Messages from a file: one body a line, sent as it stands. Whether a body is any good is for the function to say.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result, bail};
use uuid::Uuid;

use super::plan::{Origin, Plan, Planned};

/// The namespace of the message ids that follow from line number and body.
const NAMESPACE: Uuid = Uuid::from_u128(0x6b0f_5c37_1d0e_4f6f_9d55_2f1a_c6f4_8d21);
const BYTE_ORDER_MARK: &str = "\u{feff}";

/// The messages of the file, or of stdin if it is called `-`. A key is made up for this run: with a key that everybody
/// knows, pseudonyms of real messages could be undone.
///
/// # Errors
/// If the file cannot be read, is not UTF-8 (SQS takes nothing else) or holds no message.
pub fn plan(file: &Path) -> Result<Plan> {
    let name = file.display();
    let bytes = read(file).with_context(|| format!("read the messages of {name}"))?;
    let text = match std::str::from_utf8(&bytes) {
        Ok(text) => text,
        Err(error) => bail!("{name} is not UTF-8: look at line {}", line_of(&bytes, error.valid_up_to())),
    };
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    let messages: Vec<_> = text.lines().enumerate().filter_map(|(i, line)| message(i + 1, line)).collect();
    if messages.is_empty() {
        bail!("{name} holds no message: it takes one JSON object a line");
    }
    let blank = text.lines().count() - messages.len();
    Ok(Plan {
        order: (0..messages.len()).collect(),
        messages,
        origin: Origin::File { blank },
        masking_key: format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple()),
        lose_an_answer: false,
        spelled: None,
    })
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    if file != Path::new("-") {
        return fs::read(file);
    }
    let mut bytes = Vec::new();
    io::stdin().read_to_end(&mut bytes).map(|_| bytes)
}

fn message(place: usize, line: &str) -> Option<Planned> {
    if line.trim().is_empty() {
        return None;
    }
    let id = Uuid::new_v5(&NAMESPACE, format!("{place}:{line}").as_bytes()).to_string();
    Some(Planned { id, body: line.to_owned(), place })
}

fn line_of(bytes: &[u8], position: usize) -> usize {
    bytes[..position].iter().filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_line_at_the_same_place_has_the_same_id_and_at_another_place_another_one() {
        let id = |place, line| message(place, line).unwrap().id;
        assert_eq!(id(1, "{}"), id(1, "{}"));
        assert_ne!(id(1, "{}"), id(2, "{}"));
        assert_ne!(id(1, "{}"), id(1, "{ }"));
    }

    #[test]
    fn a_blank_line_is_no_message() {
        assert!(message(1, " \t").is_none());
    }
}
