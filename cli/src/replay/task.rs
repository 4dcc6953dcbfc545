//! SQS's own way to move a dead-letter queue back: a task that it works on by itself, and that is asked how far it is.

use std::cell::Cell;
use std::time::Duration;

use anyhow::{Error, Result, anyhow, bail};
use aws_sdk_sqs::types::ListMessageMoveTasksResultEntry as Entry;
use tokio::time::{Instant, sleep};

use crate::interrupt::Interrupt;
use crate::sqs::{Queue, QueueError};
use crate::terminal::Progress;
use crate::words::{counted, number};

use super::Moved;
use super::route::Route;

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a new task may take to be listed, one that is called off to end, and SQS to answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the count of a task that has ended may take to be complete.
const LAG: Duration = Duration::from_secs(5);
/// As many as SQS lists.
const LISTED: i32 = 10;

/// A task that was started here.
pub struct Task<'a> {
    queue: &'a Queue,
    arn: &'a str,
    handle: String,
    /// When the latest task before it was started.
    earlier: Option<i64>,
    /// When it was started, once that is listed.
    started: Cell<Option<i64>>,
}

/// Where a task stands. Messages are counted as SQS counts them, approximately.
#[derive(Debug, PartialEq, Eq)]
enum Stage {
    /// Ours is not listed yet.
    Unlisted,
    /// With a status that is none of those that SQS's reference has.
    Unclear,
    Running {
        moved: usize,
        all: Option<usize>,
    },
    Completed {
        moved: usize,
        all: Option<usize>,
    },
    Cancelled {
        moved: usize,
    },
    Failed {
        moved: usize,
        /// SQS's code.
        code: String,
    },
}

/// What became of our wish to call the task off.
enum CallOff {
    Unasked,
    Refused(QueueError),
    Taken,
}

