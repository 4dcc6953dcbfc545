//! A message as it came off a queue, and the batch it came with. Nothing here knows what a body says.

use std::borrow::Cow;
use std::fmt;

/// The messages of one event or one receive, in the queue's order.
#[derive(Debug)]
pub struct Batch<'a> {
    pub messages: Vec<Message<'a>>,
    /// Whether the order within a message group must be kept (a FIFO queue).
    pub ordered: bool,
}

/// One message of a queue.
pub struct Message<'a> {
    /// What the queue calls the message; the same at every redelivery. Never empty.
    pub id: Cow<'a, str>,
    pub body: Option<Cow<'a, str>>,
    /// When it was sent, in milliseconds since 1970-01-01T00:00:00Z.
    pub sent_at: Option<i64>,
    pub group: Option<Cow<'a, str>>,
    /// How often the queue has handed it out, this time included.
    pub receive_count: Option<i64>,
    /// The message attributes that have a string value.
    pub attributes: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl Message<'_> {
    /// The string value of a message attribute.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_ref())
    }
}

/// **Invariant (Silence):** the id alone; body, group and attributes are the sender's words.
impl fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message").field("id", &self.id).finish_non_exhaustive()
    }
}
