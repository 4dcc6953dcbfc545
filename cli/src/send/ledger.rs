//! What became of each message that was to be sent, and how it is told: by lines of the file.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::sqs::outgoing::Delivered;
use crate::words::{counted, number};

/// Runs of lines that are told of one kind.
const RUNS_TOLD: usize = 50;

/// The messages in the file's order.
pub struct Ledger {
    states: Vec<State>,
    sent: usize,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    /// Nothing was heard of it yet.
    Open,
    Sent,
    /// With SQS's code.
    Refused(String),
    /// It was under way, and the answer is missing.
    Unknown,
    /// SQS knows nothing of it.
    Unsent,
}

impl Ledger {
    pub fn new(count: usize) -> Self {
        Self { states: vec![State::Open; count], sent: 0 }
    }

    /// Takes down what became of one call's messages.
    pub fn note(&mut self, call: Range<usize>, delivered: &Delivered) {
        let states = &mut self.states[call];
        states.fill(State::Unsent);
        for refused in &delivered.refused {
            states[refused.position] = State::Refused(refused.code.clone());
        }
        for &position in &delivered.perhaps {
            states[position] = State::Unknown;
        }
        for taken in &delivered.taken {
            states[taken.position] = State::Sent;
        }
        self.sent += delivered.taken.len();
    }

    /// Nothing more will be heard; the first `started` were tried.
    pub fn close(&mut self, started: usize) {
        for (position, state) in self.states.iter_mut().enumerate().filter(|(_, state)| **state == State::Open) {
            *state = if position < started { State::Unknown } else { State::Unsent };
        }
    }

    pub fn sent(&self) -> usize {
        self.sent
    }

    /// One sentence a reason for those that were not sent; `lines` has each message's line.
    pub fn left(&self, lines: &[usize]) -> Vec<String> {
        let mut runs: BTreeMap<&State, Vec<(usize, usize)>> = BTreeMap::new();
        let mut earlier = None;
        for (state, &line) in self.states.iter().zip(lines) {
            let runs = runs.entry(state).or_default();
            match runs.last_mut() {
                Some((_, end)) if earlier == Some(state) => *end = line,
                _ => runs.push((line, line)),
            }
            earlier = Some(state);
        }
        runs.into_iter().filter_map(|(state, runs)| Some(format!("{}: {}", words(state)?, told(&runs)))).collect()
    }
}

fn words(state: &State) -> Option<String> {
    match state {
        State::Open | State::Sent => None,
        State::Refused(code) => Some(format!("not sent, SQS says {code}")),
        State::Unknown => Some("perhaps sent, the answer is missing".to_owned()),
        State::Unsent => Some("not sent".to_owned()),
    }
}

/// `line 3`; `lines 1 to 10, 13`. Blank lines may lie within.
fn told(runs: &[(usize, usize)]) -> String {
    let run = |&(first, last): &(usize, usize)| match first == last {
        true => number(first),
        false => format!("{} to {}", number(first), number(last)),
    };
    let noun = if let [(first, last)] = runs
        && first == last
    {
        "line"
    } else {
        "lines"
    };
    let told: Vec<_> = runs.iter().take(RUNS_TOLD).map(run).collect();
    let more = runs.len().saturating_sub(RUNS_TOLD);
    let rest = if more > 0 { format!(", and {} more", counted(more, "place")) } else { String::new() };
    format!("{noun} {}{rest}", told.join(", "))
}

#[cfg(test)]
mod tests {
    use crate::sqs::{Refused, Taken};

    use super::*;

    fn delivered(taken: &[usize], refused: &[usize], perhaps: &[usize]) -> Delivered {
        let taken = taken.iter().map(|&position| Taken { position, message_id: String::new() });
        let code = || "Code".to_owned();
        let refused = refused.iter().map(|&position| Refused::of_entry(position, &code(), true));
        let perhaps = perhaps.iter().copied().collect();
        Delivered { taken: taken.collect(), refused: refused.collect(), perhaps, error: None }
    }

    #[test]
    fn each_line_is_told_by_what_became_of_it() {
        let lines: Vec<_> = (1..=3).chain(5..=12).collect();
        let mut ledger = Ledger::new(lines.len());
        ledger.note(0..3, &delivered(&[1, 2], &[0], &[]));
        ledger.note(5..7, &delivered(&[0], &[], &[1]));
        ledger.note(7..9, &delivered(&[], &[1], &[]));
        ledger.close(10);
        assert_eq!(ledger.sent(), 3);
        let expected = [
            "not sent, SQS says Code: lines 1, 10",
            "perhaps sent, the answer is missing: lines 5 to 6, 8, 11",
            "not sent: lines 9, 12",
        ];
        assert_eq!(ledger.left(&lines), expected);
    }

    #[test]
    fn a_call_that_was_refused_as_a_whole_was_not_sent() {
        let mut ledger = Ledger::new(2);
        ledger.note(0..2, &delivered(&[], &[], &[]));
        assert_eq!(ledger.left(&[1, 2]), ["not sent: lines 1 to 2"]);
    }

    #[test]
    fn what_may_be_in_the_queue_is_told_as_that_also_if_a_later_attempt_was_refused() {
        let mut ledger = Ledger::new(2);
        ledger.note(0..2, &delivered(&[], &[1], &[0, 1]));
        assert_eq!(ledger.left(&[1, 2]), ["perhaps sent, the answer is missing: lines 1 to 2"]);
    }

    #[test]
    fn a_long_list_is_cut_short() {
        let mut ledger = Ledger::new(103);
        for position in (0..103).step_by(2) {
            ledger.note(position..position + 1, &delivered(&[0], &[], &[]));
        }
        ledger.close(0);
        let lines: Vec<_> = (1..=103).collect();
        let left = ledger.left(&lines);
        assert!(left[0].ends_with("100, and 1 place more"), "{left:?}");
    }
}
