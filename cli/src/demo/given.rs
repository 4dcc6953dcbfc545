//! Messages from a file, sent as they stand. Whether a body is any good is for the function to say.

use std::path::Path;

use anyhow::Result;
use uuid::Uuid;

use crate::bodies::{self, Body};

use super::plan::{Origin, Plan, Planned};

/// The namespace of the message ids that follow from line number and body.
const NAMESPACE: Uuid = Uuid::from_u128(0x6b0f_5c37_1d0e_4f6f_9d55_2f1a_c6f4_8d21);

/// The messages of the file, or of stdin if it is called `-`. A key is made up for this run: with a key that everybody
/// knows, pseudonyms of real messages could be undone.
///
/// # Errors
/// If the file cannot be read, is not UTF-8 or holds no message.
pub fn plan(file: &Path) -> Result<Plan> {
    let given = bodies::read(file)?;
    let messages: Vec<_> = given.bodies.into_iter().map(message).collect();
    Ok(Plan {
        order: (0..messages.len()).collect(),
        messages,
        origin: Origin::File { blank: given.blank },
        masking_key: format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple()),
        lose_an_answer: false,
        spelled: None,
    })
}

fn message(Body { line: place, text: body }: Body) -> Planned {
    let id = Uuid::new_v5(&NAMESPACE, format!("{place}:{body}").as_bytes()).to_string();
    Planned { id, body, place }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_line_at_the_same_place_has_the_same_id_and_at_another_place_another_one() {
        let id = |line, text: &str| message(Body { line, text: text.to_owned() }).id;
        assert_eq!(id(1, "{}"), id(1, "{}"));
        assert_ne!(id(1, "{}"), id(2, "{}"));
        assert_ne!(id(1, "{}"), id(1, "{ }"));
    }
}
