//! A quick reader of JSON as machines write it, for the two texts that are read for every message: event and body.
//!
//! It knows no errors: whatever is wrong or unusual makes it give up with `None`, and the caller has serde_json read the
//! same text from its start. **Invariant:** what it does accept, serde_json accepts, with the same meaning; properties of
//! its callers hold that.

use memchr::memchr2;
use serde::de::IgnoredAny;

/// A place in a JSON text.
pub struct Scan<'a> {
    text: &'a str,
    at: usize,
    /// Whether there are control characters: none in what machines write densely, line breaks elsewhere. In strings they
    /// are forbidden.
    has_controls: bool,
}

/// What a value starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    String,
    Object,
    Array,
    Number,
    True,
    False,
    Null,
}

impl<'a> Scan<'a> {
    /// The start of a text.
    pub fn new(text: &'a str) -> Self {
        // The least of all bytes, rather than any below: the compiler makes vectors of it.
        let least = text.bytes().fold(u8::MAX, u8::min);
        Self { text, at: 0, has_controls: is_control(least) }
    }

    /// Steps over white space and this byte, if it comes next.
    #[inline]
    pub fn take(&mut self, byte: u8) -> bool {
        let is_here = self.text.as_bytes().get(self.at) == Some(&byte);
        let is_next = is_here || self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    /// Steps over white space and gives the byte behind it, unless JSON has no such byte there.
    #[inline]
    fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = *self.text.as_bytes().get(self.at)?;
            if byte > b' ' {
                return Some(byte);
            }
            if !matches!(byte, b' ' | b'\n' | b'\t' | b'\r') {
                return None;
            }
            self.at += 1;
        }
    }

    /// Whether nothing but white space is left.
    pub fn is_at_end(&mut self) -> bool {
        self.peek().is_none() && self.at == self.text.len()
    }

    /// Which value comes next.
    #[inline]
    pub fn start(&mut self) -> Option<Start> {
        Some(match self.peek()? {
            b'"' => Start::String,
            b'{' => Start::Object,
            b'[' => Start::Array,
            b'-' | b'0'..=b'9' => Start::Number,
            b't' => Start::True,
            b'f' => Start::False,
            b'n' => Start::Null,
            _ => return None,
        })
    }

    /// Steps to the next name of an object and over its colon. `Some(None)` behind the last one. `is_first` is for the
    /// brace or comma before it, and is kept here.
    #[inline]
    pub fn name(&mut self, is_first: &mut bool) -> Option<Option<&'a str>> {
        if std::mem::take(is_first) {
            if !self.take(b'{') {
                return None;
            }
            if self.take(b'}') {
                return Some(None);
            }
        } else if !self.take(b',') {
            return self.take(b'}').then_some(None);
        }
        let name = self.plain()?;
        self.take(b':').then_some(Some(name))
    }

    /// A string without escapes.
    #[inline]
    pub fn plain(&mut self) -> Option<&'a str> {
        if !self.take(b'"') {
            return None;
        }
        let start = self.at;
        let end = self.stop(start)?;
        self.at = end + 1;
        (self.text.as_bytes()[end] == b'"').then(|| &self.text[start..end])
    }

    /// A string; if it has escapes, its text is added to `out`, whose bytes from `from` on are free and may be changed.
    pub fn string(&mut self, out: &mut Buffer) -> Option<Unescaped<'a>> {
        if !self.take(b'"') {
            return None;
        }
        let bytes = self.text.as_bytes();
        let start = self.at;
        let end = self.stop(start)?;
        match bytes[end] {
            b'"' => {
                self.at = end + 1;
                Some(Unescaped::Borrowed(&self.text[start..end]))
            }
            b'\\' => {
                let from = out.len;
                self.at = out.unescape(bytes, start)?;
                Some(Unescaped::Buffered { start: from, end: out.len })
            }
            _ => None,
        }
    }

    /// The first place from `from` on where a string ends or has an escape; `None` if there is none, or what must not be
    /// in a string is before it.
    #[inline]
    fn stop(&self, from: usize) -> Option<usize> {
        let rest = &self.text.as_bytes()[from..];
        let length = memchr2(b'"', b'\\', rest)?;
        let is_fine = !(self.has_controls && rest[..length].iter().any(|byte| is_control(*byte)));
        is_fine.then_some(from + length)
    }

    /// Steps over a word whose first letter was seen: `true`, `false`, `null`.
    pub fn word(&mut self, word: &str) -> Option<()> {
        self.text.as_bytes()[self.at..].starts_with(word.as_bytes()).then(|| self.at += word.len())
    }

    /// A number by JSON's grammar.
    pub fn number(&mut self) -> Option<&'a str> {
        let start = self.at;
        let bytes = self.text.as_bytes();
        let digits = |at: usize| bytes[at..].iter().take_while(|b| b.is_ascii_digit()).count();
        let mut at = start + usize::from(bytes.get(start) == Some(&b'-'));
        let whole = digits(at);
        if whole == 0 || (whole > 1 && bytes[at] == b'0') {
            return None;
        }
        at += whole;
        if bytes.get(at) == Some(&b'.') {
            let fraction = digits(at + 1);
            if fraction == 0 {
                return None;
            }
            at += 1 + fraction;
        }
        if matches!(bytes.get(at), Some(b'e' | b'E')) {
            at += 1 + usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
            let exponent = digits(at);
            if exponent == 0 {
                return None;
            }
            at += exponent;
        }
        self.at = at;
        Some(&self.text[start..at])
    }

    /// The own text of any value, which serde_json has found to be JSON where it is not plain to see.
    pub fn value(&mut self) -> Option<&'a str> {
        let kind = self.start()?;
        let start = self.at;
        match kind {
            Start::String => self.skip_string()?,
            Start::True => self.word("true")?,
            Start::False => self.word("false")?,
            Start::Null => self.word("null")?,
            Start::Number => return self.number(),
            Start::Object | Start::Array => {
                self.skip_nested()?;
                serde_json::from_str::<IgnoredAny>(&self.text[start..self.at]).ok()?;
            }
        }
        Some(&self.text[start..self.at])
    }

    fn skip_string(&mut self) -> Option<()> {
        let bytes = self.text.as_bytes();
        self.at += 1;
        loop {
            self.at = self.stop(self.at)?;
            match bytes[self.at] {
                b'"' => {
                    self.at += 1;
                    return Some(());
                }
                b'\\' => match bytes.get(self.at + 1)? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 2,
                    _ => return None,
                },
                _ => return None,
            }
        }
    }

    /// To behind the bracket that closes the one here, if the brackets are in order; the rest is not looked at.
    fn skip_nested(&mut self) -> Option<()> {
        let mut open = 0_usize;
        loop {
            match self.text.as_bytes().get(self.at)? {
                b'"' => {
                    self.skip_string()?;
                    continue;
                }
                b'{' | b'[' => open += 1,
                b'}' | b']' => open -= 1,
                _ => {}
            }
            self.at += 1;
            if open == 0 {
                return Some(());
            }
        }
    }
}

