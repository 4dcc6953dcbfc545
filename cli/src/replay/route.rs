//! From where to where messages are moved: the queues whose redrive policy names the dead-letter queue, or one that is told.

use anyhow::{Result, bail, ensure};

use crate::sqs::{Attributes, Aws, Queue, QueueError};
use crate::words::number;

/// Found before anything is moved.
pub struct Route {
    pub source_arn: String,
    /// URLs of the queues that it is the dead-letter queue of.
    origins: Vec<String>,
    to: Option<Target>,
    from: String,
}

/// The queue of `--to`.
struct Target {
    queue: Queue,
    arn: String,
}

impl Route {
    /// # Errors
    /// If nobody knows where to.
    pub async fn find(aws: &Aws, queue: &Queue, attributes: Attributes, to: Option<Queue>) -> Result<Self> {
        let source_arn = attributes.arn;
        let origins = origins(aws, queue, &source_arn).await?;
        let to = match to {
            Some(queue) => Some(Target { arn: queue.attributes().await?.arn, queue }),
            None => None,
        };
        let from = queue.name().to_owned();
        if let Some(target) = &to {
            let name = target.queue.name();
            ensure!(target.arn != source_arn, "--to is {from} itself");
            ensure!(
                target.queue.is_fifo() == queue.is_fifo(),
                "{from} and {name} must both be FIFO queues, or none of them"
            );
        } else if origins.is_empty() {
            bail!("{from} is no queue's dead-letter queue: --to URL says where its messages shall go");
        }
        Ok(Self { source_arn, origins, to, from })
    }

    /// SQS moves messages out of the dead-letter queues of other SQS queues only.
    pub fn is_for_sqs(&self) -> bool {
        !self.origins.is_empty()
    }

    pub fn to_arn(&self) -> Option<&str> {
        self.to.as_ref().map(|target| target.arn.as_str())
    }

    /// The one queue to send to.
    ///
    /// # Errors
    /// If there are several.
    pub fn single(&self, aws: &Aws) -> Result<Queue> {
        match (&self.to, self.origins.as_slice()) {
            (Some(target), _) => Ok(target.queue.clone()),
            (None, [origin]) => aws.queue(origin),
            (None, _) => bail!(
                "{} is the dead-letter queue of {}, and this server cannot tell which message came from where: --to URL \
                 says where they shall go",
                self.from,
                self.destination()
            ),
        }
    }

    /// The names of where messages go.
    pub fn destination(&self) -> String {
        match &self.to {
            Some(target) => target.queue.name().to_owned(),
            None => self.origins.iter().map(|url| name(url)).collect::<Vec<_>>().join(" and "),
        }
    }

    pub fn why_by_hand(&self) -> &'static str {
        match self.is_for_sqs() {
            true => "received and sent from here, since this server has no StartMessageMoveTask",
            false => {
                "received and sent from here, since SQS itself moves only what another queue's redrive policy put there"
            }
        }
    }

    pub fn announce(&self, waiting: u64, how: &str) {
        let about = number(usize::try_from(waiting).unwrap_or(usize::MAX));
        eprintln!("Moving about {about} from {} to {}: {how}", self.from, self.destination());
    }
}

fn name(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or(url)
}

async fn origins(aws: &Aws, queue: &Queue, arn: &str) -> Result<Vec<String>> {
    let pages = queue.client().list_dead_letter_source_queues().queue_url(queue.url());
    let mut pages = pages.max_results(1_000).into_paginator().send();
    let mut origins = Vec::new();
    while let Some(page) = pages.next().await {
        match page.map_err(|error| QueueError::of("list the queues of a dead-letter queue", &error)) {
            Ok(page) => origins.extend(page.queue_urls),
            Err(error) if error.is_unknown_call() => return search(aws, queue, arn).await,
            Err(error) => return Err(error.into()),
        }
    }
    origins.sort();
    Ok(origins)
}

/// What `ListDeadLetterSourceQueues` tells, for an emulator without it: they have few queues.
async fn search(aws: &Aws, queue: &Queue, arn: &str) -> Result<Vec<String>> {
    let mut origins = Vec::new();
    let mut pages = queue.client().list_queues().max_results(1_000).into_paginator().send();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| QueueError::of("list the queues", &error))?;
        for url in page.queue_urls.unwrap_or_default() {
            if aws.queue(&url)?.attributes().await?.dead_letter_queue.as_deref() == Some(arn) {
                origins.push(url);
            }
        }
    }
    origins.sort();
    Ok(origins)
}