/// Starts a task, or tells that the server knows no such thing.
///
/// # Errors
/// If SQS refuses it, or one is under way already.
pub async fn start<'a>(queue: &'a Queue, route: &'a Route, rate: Option<usize>) -> Result<Option<Task<'a>>> {
    let arn = route.source_arn.as_str();
    let earlier = match list(queue, arn).await {
        Ok(earlier) => earlier,
        Err(error) if error.is_unknown_call() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if let Some(moved) = earlier.iter().find_map(running) {
        let (name, moved) = (queue.name(), counted(moved, "message"));
        bail!(
            "a move of {name} is under way already, {moved} so far: wait for it, or `aws sqs cancel-message-move-task`"
        );
    }
    let request = queue.client().start_message_move_task().source_arn(arn);
    let request = request.set_destination_arn(route.to_arn().map(str::to_owned));
    let request = request.set_max_number_of_messages_per_second(rate.map(|rate| rate as i32));
    match request.send().await.map_err(|error| QueueError::of("start moving the messages", &error)) {
        Ok(answer) => {
            let handle = answer.task_handle.unwrap_or_default();
            let earlier = earlier.iter().map(|entry| entry.started_timestamp).max();
            Ok(Some(Task { queue, arn, handle, earlier, started: Cell::new(None) }))
        }
        Err(error) if error.is_unknown_call() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Task<'_> {
    /// Watches it to its end; calls it off when we are asked to stop. SQS works on it whether we can watch or not, so an
    /// error that may pass is put up with.
    pub async fn follow(&self, interrupt: &Interrupt) -> Result<Moved> {
        let mut progress = Progress::new();
        let mut patience = Instant::now() + PATIENCE;
        let mut call_off = CallOff::Unasked;
        loop {
            let looked = self.stage().await;
            match &looked {
                Ok(Stage::Running { moved, all }) => {
                    show(&mut progress, *moved, *all);
                    if !interrupt.is_raised() {
                        patience = Instant::now() + PATIENCE;
                    }
                }
                Ok(Stage::Unlisted | Stage::Unclear) | Err(_) => {}
                Ok(ended) => {
                    drop(progress);
                    return self.ended(ended, &call_off, interrupt).await;
                }
            }
            if let Some(error) = self.out_of_sight(&looked, &call_off, Instant::now() > patience) {
                return Err(error);
            }
            let may_be_running = matches!(looked, Ok(Stage::Running { .. }) | Err(_));
            if interrupt.is_raised() && may_be_running && !matches!(call_off, CallOff::Taken) {
                patience = if matches!(call_off, CallOff::Unasked) { Instant::now() + PATIENCE } else { patience };
                call_off = self.call_off().await;
            }
            tokio::select! {
                () = sleep(LOOK_EVERY) => {}
                () = interrupt.raised(), if !interrupt.is_raised() => {}
            }
        }
    }

    /// Why there is no use in watching any longer, if so.
    fn out_of_sight(&self, looked: &Result<Stage, QueueError>, call_off: &CallOff, is_late: bool) -> Option<Error> {
        let error = match (looked, call_off) {
            (Err(error), _) | (Ok(Stage::Running { .. }), CallOff::Refused(error)) => Some(error),
            _ => None,
        };
        let how_to_look = format!("`aws sqs list-message-move-tasks --source-arn {}`", self.arn);
        match error {
            // Of a task that has just ended; that it has may be listed a little later.
            Some(error) if error.short_code() == "ResourceNotFoundException" && !is_late => None,
            Some(error) if error.is_lasting || is_late => {
                Some(anyhow!("{error}; SQS goes on moving, and tells how far it is: {how_to_look}"))
            }
            None if is_late => Some(anyhow!("SQS does not tell what became of the move; ask it: {how_to_look}")),
            _ => None,
        }
    }

    async fn ended(&self, stage: &Stage, call_off: &CallOff, interrupt: &Interrupt) -> Result<Moved> {
        let moved = |count, is_interrupted| Moved { count, is_about: true, failed: 0, is_interrupted };
        match stage {
            Stage::Completed { moved: count, all } => Ok(moved(self.settled(*count, *all, interrupt).await, false)),
            // An answer to our request may have been lost, and the request heard.
            Stage::Cancelled { moved: count } if !matches!(call_off, CallOff::Unasked) => Ok(moved(*count, true)),
            Stage::Cancelled { moved: count } => {
                bail!("somebody called the move off after about {}", counted(*count, "message"));
            }
            Stage::Failed { moved: count, code } => {
                bail!("SQS gave the move up after about {}: {code}{}", counted(*count, "message"), hint(code));
            }
            Stage::Unlisted | Stage::Unclear | Stage::Running { .. } => bail!("the move has not ended"),
        }
    }

    /// The count of a task that has ended, which SQS may still be adding to.
    async fn settled(&self, mut moved: usize, all: Option<usize>, interrupt: &Interrupt) -> usize {
        let until = Instant::now() + LAG;
        while all.is_some_and(|all| moved < all) && Instant::now() < until && !interrupt.is_raised() {
            sleep(LOOK_EVERY).await;
            if let Ok(Stage::Completed { moved: now, .. }) = self.stage().await {
                moved = moved.max(now);
            }
        }
        moved
    }

    async fn stage(&self) -> Result<Stage, QueueError> {
        let entries = list(self.queue, self.arn).await?;
        Ok(self.find(&entries).map_or(Stage::Unlisted, stage))
    }

    /// Our entry. SQS lists the handle of a task that runs only; afterwards its time tells it from others.
    fn find<'e>(&self, entries: &'e [Entry]) -> Option<&'e Entry> {
        let ours = match self.started.get() {
            Some(started) => entries.iter().find(|entry| entry.started_timestamp == started),
            None => {
                let by_handle = entries.iter().find(|entry| entry.task_handle() == Some(&self.handle));
                by_handle.or_else(|| self.first_behind(entries))
            }
        };
        self.started.set(ours.map(|entry| entry.started_timestamp).or(self.started.get()));
        ours
    }

    /// One that ended before we saw it run: there is one at a time, so it is the first behind those that were there.
    fn first_behind<'e>(&self, entries: &'e [Entry]) -> Option<&'e Entry> {
        let is_new = |entry: &&Entry| Some(entry.started_timestamp) > self.earlier && entry.task_handle().is_none();
        entries.iter().filter(is_new).min_by_key(|entry| entry.started_timestamp)
    }

    /// One that has ended meanwhile cannot be called off; how it ended is listed.
    async fn call_off(&self) -> CallOff {
        let request = self.queue.client().cancel_message_move_task().task_handle(&self.handle);
        match request.send().await.map_err(|error| QueueError::of("call the move off", &error)) {
            Ok(_) => CallOff::Taken,
            Err(error) => CallOff::Refused(error),
        }
    }
}

async fn list(queue: &Queue, arn: &str) -> Result<Vec<Entry>, QueueError> {
    let answer = queue.client().list_message_move_tasks().source_arn(arn).max_results(LISTED).send().await;
    let answer = answer.map_err(|error| QueueError::of("ask how far the move is", &error))?;
    Ok(answer.results.unwrap_or_default())
}

/// How many a task has moved, if it runs.
fn running(entry: &Entry) -> Option<usize> {
    match stage(entry) {
        Stage::Running { moved, .. } => Some(moved),
        _ => None,
    }
}

fn stage(entry: &Entry) -> Stage {
    let moved = count(entry.approximate_number_of_messages_moved);
    let all = entry.approximate_number_of_messages_to_move.map(count);
    match entry.status().unwrap_or_default() {
        "RUNNING" | "CANCELLING" => Stage::Running { moved, all },
        "COMPLETED" => Stage::Completed { moved, all },
        "CANCELLED" => Stage::Cancelled { moved },
        "FAILED" => Stage::Failed { moved, code: entry.failure_reason().unwrap_or("no reason given").to_owned() },
        _ => Stage::Unclear,
    }
}

