//! From valid rows to masked ones: every personal value becomes a pseudonym or a remnant. The only place that knows the
//! masking keys, and the only one that can make [`Masked`].

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::array::{Array, Texts};
use super::contract::{Column, Contract, Mask};
use super::validate::Valid;
use super::value::{Type, Value};

/// Rows that may be stored: one array a column, in the contract's order.
///
/// **Invariant (Seal):** only [`Masking`] makes one, out of valid rows, and `write` takes nothing else. Anyone may look at one:
///
/// ```
/// use sqs_etl::pipeline::mask::Masked;
/// fn count(rows: &Masked) -> usize {
///     rows.len()
/// }
/// ```
///
/// but this does not compile:
///
/// ```compile_fail,E0451
/// use sqs_etl::pipeline::mask::Masked;
/// let unmasked = Masked { columns: vec![], ledger_keys: None, rows: 0 };
/// ```
///
/// Nor is there another way in, by a default or by a masker of one's own with a contract that masks nothing:
///
/// ```compile_fail,E0277
/// fn seal() -> sqs_etl::pipeline::mask::Masked {
///     Default::default()
/// }
/// ```
///
/// ```compile_fail,E0624
/// use sqs_etl::pipeline::{contract::Contract, mask::{Keys, Masker}};
/// let keys = Keys::from_secret("0123456789abcdef0123456789abcdef").unwrap();
/// let masker = Masker::new(&Contract::built_in(), &keys);
/// ```
///
/// ```compile_fail,E0616
/// let mut contract = sqs_etl::pipeline::contract::Contract::built_in();
/// contract.columns.clear();
/// ```
pub struct Masked {
    columns: Vec<Array>,
    ledger_keys: Option<Array>,
    rows: usize,
}

impl Masked {
    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The arrays in the order of the insert's parameters: the ledger's keys first, if there is one, then the columns.
    pub fn arrays(&self) -> impl Iterator<Item = &Array> {
        self.ledger_keys.iter().chain(&self.columns)
    }
}

/// **Invariant (Silence):** the size alone; masked values are still one person's.
impl fmt::Debug for Masked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Masked").field("rows", &self.rows).finish_non_exhaustive()
    }
}

/// The masking keys by id, and which of them makes new pseudonyms.
pub struct Keys {
    current: String,
    keys: BTreeMap<String, Vec<u8>>,
}

/// Why a masking secret holds no usable keys.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("the masking secret is shorter than {MIN_KEY_BYTES} characters: use a longer random string")]
    TooShort,
    #[error(
        "the masking secret is neither a random string nor JSON like {{\"current\":\"k1\",\"keys\":{{\"k1\":\"<base64>\"}}}} \
         (line {line}, column {column})"
    )]
    NotJson { line: usize, column: usize },
    #[error("the masking secret's \"current\" names no key under \"keys\"")]
    NoCurrent,
    #[error("key id number {position} of the masking secret is not 1 to {MAX_KEY_ID} letters, digits, `_` or `-`")]
    KeyId { position: usize },
    #[error("key {id} of the masking secret is not base64")]
    NotBase64 { id: String },
    #[error("key {id} of the masking secret has fewer than {MIN_KEY_BYTES} bytes")]
    ShortKey { id: String },
    #[error(
        "column {column} of the contract is too narrow for pseudonyms of key {id}: make it varchar({needed}) or wider"
    )]
    NarrowColumn { column: String, id: String, needed: usize },
}

/// A key of HMAC-SHA-256 should have at least the hash's 32 bytes (RFC 2104, section 3).
const MIN_KEY_BYTES: usize = 32;
const MAX_KEY_ID: usize = 32;
/// The id of a key that is given as a bare string.
const ONLY_KEY: &str = "k1";

impl Keys {
    /// Reads `{"current":"k2","keys":{"k1":"<base64>","k2":"<base64>"}}`, or takes a bare string's bytes as key `k1`.
    pub fn from_secret(secret: &str) -> Result<Self, KeyError> {
        if secret.trim_start().starts_with('{') {
            return Self::from_json(secret);
        }
        if secret.chars().count() < MIN_KEY_BYTES {
            return Err(KeyError::TooShort);
        }
        let keys = BTreeMap::from([(ONLY_KEY.to_owned(), secret.as_bytes().to_vec())]);
        Ok(Self { current: ONLY_KEY.to_owned(), keys })
    }

    fn from_json(secret: &str) -> Result<Self, KeyError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Secret {
            current: String,
            keys: BTreeMap<String, String>,
        }
        let secret: Secret =
            serde_json::from_str(secret).map_err(|e| KeyError::NotJson { line: e.line(), column: e.column() })?;
        let mut keys = BTreeMap::new();
        for (i, (id, encoded)) in secret.keys.into_iter().enumerate() {
            if !is_key_id(&id) {
                return Err(KeyError::KeyId { position: i + 1 });
            }
            let Ok(key) = BASE64.decode(encoded) else { return Err(KeyError::NotBase64 { id }) };
            if key.len() < MIN_KEY_BYTES {
                return Err(KeyError::ShortKey { id });
            }
            keys.insert(id, key);
        }
        if !keys.contains_key(&secret.current) {
            return Err(KeyError::NoCurrent);
        }
        Ok(Self { current: secret.current, keys })
    }

    fn current_key(&self) -> &[u8] {
        &self.keys[&self.current]
    }
}

