//! What shall be sent, and what the audience may be told of it. Not what becomes of it.

use std::collections::HashSet;

/// All messages, and in which order they are sent.
pub struct Plan {
    pub messages: Vec<Planned>,
    /// Positions in `messages`. One that is there twice is sent twice with the same id, as SQS may do.
    pub order: Vec<usize>,
    pub origin: Origin,
    pub masking_key: String,
    /// Once the function is killed between its commit and its answer.
    pub lose_an_answer: bool,
    pub spelled: Option<Spelled>,
}

/// One message.
pub struct Planned {
    pub id: String,
    pub body: String,
    /// Its line in the file, or its number among those made up; from 1.
    pub place: usize,
}

/// Where the messages come from.
pub enum Origin {
    Invented,
    File {
        /// How many lines were skipped because they were blank.
        blank: usize,
    },
}

/// One IP address that clients spelled in several ways.
pub struct Spelled {
    /// In how many.
    pub ways: usize,
    /// Ids of the messages that bear it.
    pub ids: Vec<String>,
}

impl Plan {
    /// Positions of the messages that are sent once more.
    pub fn duplicates(&self) -> Vec<usize> {
        let mut seen = HashSet::new();
        self.order.iter().copied().filter(|position| !seen.insert(*position)).collect()
    }
}