fn count(number: i64) -> usize {
    usize::try_from(number).unwrap_or_default()
}

fn show(progress: &mut Progress, moved: usize, all: Option<usize>) {
    match all.filter(|all| *all > 0) {
        Some(all) => {
            let counts = format!("{} of about {}", number(moved), counted(all, "message"));
            progress.advancing("move", moved.min(all), all, &counts);
        }
        None => progress.counting("move", &counted(moved, "message")),
    }
}

fn hint(code: &str) -> &'static str {
    match code {
        "CouldNotDetermineMessageSource" => {
            "; messages that were sent straight to the dead-letter queue have no queue to go back to: use --to URL"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use crate::sqs::Aws;

    use super::*;

    #[test]
    fn a_task_has_ended_when_sqs_says_so() {
        let check = |status: &str, expected| {
            let entry = Entry::builder().status(status).approximate_number_of_messages_moved(3);
            let entry = entry.approximate_number_of_messages_to_move(5).failure_reason("AccessDenied");
            assert_eq!(stage(&entry.build()), expected, "{status}");
        };
        check("RUNNING", Stage::Running { moved: 3, all: Some(5) });
        check("CANCELLING", Stage::Running { moved: 3, all: Some(5) });
        check("COMPLETED", Stage::Completed { moved: 3, all: Some(5) });
        check("CANCELLED", Stage::Cancelled { moved: 3 });
        check("FAILED", Stage::Failed { moved: 3, code: "AccessDenied".to_owned() });
        check("PAUSED", Stage::Unclear);
        check("", Stage::Unclear);
    }

    fn dead_letters() -> Queue {
        Aws::nowhere().queue("http://h/1/dead").unwrap()
    }

    fn task(queue: &Queue, earlier: Option<i64>) -> Task<'_> {
        Task { queue, arn: "arn", handle: "ours".to_owned(), earlier, started: Cell::new(None) }
    }

    #[test]
    fn what_may_pass_is_put_up_with_until_it_is_late() {
        let queue = dead_letters();
        let check = |looked: Result<Stage, bool>, call_off, is_late, words: Option<&str>| {
            let looked = looked.map_err(|is_lasting| QueueError::made_up("Code", is_lasting));
            let told = task(&queue, None).out_of_sight(&looked, &call_off, is_late).map(|error| error.to_string());
            assert!(told.as_ref().is_none_or(|told| told.contains("--source-arn arn")), "{told:?}");
            match words {
                Some(words) => assert!(told.as_ref().is_some_and(|told| told.contains(words)), "{told:?}"),
                None => assert_eq!(told, None),
            }
        };
        let running = || Ok(Stage::Running { moved: 1, all: None });
        let refused = |is_lasting| CallOff::Refused(QueueError::made_up("Code", is_lasting));
        check(Err(false), CallOff::Unasked, false, None);
        check(Err(false), CallOff::Unasked, true, Some("SQS goes on"));
        check(Err(true), CallOff::Unasked, false, Some("SQS goes on"));
        check(running(), refused(false), false, None);
        check(running(), refused(true), false, Some("SQS goes on"));
        let unknown = || CallOff::Refused(QueueError::made_up("ResourceNotFoundException", true));
        check(running(), unknown(), false, None);
        check(running(), unknown(), true, Some("SQS goes on"));
        check(running(), CallOff::Taken, true, Some("does not tell"));
        check(Ok(Stage::Unclear), CallOff::Unasked, false, None);
        check(Ok(Stage::Unclear), CallOff::Unasked, true, Some("does not tell"));
        check(Ok(Stage::Unlisted), refused(true), false, None);
    }

    #[test]
    fn our_entry_is_known_by_its_handle_and_then_by_its_time() {
        let queue = dead_letters();
        let entry = |started, handle: Option<&str>| {
            Entry::builder().started_timestamp(started).set_task_handle(handle.map(str::to_owned)).build()
        };
        let found = |task: &Task<'_>, entries: &[Entry]| task.find(entries).map(|entry| entry.started_timestamp);

        let watched = task(&queue, Some(1));
        assert_eq!(found(&watched, &[entry(1, None)]), None);
        assert_eq!(found(&watched, &[entry(2, Some("another's")), entry(1, None)]), None);
        assert_eq!(found(&watched, &[entry(3, Some("ours")), entry(2, None), entry(1, None)]), Some(3));
        assert_eq!(found(&watched, &[entry(4, None), entry(3, None), entry(2, None)]), Some(3));
        assert_eq!(found(&watched, &[entry(4, None)]), None);

        assert_eq!(found(&task(&queue, None), &[entry(2, None), entry(1, None)]), Some(1));
    }
}
