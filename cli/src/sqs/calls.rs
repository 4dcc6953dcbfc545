//! Many entries in calls of ten: several at once, each answer read, what was refused tried again, and nothing after the time is up.

use std::time::Duration;

use aws_sdk_sqs::types::BatchResultErrorEntry;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt, stream};
use tokio::time::{Instant, sleep, timeout_at};

use crate::backoff::Pause;

use super::{CALL, QueueError, Refused, refused};

/// Calls for the parts of one batch that are under way at once.
const AT_ONCE: usize = 8;
/// Between two tries at what was refused.
pub const PAUSE: Pause = Pause::new(Duration::from_millis(100), Duration::from_secs(2));

/// Ten at a time, several calls at once; what is refused is tried again with growing pauses until `until`, unless SQS says that it
/// is our fault, which no repetition mends. Tells what was not done.
pub async fn all<'c, F>(count: usize, until: Instant, call: F) -> Vec<Refused>
where
    F: Fn(Vec<usize>) -> BoxFuture<'c, Result<Answered, QueueError>>,
{
    let chunks: Vec<Vec<usize>> = (0..count).collect::<Vec<_>>().chunks(CALL).map(<[usize]>::to_vec).collect();
    let calls = chunks.into_iter().map(|places| one_call(places, until, &call));
    stream::iter(calls).buffer_unordered(AT_ONCE).concat().await
}

/// What an answer says of the entries of one call.
pub struct Answered {
    pub done: Vec<String>,
    pub failed: Vec<BatchResultErrorEntry>,
}

impl Answered {
    /// The places that were not done. One that the answer does not speak of was not done either.
    fn refused(&self, places: &[usize]) -> Vec<Refused> {
        let refused = places.iter().filter(|place| !self.done.contains(&place.to_string())).map(|&position| {
            let entry = self.failed.iter().find(|entry| entry.id() == position.to_string());
            entry.map_or(Refused::of_entry(position, "Unanswered", false), |entry| refused(entry, position))
        });
        refused.collect()
    }
}

async fn one_call<'c, F>(mut places: Vec<usize>, until: Instant, call: &F) -> Vec<Refused>
where
    F: Fn(Vec<usize>) -> BoxFuture<'c, Result<Answered, QueueError>>,
{
    let mut for_good = Vec::new();
    let mut pause = PAUSE;
    loop {
        let failed = match timeout_at(until, call(places.clone())).await {
            Ok(Ok(answered)) => answered.refused(&places),
            Ok(Err(error)) => places.iter().map(|&position| error.refusal(position)).collect(),
            Err(_) => places.iter().map(|&position| Refused::of_entry(position, "TimedOut", false)).collect(),
        };
        let (lasting, passing): (Vec<_>, Vec<_>) = failed.into_iter().partition(|refused| refused.is_lasting);
        for_good.extend(lasting);
        let pause = pause.next();
        if passing.is_empty() || Instant::now() + pause >= until {
            for_good.extend(passing);
            return for_good;
        }
        places = passing.iter().map(|refused| refused.position).collect();
        sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use futures_util::FutureExt;
    use futures_util::future::{pending, ready};

    use super::*;

    fn failed(place: usize, sender_fault: bool) -> BatchResultErrorEntry {
        let entry = BatchResultErrorEntry::builder().id(place.to_string()).code("Code").sender_fault(sender_fault);
        entry.build().unwrap()
    }

    fn answered(places: &[usize], failed: Vec<BatchResultErrorEntry>) -> Answered {
        let is_done = |place: &&usize| failed.iter().all(|entry| entry.id() != place.to_string());
        Answered { done: places.iter().filter(is_done).map(usize::to_string).collect(), failed }
    }

    #[test]
    fn an_entry_that_an_answer_does_not_speak_of_was_not_done() {
        let answered = Answered { done: vec!["7".into()], failed: vec![failed(8, true), failed(1_000, true)] };
        let expected = [Refused::of_entry(8, "Code", true), Refused::of_entry(9, "Unanswered", false)];
        assert_eq!(answered.refused(&[7, 8, 9]), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn what_an_answer_refuses_is_tried_again_and_what_is_our_fault_is_not() {
        let calls = RefCell::new(Vec::new());
        let call = |places: Vec<usize>| {
            calls.borrow_mut().push(places.clone());
            let is_first = calls.borrow().iter().filter(|call| call.contains(&3)).count() == 1;
            let refused = places.clone().into_iter().filter(|place| matches!(*place, 3 if is_first) || *place == 5);
            ready(Ok(answered(&places, refused.map(|place| failed(place, place == 5)).collect()))).boxed()
        };
        let left = all(12, Instant::now() + Duration::from_secs(60), call).await;
        assert_eq!(left.iter().map(|refused| refused.position).collect::<Vec<_>>(), [5]);
        let mut calls = calls.into_inner();
        calls.sort();
        assert_eq!(calls, [(0..10).collect::<Vec<_>>(), vec![3], vec![10, 11]]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_until_the_time_is_up_is_told() {
        let call = |places: Vec<usize>| {
            let failed = places.iter().map(|&place| failed(place, false)).collect();
            ready(Ok(answered(&places, failed))).boxed()
        };
        let started = Instant::now();
        let left = all(2, started + Duration::from_secs(5), call).await;
        assert_eq!(left.len(), 2);
        assert!(started.elapsed() <= Duration::from_secs(5), "{:?}", started.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_never_answered_is_given_up_when_the_time_is_up() {
        let started = Instant::now();
        let left = all(100, started + Duration::from_secs(5), |_| pending().boxed()).await;
        assert_eq!((left.len(), started.elapsed()), (100, Duration::from_secs(5)));
    }
}