fn is_key_id(id: &str) -> bool {
    (1..=MAX_KEY_ID).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// **Invariant (Silence):** the ids alone.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("current", &self.current).field("ids", &self.keys.keys()).finish()
    }
}

/// Masks rows of one contract with the current key.
pub struct Masker {
    columns: Vec<(Type, Method)>,
    has_ledger: bool,
}

/// A mask, ready to be used.
enum Method {
    /// Stored as it is: nothing personal.
    Clear,
    /// The key and the domain are in `state`; the prefix is the key id and a colon.
    Pseudonym {
        prefix: String,
        state: Box<Hmac<Sha256>>,
    },
    Hash,
    Redact,
    Network,
    Tail(usize),
}

/// What a redacted value is stored as.
pub const REDACTED: &str = "[redacted]";
/// What stands for the characters that `keep_last` drops, however many there were.
pub const DROPPED: &str = "***";

impl Masker {
    /// A masker for the contract's columns.
    ///
    /// **Invariant (Seal):** not public: a contract without masks would make rows in clear for the writer of another.
    ///
    /// # Errors
    /// [`KeyError::NarrowColumn`] if a pseudonym of the current key does not fit its column.
    pub(super) fn new(contract: &Contract, keys: &Keys) -> Result<Self, KeyError> {
        let columns =
            contract.columns.iter().map(|column| Ok((column.kind, method(column, keys)?))).collect::<Result<_, _>>()?;
        Ok(Self { columns, has_ledger: contract.ledger().is_some() })
    }

    /// The start of a batch of at most so many rows.
    pub(super) fn start(&self, rows: usize) -> Masking<'_> {
        let array = |(kind, method): &(Type, Method)| Array::with_room(*kind, rows, method.usual_length());
        let ledger_keys = self.has_ledger.then(|| Array::new(Type::Uuid, rows));
        let masked = Masked { columns: self.columns.iter().map(array).collect(), ledger_keys, rows: 0 };
        Masking { masker: self, masked }
    }
}

/// Rows that are being masked.
pub(super) struct Masking<'m> {
    masker: &'m Masker,
    masked: Masked,
}

impl Masking<'_> {
    /// Masks a row into the arrays.
    pub(super) fn push(&mut self, row: &Valid<'_>) {
        let Masked { columns, ledger_keys, rows } = &mut self.masked;
        for (((_, method), array), value) in self.masker.columns.iter().zip(columns).zip(&row.values) {
            method.push(value, array);
        }
        if let (Some(keys), Some(key)) = (ledger_keys, row.ledger_key) {
            keys.push(&Value::Uuid(key));
        }
        *rows += 1;
    }

    /// The rows so far.
    pub(super) fn finish(self) -> Masked {
        self.masked
    }
}

fn method(column: &Column, keys: &Keys) -> Result<Method, KeyError> {
    Ok(match &column.mask {
        None => Method::Clear,
        Some(Mask::HmacSha256 { domain }) => pseudonym(column, domain, keys)?,
        Some(Mask::Sha256) => Method::Hash,
        Some(Mask::Redact) => Method::Redact,
        Some(Mask::Truncate) => Method::Network,
        Some(Mask::KeepLast(count)) => Method::Tail(*count as usize),
    })
}

fn pseudonym(column: &Column, domain: &str, keys: &Keys) -> Result<Method, KeyError> {
    let prefix = format!("{}:", keys.current);
    if column.room_for_key_id().is_some_and(|room| (room as usize) < keys.current.len()) {
        let needed = prefix.len() + 2 * Sha256::output_size();
        return Err(KeyError::NarrowColumn { column: column.name.clone(), id: keys.current.clone(), needed });
    }
    let mut state = Hmac::<Sha256>::new_from_slice(keys.current_key()).expect("HMAC takes keys of any length");
    state.update(domain.as_bytes());
    state.update(&[0]);
    Ok(Method::Pseudonym { prefix, state: Box::new(state) })
}

/// Bytes of a SHA-256 in hexadecimal.
const HEX: usize = 64;

impl Method {
    /// Bytes of most of what comes out, for room to be made at once; a guess where a value stays as it is.
    fn usual_length(&self) -> usize {
        match self {
            Method::Clear | Method::Network | Method::Tail(_) => 16,
            Method::Pseudonym { prefix, .. } => prefix.len() + HEX,
            Method::Hash => HEX,
            Method::Redact => REDACTED.len(),
        }
    }

    /// Adds a value to its array, masked.
    fn push(&self, value: &Value<'_>, array: &mut Array) {
        match (self, value, array) {
            (Method::Clear, value, array) => array.push(value),
            (_, Value::Null, array) => array.push(&Value::Null),
            (method, Value::Text(text), Array::Text(texts)) => method.push_masked(text, texts),
            _ => unreachable!("a mask has text on both sides"),
        }
    }

