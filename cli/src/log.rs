//! Log lines for a person: what the library writes as JSON, as text.

use std::io::{IsTerminal, Write, stderr, stdout};

use serde_json::{Map, Value};

/// Whether a person reads the log: programs get JSON lines.
pub fn for_a_person() -> bool {
    stdout().is_terminal()
}

/// Writes lines of JSON as text to stderr, over the live line of progress, if there is one.
pub fn to_a_person(lines: &[u8]) {
    let clear = if stderr().is_terminal() { "\r\x1b[K" } else { "" };
    let mut stderr = stderr().lock();
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        // Nobody misses the log who closed stderr.
        let _ = match serde_json::from_slice(line) {
            Ok(line) => writeln!(stderr, "{clear}{}", text(&line)),
            Err(_) => stderr.write_all(line),
        };
    }
}

/// Level, message, and the fields that are not about the log itself.
fn text(line: &Map<String, Value>) -> String {
    let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let said = |name: &str| line.get(name).map(word).unwrap_or_default();
    let fields = line.iter().filter(|(name, _)| !["timestamp", "level", "message", "target"].contains(&name.as_str()));
    let fields: Vec<_> = fields.map(|(name, value)| format!("{name}={}", word(value))).collect();
    format!("{:>10}  {}  {}", said("level").to_lowercase(), said("message"), fields.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_json_is_level_message_and_fields() {
        let line =
            r#"{"timestamp":"t","level":"WARN","message":"message handed back","target":"x","n":3,"reason":"nul"}"#;
        assert_eq!(text(&serde_json::from_str(line).unwrap()), "      warn  message handed back  n=3 reason=nul");
    }
}
