//! SQS's own way to move a dead-letter queue back: a task that it works on by itself, and that is asked how far it is.

use std::time::Duration;

use anyhow::{Result, bail};
use aws_sdk_sqs::types::ListMessageMoveTasksResultEntry as Entry;
use tokio::time::{Instant, sleep};

use crate::interrupt::Interrupt;
use crate::sqs::{Queue, QueueError};
use crate::terminal::Progress;
use crate::words::{counted, number};

use super::Moved;
use super::route::Route;

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a new task may take to be listed, and one that is called off to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A task that was started here.
pub struct Task<'a> {
    queue: &'a Queue,
    arn: &'a str,
    handle: String,
    /// When the task before it was started, which is listed until ours is.
    earlier: Option<i64>,
}

/// Where a task stands. Messages are counted as SQS counts them, approximately.
#[derive(Debug, PartialEq, Eq)]
enum Stage {
    /// Ours is not listed yet.
    Unlisted,
    Running {
        moved: usize,
        all: Option<usize>,
    },
    Ended {
        moved: usize,
        /// SQS's code.
        failure: Option<String>,
        is_cancelled: bool,
    },
}

/// Starts a task, or tells that the server knows no such thing.
///
/// # Errors
/// If SQS refuses it, or one is under way already.
pub async fn start<'a>(queue: &'a Queue, route: &'a Route, rate: Option<usize>) -> Result<Option<Task<'a>>> {
    let arn = route.source_arn.as_str();
    let earlier = match latest(queue, arn).await {
        Ok(earlier) => earlier,
        Err(error) if error.is_unknown_call() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if let Some(Stage::Running { moved, .. }) = earlier.as_ref().map(stage) {
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
            Ok(Some(Task { queue, arn, handle, earlier: earlier.map(|entry| entry.started_timestamp) }))
        }
        Err(error) if error.is_unknown_call() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Task<'_> {
    /// Watches it to its end; calls it off when we are asked to stop.
    pub async fn follow(&self, interrupt: &Interrupt) -> Result<Moved> {
        let mut progress = Progress::new();
        let mut patience = Instant::now() + PATIENCE;
        let mut is_called_off = false;
        loop {
            let stage = self.stage().await?;
            match stage {
                Stage::Ended { failure: Some(code), moved, .. } => {
                    drop(progress);
                    let moved = counted(moved, "message");
                    bail!("SQS gave the move up after {moved}: {code}{}", hint(&code));
                }
                Stage::Ended { moved, is_cancelled: true, .. } if !is_called_off => {
                    bail!("somebody called the move off after {}", counted(moved, "message"));
                }
                Stage::Ended { moved, is_cancelled, .. } => {
                    return Ok(Moved { count: moved, failed: 0, is_interrupted: is_cancelled });
                }
                Stage::Running { moved, all } => show(&mut progress, moved, all),
                Stage::Unlisted => {}
            }
            let is_expected_to_end = is_called_off || stage == Stage::Unlisted;
            if !is_expected_to_end {
                patience = Instant::now() + PATIENCE;
            } else if Instant::now() > patience {
                bail!(
                    "SQS does not tell what became of the move: `aws sqs list-message-move-tasks --source-arn {}`",
                    self.arn
                );
            }
            tokio::select! {
                () = sleep(LOOK_EVERY) => {}
                () = interrupt.raised(), if !is_called_off => {
                    self.call_off().await?;
                    is_called_off = true;
                }
            }
        }
    }

    async fn stage(&self) -> Result<Stage, QueueError> {
        let entry = latest(self.queue, self.arn).await?;
        let ours = entry.filter(|entry| Some(entry.started_timestamp) != self.earlier);
        Ok(ours.as_ref().map_or(Stage::Unlisted, stage))
    }

    /// A task that has ended meanwhile cannot be called off; how it ended is listed.
    async fn call_off(&self) -> Result<()> {
        let request = self.queue.client().cancel_message_move_task().task_handle(&self.handle);
        match request.send().await.map_err(|error| QueueError::of("call the move off; SQS goes on with it", &error)) {
            Ok(_) => Ok(()),
            Err(error) if error.is_lasting && !self.is_running().await? => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn is_running(&self) -> Result<bool, QueueError> {
        Ok(matches!(self.stage().await?, Stage::Running { .. }))
    }
}

async fn latest(queue: &Queue, arn: &str) -> Result<Option<Entry>, QueueError> {
    let answer = queue.client().list_message_move_tasks().source_arn(arn).max_results(1).send().await;
    let answer = answer.map_err(|error| QueueError::of("ask how far the move is", &error))?;
    Ok(answer.results.unwrap_or_default().into_iter().next())
}

fn stage(entry: &Entry) -> Stage {
    let moved = count(entry.approximate_number_of_messages_moved);
    match entry.status().unwrap_or_default() {
        "RUNNING" | "CANCELLING" => {
            Stage::Running { moved, all: entry.approximate_number_of_messages_to_move.map(count) }
        }
        "FAILED" => {
            let failure = Some(entry.failure_reason().unwrap_or("no reason given").to_owned());
            Stage::Ended { moved, failure, is_cancelled: false }
        }
        status => Stage::Ended { moved, failure: None, is_cancelled: status == "CANCELLED" },
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
    use super::*;

    #[test]
    fn a_task_has_ended_when_sqs_says_so() {
        let check = |status: &str, expected| {
            let entry = Entry::builder().status(status).approximate_number_of_messages_moved(3);
            let entry = entry.approximate_number_of_messages_to_move(5).set_failure_reason(match status {
                "FAILED" => Some("AccessDenied".to_owned()),
                _ => None,
            });
            assert_eq!(stage(&entry.build()), expected, "{status}");
        };
        check("RUNNING", Stage::Running { moved: 3, all: Some(5) });
        check("CANCELLING", Stage::Running { moved: 3, all: Some(5) });
        check("COMPLETED", Stage::Ended { moved: 3, failure: None, is_cancelled: false });
        check("CANCELLED", Stage::Ended { moved: 3, failure: None, is_cancelled: true });
        check("FAILED", Stage::Ended { moved: 3, failure: Some("AccessDenied".to_owned()), is_cancelled: false });
    }
}