    fn push_masked(&self, text: &str, texts: &mut Texts) {
        texts.push_with(|buffer| match self {
            Method::Clear => unreachable!("a value in clear is not masked"),
            Method::Pseudonym { prefix, state } => {
                let mut state = state.as_ref().clone();
                state.update(text.as_bytes());
                buffer.push_str(prefix);
                push_hex(&state.finalize().into_bytes(), buffer);
            }
            Method::Hash => push_hex(&Sha256::digest(text.as_bytes()), buffer),
            Method::Redact => buffer.push_str(REDACTED),
            Method::Network => push_network(text, buffer),
            Method::Tail(count) => push_tail(text, *count, buffer),
        });
    }
}

fn push_hex(bytes: &[u8], buffer: &mut String) {
    let mut digits = [0; HEX];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
        pair[0] = hex_digit(byte >> 4);
        pair[1] = hex_digit(byte & 15);
    }
    buffer.push_str(std::str::from_utf8(&digits).expect("hex digits are ASCII"));
}

/// Reckoned, not looked up, so that the compiler makes vectors of it.
fn hex_digit(digit: u8) -> u8 {
    digit + if digit < 10 { b'0' } else { b'a' - 10 }
}

/// The address's network, /24 of IPv4 and /48 of IPv6, in the notation that both `text` and `inet` take.
fn push_network(text: &str, buffer: &mut String) {
    let written = match text.parse() {
        Ok(IpAddr::V4(address)) => {
            let [a, b, c, _] = address.octets();
            write!(buffer, "{a}.{b}.{c}.0/24")
        }
        Ok(IpAddr::V6(address)) => {
            let [a, b, c, ..] = address.segments();
            write!(buffer, "{}/48", std::net::Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0))
        }
        // `canonical = "ip"` goes with this mask; should a text get here all the same, nothing of it is kept.
        Err(_) => write!(buffer, "{REDACTED}"),
    };
    written.expect("writing to a string does not fail");
}

/// `***` and the last characters. A text of which more than half would be shown keeps nothing.
fn push_tail(text: &str, count: usize, buffer: &mut String) {
    buffer.push_str(DROPPED);
    let length = text.chars().count();
    if length >= 2 * count {
        buffer.extend(text.chars().skip(length - count));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_secret(secret: &str, expected: Result<&str, KeyError>) {
        assert_eq!(Keys::from_secret(secret).map(|keys| keys.current).as_deref(), expected.as_ref().copied());
    }

    #[test]
    fn a_secret_is_a_long_string_or_keys_by_id() {
        let key = BASE64.encode([7; 32]);
        check_secret("0123456789abcdef0123456789abcdef", Ok("k1"));
        check_secret("short", Err(KeyError::TooShort));
        check_secret(&format!(r#"{{"current":"k2","keys":{{"k1":"{key}","k2":"{key}"}}}}"#), Ok("k2"));
        check_secret(&format!(r#"{{"current":"k3","keys":{{"k1":"{key}"}}}}"#), Err(KeyError::NoCurrent));
        check_secret(r#"{"current":"k1","keys":{"k1":"AAAA"}}"#, Err(KeyError::ShortKey { id: "k1".into() }));
        check_secret(r#"{"current":"k1","keys":{"k1":"!"}}"#, Err(KeyError::NotBase64 { id: "k1".into() }));
        check_secret(r#"{"current":"a:b","keys":{"a:b":"AAAA"}}"#, Err(KeyError::KeyId { position: 1 }));
        check_secret(r#"{"current":1}"#, Err(KeyError::NotJson { line: 1, column: 12 }));
    }

    fn masked(method: &Method, text: &str) -> String {
        let mut array = Array::new(Type::Text, 1);
        method.push(&Value::Text(text.into()), &mut array);
        let Array::Text(texts) = array else { panic!("a text array") };
        texts.get(0).unwrap().to_owned()
    }

    fn check(method: &Method, text: &str, expected: &str) {
        assert_eq!(masked(method, text), expected);
    }

    #[test]
    fn masks_keep_what_they_say_and_no_more() {
        check(&Method::Redact, "593-47-5928", "[redacted]");
        check(&Method::Network, "192.0.2.77", "192.0.2.0/24");
        check(&Method::Network, "2001:db8:1:2::3", "2001:db8:1::/48");
        check(&Method::Network, "nonsense", "[redacted]");
        check(&Method::Tail(4), "593-47-5928", "***5928");
        check(&Method::Tail(4), "1234567", "***");
        check(&Method::Tail(1), "é€", "***€");
        check(&Method::Hash, "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    /// The expected digits come from `printf 'ip\000192.0.2.1' | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef`.
    #[test]
    fn a_pseudonym_is_the_hmac_of_domain_and_value() {
        let contract = Contract::built_in();
        let keys = Keys::from_secret("0123456789abcdef0123456789abcdef").unwrap();
        let column = contract.columns.iter().find(|c| c.name == "masked_ip").unwrap();
        let method = method(column, &keys).unwrap();
        check(&method, "192.0.2.1", "k1:ac2addf57a1c68da5e252093014c5728c1b7c73ee63469213d8e6d8a2b63e5e2");
    }
}
