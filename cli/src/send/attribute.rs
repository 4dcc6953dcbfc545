//! `--attribute NAME=VALUE` and `--group ID`, as SQS has them: its developer guide's quotas and the rules for attributes.

use std::str::FromStr;

use aws_sdk_sqs::types::MessageAttributeValue;

use crate::sqs::outgoing::is_allowed;

/// As many attributes as a message may have.
const MOST: usize = 10;
const LONGEST_NAME: usize = 256;
const LONGEST_GROUP: usize = 128;
const RESERVED: [&str; 2] = ["aws.", "amazon."];

/// A message attribute of type String.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    name: String,
    value: String,
}

impl Attribute {
    /// As the SDK takes it.
    pub fn pair(&self) -> (String, MessageAttributeValue) {
        let value = MessageAttributeValue::builder().data_type("String").string_value(&self.value);
        (self.name.clone(), value.build().expect("the type is there"))
    }
}

impl FromStr for Attribute {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = text.split_once('=').ok_or("it is NAME=VALUE")?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(is_name) {
            return Err("a name has 1 to 256 letters, digits, `_`, `-` and `.`");
        }
        if name.starts_with('.') || name.ends_with('.') || name.contains("..") {
            return Err("a name neither begins nor ends with a full stop, and has no two in a row");
        }
        if RESERVED.iter().any(|start| name.to_ascii_lowercase().starts_with(start)) {
            return Err("names that begin with AWS. or Amazon. are SQS's own");
        }
        if value.is_empty() || !value.chars().all(is_allowed) {
            return Err("a value is not empty and has no control characters");
        }
        Ok(Self { name: name.to_owned(), value: value.to_owned() })
    }
}

/// An error if SQS would not take these together.
pub fn check(attributes: &[Attribute]) -> Result<(), String> {
    if attributes.len() > MOST {
        return Err(format!("a message has {MOST} attributes at most"));
    }
    let is_double = |i: usize| attributes[..i].iter().any(|earlier| earlier.name == attributes[i].name);
    match (0..attributes.len()).find(|i| is_double(*i)) {
        Some(i) => Err(format!("attribute {} is there twice", attributes[i].name)),
        None => Ok(()),
    }
}

/// A message group's id.
pub fn group(text: &str) -> Result<String, &'static str> {
    if (1..=LONGEST_GROUP).contains(&text.len()) && text.chars().all(|c| c.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err("a group has 1 to 128 letters, digits and punctuation marks, and no space")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_is_what_sqs_takes() {
        let attribute = |name: &str, value: &str| Attribute { name: name.to_owned(), value: value.to_owned() };
        assert_eq!("tenant=a=b".parse(), Ok(attribute("tenant", "a=b")));
        assert_eq!("a.b-C_1=x y".parse(), Ok(attribute("a.b-C_1", "x y")));
        for (text, words) in [
            ("tenant", "NAME=VALUE"),
            ("=x", "1 to 256"),
            ("a b=x", "1 to 256"),
            (".a=x", "full stop"),
            ("a..b=x", "full stop"),
            ("aWs.a=x", "SQS's own"),
            ("a=", "not empty"),
            ("a=\u{1}", "control"),
        ] {
            assert!(text.parse::<Attribute>().unwrap_err().contains(words), "{text:?}");
        }
    }

    #[test]
    fn attributes_are_ten_at_most_and_none_twice() {
        let many = |count: usize| (0..count).map(|i| format!("a{i}=x").parse().unwrap()).collect::<Vec<_>>();
        assert_eq!(check(&many(10)), Ok(()));
        assert!(check(&many(11)).unwrap_err().contains("10"));
        assert!(check(&[many(1), many(1)].concat()).unwrap_err().contains("a0"));
    }

    #[test]
    fn a_group_has_no_space() {
        assert!(group("shop-1!~").is_ok());
        for text in ["", "a b", "ä", &"x".repeat(129)] {
            assert!(group(text).is_err(), "{text:?}");
        }
    }
}
