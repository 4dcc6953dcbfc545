//! Message bodies from a file: one a line, as it stands. Whether a body is any good is for others to say.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result, bail};

const BYTE_ORDER_MARK: &str = "\u{feff}";

/// What a file holds.
#[derive(Debug)]
pub struct Bodies {
    /// At least one.
    pub bodies: Vec<Body>,
    /// How many lines were skipped because they were blank.
    pub blank: usize,
}

/// One body.
pub struct Body {
    /// Its line in the file; from 1, blank lines counted.
    pub line: usize,
    pub text: String,
}

/// **Invariant (Silence):** the line alone.
impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Body").field("line", &self.line).finish_non_exhaustive()
    }
}

/// The bodies in the file, or from stdin if it is called `-`.
///
/// # Errors
/// If the file cannot be read, is not UTF-8 (SQS takes nothing else) or holds no body.
pub fn read(file: &Path) -> Result<Bodies> {
    let name = if file == Path::new("-") { "stdin".into() } else { file.display().to_string() };
    let bytes = bytes(file).with_context(|| format!("read the messages of {name}"))?;
    parse(&name, &bytes)
}

fn bytes(file: &Path) -> io::Result<Vec<u8>> {
    if file != Path::new("-") {
        return fs::read(file);
    }
    let mut bytes = Vec::new();
    io::stdin().read_to_end(&mut bytes).map(|_| bytes)
}

fn parse(name: &str, bytes: &[u8]) -> Result<Bodies> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => bail!("{name} is not UTF-8: look at line {}", line_of(bytes, error.valid_up_to())),
    };
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let bodies: Vec<_> = lines.map(|(i, line)| Body { line: i + 1, text: line.to_owned() }).collect();
    if bodies.is_empty() {
        bail!("{name} holds no message: it takes one JSON object a line");
    }
    let blank = text.lines().count() - bodies.len();
    Ok(Bodies { bodies, blank })
}

fn line_of(bytes: &[u8], position: usize) -> usize {
    bytes[..position].iter().filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_lines_are_no_bodies_but_count_in_line_numbers() {
        let read = parse("f", "\u{feff}a\r\n \t\n\n{}".as_bytes()).unwrap();
        let lines: Vec<_> = read.bodies.iter().map(|body| (body.line, body.text.as_str())).collect();
        assert_eq!(lines, [(1, "a"), (4, "{}")]);
        assert_eq!(read.blank, 2);
    }

    #[test]
    fn what_is_not_utf8_is_refused_by_its_line_and_nothing_by_itself() {
        let fault = |bytes: &[u8]| parse("f", bytes).unwrap_err().to_string();
        assert_eq!(fault(b"a\nb\xff\n"), "f is not UTF-8: look at line 2");
        assert!(fault(b"\n \n").contains("f holds no message"));
    }
}