/// A string of a text: a part of it, or, if it has escapes, a part of a [`Buffer`].
#[derive(Clone, Copy)]
pub enum Unescaped<'a> {
    Borrowed(&'a str),
    /// From and to which byte of the buffer's text.
    Buffered {
        start: usize,
        end: usize,
    },
}

/// Unescaped strings end to end.
pub struct Buffer {
    bytes: Vec<u8>,
    len: usize,
}

/// How many bytes are looked at in one step.
const WORD: usize = size_of::<u64>();

impl Buffer {
    /// A buffer with room for that many bytes; it grows if need be.
    pub fn with_room(bytes: usize) -> Self {
        Self { bytes: vec![0; bytes.max(WORD)], len: 0 }
    }

    /// All its strings in one; `None` if they are not UTF-8, which cannot be.
    pub fn into_text(self) -> Option<String> {
        let Self { mut bytes, len } = self;
        bytes.truncate(len);
        String::from_utf8(bytes).ok()
    }

    /// Adds the string whose text starts at `from` and gives the place behind its closing quote.
    fn unescape(&mut self, text: &[u8], from: usize) -> Option<usize> {
        let mut at = from;
        loop {
            let Some(&word) = text.get(at..)?.first_chunk::<WORD>() else { return self.unescape_end(text, at) };
            let found = first_special(u64::from_le_bytes(word));
            let room = self.room();
            room.copy_from_slice(&word);
            if found == WORD {
                self.len += WORD;
                at += WORD;
                continue;
            }
            match word[found] {
                b'"' => {
                    self.len += found;
                    return Some(at + found + 1);
                }
                b'\\' => {
                    room[found] = escaped(*text.get(at + found + 1)?)?;
                    self.len += found + 1;
                    at += found + 2;
                }
                _ => return None,
            }
        }
    }

    /// The same for the last bytes of a text.
    fn unescape_end(&mut self, text: &[u8], from: usize) -> Option<usize> {
        let mut at = from;
        loop {
            match *text.get(at)? {
                b'"' => return Some(at + 1),
                b'\\' => {
                    self.push(escaped(*text.get(at + 1)?)?);
                    at += 2;
                }
                0..0x20 => return None,
                byte => {
                    self.push(byte);
                    at += 1;
                }
            }
        }
    }

    fn push(&mut self, byte: u8) {
        self.room()[0] = byte;
        self.len += 1;
    }

    /// The next word of free bytes.
    #[inline]
    fn room(&mut self) -> &mut [u8; WORD] {
        if self.bytes.len() < self.len + WORD {
            self.bytes.resize(2 * self.bytes.len() + WORD, 0);
        }
        self.bytes[self.len..].first_chunk_mut().expect("there is room for a word")
    }
}

/// What a backslash and this letter stand for; not `u`, which is rare.
fn escaped(letter: u8) -> Option<u8> {
    Some(match letter {
        b'"' | b'\\' | b'/' => letter,
        b'n' => b'\n',
        b't' => b'\t',
        b'r' => b'\r',
        b'b' => 0x08,
        b'f' => 0x0c,
        _ => return None,
    })
}

fn is_control(byte: u8) -> bool {
    byte < 0x20
}

/// How many bytes of a word are not special before the first that is: a subtraction that borrows marks a byte (Mycroft's
/// way, as in serde_json). Marks above the first may be wrong.
fn first_special(word: u64) -> usize {
    const ONES: u64 = u64::MAX / 0xff;
    const TOPS: u64 = ONES << 7;
    let below = |word: u64, limit: u8| word.wrapping_sub(ONES * u64::from(limit)) & !word;
    let equals = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    let marks = (below(word, 0x20) | equals(b'"') | equals(b'\\')) & TOPS;
    (marks.trailing_zeros() / u8::BITS) as usize
}
