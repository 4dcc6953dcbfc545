//! A queue of SQS, by the AWS SDK: what `worker`, `send` and `replay` do with one.
//!
//! Credentials and region are looked for where AWS's own tools look, profiles included. Batches are ten messages, as SQS has
//! it, and the answer to each entry is read. Not here: what messages are good for.
//!
//! **Invariant (Silence):** of an error only its code is kept; SQS's texts may quote a message.

mod calls;
mod error;
pub mod outgoing;

use std::borrow::Cow;
use std::collections::HashMap;
use std::env;
use std::time::Duration;

use anyhow::{Result, bail};
use aws_config::{BehaviorVersion, Region, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{
    self, BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry,
    MessageSystemAttributeName, QueueAttributeName, SendMessageBatchRequestEntry,
};
use futures_util::FutureExt;
use sqs_etl::pipeline::message::Message;
use sqs_etl::secrets::https;
use tokio::time::Instant;

pub use error::QueueError;

/// As many messages as SQS takes or gives in one call.
pub const CALL: usize = 10;
/// The longest that SQS keeps a message invisible, from when it was received.
pub const LONGEST_INVISIBLE: Duration = Duration::from_secs(12 * 60 * 60);

const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// One request, a receive's waiting aside.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(10);
const ATTEMPTS: u32 = 4;

/// AWS as this machine is set up for it.
pub struct Aws {
    pub config: SdkConfig,
    /// The region that the first queue's URL tells.
    region: Option<String>,
}

/// One queue. Clones share their connections.
#[derive(Clone)]
pub struct Queue {
    client: Client,
    url: String,
}

/// What SQS says of a queue.
#[derive(Debug, Default)]
pub struct Attributes {
    pub arn: String,
    pub visibility_timeout: Duration,
    pub max_receive_count: Option<u32>,
    /// The ARN of its dead-letter queue.
    pub dead_letter_queue: Option<String>,
    /// The most bytes of a message, attributes included.
    pub largest_message: Option<usize>,
    /// How many messages there are to receive, to be seen later, and in somebody's hands. Approximate, as SQS says.
    pub visible: u64,
    pub delayed: u64,
    pub in_flight: u64,
}

/// A message that was received and belongs to us for as long as it is invisible to others.
#[derive(Clone)]
pub struct Received {
    pub id: String,
    /// What SQS wants to hear when the message is deleted or handed back; new at each receive.
    pub handle: String,
    pub raw: types::Message,
}

/// An entry of a batch that SQS did not take, by its place in what was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub position: usize,
    pub code: String,
    /// No repetition mends it.
    pub is_lasting: bool,
    /// It was the call that was refused, and with it all entries.
    pub is_of_call: bool,
}

/// An entry of a batch that SQS took, by its place in what was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    pub position: usize,
    pub message_id: String,
}

/// What became of the entries of one call; each is in one of both.
#[derive(Debug, Default)]
pub struct Answer {
    pub taken: Vec<Taken>,
    pub refused: Vec<Refused>,
}

impl Refused {
    pub fn of_entry(position: usize, code: &str, is_lasting: bool) -> Self {
        Self { position, code: code.to_owned(), is_lasting, is_of_call: false }
    }
}

impl Aws {
    /// Looks for region and credentials. The region is that of the queue's URL, if it tells one: in another region there may be
    /// another queue of that name. A URL that is none of AWS's own tells the endpoint, if nothing else does.
    pub async fn load(queue_url: &str) -> Result<Self> {
        let place = Place::of(queue_url)?;
        let limits = TimeoutConfig::builder().connect_timeout(CONNECT_LIMIT).operation_attempt_timeout(ATTEMPT_LIMIT);
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(https::client(None, CONNECT_LIMIT)?)
            .timeout_config(limits.build())
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS));
        let is_told = |name| env::var_os(name).is_some_and(|endpoint| !endpoint.is_empty());
        let is_told = ["AWS_ENDPOINT_URL_SQS", "AWS_ENDPOINT_URL"].into_iter().any(is_told);
        if let (false, Some(endpoint)) = (is_told, &place.endpoint) {
            loader = loader.endpoint_url(endpoint);
        }
        let mut config = loader.load().await;
        if let (false, Some(region)) = (is_told, &place.region) {
            config = config.into_builder().region(Region::new(region.clone())).build();
        }
        if config.region().is_none_or(|region| region.as_ref().is_empty()) {
            bail!("no AWS region: set AWS_REGION, or choose a profile that has one with AWS_PROFILE");
        }
        Ok(Self { config, region: place.region })
    }

    /// Of no use but to test what makes no call.
    #[cfg(test)]
    pub fn nowhere() -> Self {
        let config = SdkConfig::builder().behavior_version(BehaviorVersion::latest()).build();
        Self { config, region: None }
    }

    /// A queue in the same region.
    pub fn queue(&self, url: &str) -> Result<Queue> {
        let region = Place::of(url)?.region;
        if let (Some(ours), Some(other)) =
            (&self.region, region.as_ref().filter(|other| Some(*other) != self.region.as_ref()))
        {
            bail!("{url} is in {other}, and the other queue in {ours}: SQS moves nothing from one region to another");
        }
        Ok(Queue { client: Client::new(&self.config), url: url.to_owned() })
    }
}

/// What a queue's URL says of where it is.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    endpoint: Option<String>,
    region: Option<String>,
}

impl Place {
    fn of(url: &str) -> Result<Self> {
        let scheme = url.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https"));
        let Some((scheme, rest)) = scheme else {
            bail!("{url} is not a queue's URL: `aws sqs get-queue-url --queue-name NAME` tells it");
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.is_empty() || path.is_empty() {
            bail!("{url} names no queue: it ends in /ACCOUNT/NAME");
        }
        let host = authority.split(':').next().unwrap_or_default();
        let is_aws = [".amazonaws.com", ".amazonaws.com.cn", ".api.aws"].iter().any(|ending| host.ends_with(ending));
        // A VPC endpoint has a name of its own, which must be asked.
        let is_its_own = !is_aws || host.contains(".vpce.");
        let endpoint = is_its_own.then(|| format!("{scheme}://{authority}"));
        let parts: Vec<_> = host.split('.').collect();
        let behind = parts.iter().position(|part| matches!(*part, "sqs" | "sqs-fips")).and_then(|at| parts.get(at + 1));
        // Older URLs: REGION.queue.amazonaws.com.
        let before = parts.iter().position(|part| *part == "queue").filter(|at| *at > 0).map(|at| &parts[at - 1]);
        let region = behind.or(before).filter(|_| is_aws).map(|region| (*region).to_owned());
        Ok(Self { endpoint, region })
    }
}

impl Queue {
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The last part of the URL.
    pub fn name(&self) -> &str {
        self.url.rsplit('/').next().unwrap_or(&self.url)
    }

    /// Whether it keeps the order within a message group.
    pub fn is_fifo(&self) -> bool {
        self.url.ends_with(".fifo")
    }

    pub async fn attributes(&self) -> Result<Attributes, QueueError> {
        let request = self.client.get_queue_attributes().queue_url(&self.url);
        let answer = request.attribute_names(QueueAttributeName::All).send().await;
        let answer = answer.map_err(|error| QueueError::of("ask for the queue's attributes", &error))?;
        Ok(attributes(&answer.attributes.unwrap_or_default()))
    }

    /// Up to ten messages, which are ours for `visibility`; waits up to `wait` for the first.
    pub async fn receive(&self, wait: Duration, visibility: Duration) -> Result<Vec<Received>, QueueError> {
        self.receive_some(CALL, wait, visibility).await
    }

    /// The same for up to `most` messages, of which SQS gives no more than ten.
    pub async fn receive_some(
        &self,
        most: usize,
        wait: Duration,
        visibility: Duration,
    ) -> Result<Vec<Received>, QueueError> {
        let limits = TimeoutConfig::builder().operation_attempt_timeout(wait + ATTEMPT_LIMIT).build();
        let request = self.client.receive_message().queue_url(&self.url).max_number_of_messages(most.min(CALL) as i32);
        let request = request.wait_time_seconds(seconds(wait)).visibility_timeout(seconds(visibility));
        let request = request.message_system_attribute_names(MessageSystemAttributeName::All);
        let request = request.message_attribute_names("All").customize();
        let answer =
            request.config_override(aws_sdk_sqs::config::Builder::default().timeout_config(limits)).send().await;
        let answer = answer.map_err(|error| QueueError::of("receive messages", &error))?;
        Ok(answer.messages.unwrap_or_default().into_iter().filter_map(Received::new).collect())
    }

    /// Deletes by receipt handle; tells which could not be deleted by `until`. Nothing else speaks of those: they come back.
    pub async fn delete(&self, handles: &[&str], until: Instant) -> Vec<Refused> {
        let call = |places: Vec<usize>| {
            let entry = |place: &usize| {
                let entry = DeleteMessageBatchRequestEntry::builder().id(place.to_string());
                entry.receipt_handle(handles[*place]).build().expect("id and handle are there")
            };
            let request = self.client.delete_message_batch().queue_url(&self.url);
            let request = request.set_entries(Some(places.iter().map(entry).collect()));
            async {
                let answer = request.send().await.map_err(|error| QueueError::of("delete messages", &error))?;
                let done = answer.successful.into_iter().map(|entry| entry.id).collect();
                Ok(calls::Answered { done, failed: answer.failed })
            }
            .boxed()
        };
        calls::all(handles.len(), until, call).await
    }

    /// Makes messages visible after so many seconds, from now; tells of which SQS would not hear by `until`.
    pub async fn change_visibility(&self, changes: &[(&str, Duration)], until: Instant) -> Vec<Refused> {
        let call = |places: Vec<usize>| {
            let entry = |place: &usize| {
                let (handle, after) = changes[*place];
                let entry = ChangeMessageVisibilityBatchRequestEntry::builder().id(place.to_string());
                let entry = entry.receipt_handle(handle).visibility_timeout(seconds(after));
                entry.build().expect("id and handle are there")
            };
            let request = self.client.change_message_visibility_batch().queue_url(&self.url);
            let request = request.set_entries(Some(places.iter().map(entry).collect()));
            async {
                let answer = request.send().await.map_err(|error| QueueError::of("hand back messages", &error))?;
                let done = answer.successful.into_iter().map(|entry| entry.id).collect();
                Ok(calls::Answered { done, failed: answer.failed })
            }
            .boxed()
        };
        calls::all(changes.len(), until, call).await
    }

    /// Sends up to ten messages in one call, and in one attempt: whoever repeats it wants to know that an answer is missing.
    /// The entries' ids are their places.
    pub async fn send(&self, entries: Vec<SendMessageBatchRequestEntry>) -> Result<Answer, QueueError> {
        let ids: Vec<String> = entries.iter().map(|entry| entry.id().to_owned()).collect();
        let limits = TimeoutConfig::builder().operation_attempt_timeout(outgoing::ATTEMPT_LIMIT).build();
        let config = aws_sdk_sqs::config::Builder::default().timeout_config(limits);
        let config = config.retry_config(RetryConfig::disabled());
        let request = self.client.send_message_batch().queue_url(&self.url).set_entries(Some(entries));
        let answer = request.customize().config_override(config).send().await;
        let answer = answer.map_err(|error| QueueError::of("send messages", &error))?;
        let taken = answer
            .successful
            .into_iter()
            .filter_map(|entry| Some(Taken { position: place(&entry.id, &ids)?, message_id: entry.message_id }));
        let failed = answer.failed.iter();
        let refused = failed.filter_map(|entry| Some(refused(entry, place(entry.id(), &ids)?)));
        Ok(Answer { taken: taken.collect(), refused: refused.collect() })
    }

    /// The SDK's client, for calls that one command alone makes.
    pub fn client(&self) -> &Client {
        &self.client
    }
}

/// Our entries' ids are their places; one that we did not give is nobody's.
fn place(id: &str, ids: &[String]) -> Option<usize> {
    ids.iter().find(|ours| *ours == id)?.parse().ok()
}

fn refused(entry: &BatchResultErrorEntry, position: usize) -> Refused {
    Refused::of_entry(position, entry.code(), entry.sender_fault())
}

fn seconds(duration: Duration) -> i32 {
    duration.min(LONGEST_INVISIBLE).as_secs_f64().ceil() as i32
}

fn attributes(found: &HashMap<QueueAttributeName, String>) -> Attributes {
    use QueueAttributeName as Name;
    let number = |name: Name| found.get(&name).and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
    let redrive: Option<serde_json::Value> =
        found.get(&Name::RedrivePolicy).and_then(|text| serde_json::from_str(text).ok());
    let redrive = redrive.unwrap_or_default();
    Attributes {
        arn: found.get(&Name::QueueArn).cloned().unwrap_or_default(),
        visibility_timeout: Duration::from_secs(number(Name::VisibilityTimeout)),
        // A number, or a string with a number.
        max_receive_count: redrive["maxReceiveCount"].to_string().trim_matches('"').parse().ok(),
        dead_letter_queue: redrive["deadLetterTargetArn"].as_str().map(str::to_owned),
        largest_message: found.get(&Name::MaximumMessageSize).and_then(|text| text.parse().ok()),
        visible: number(Name::ApproximateNumberOfMessages),
        delayed: number(Name::ApproximateNumberOfMessagesDelayed),
        in_flight: number(Name::ApproximateNumberOfMessagesNotVisible),
    }
}

impl Received {
    /// A message that SQS gives no id or handle can be neither stored once nor deleted; SQS never does that.
    fn new(raw: types::Message) -> Option<Self> {
        Some(Self { id: raw.message_id.clone()?, handle: raw.receipt_handle.clone()?, raw })
    }

    /// As the pipeline takes it.
    pub fn message(&self) -> Message<'_> {
        let attributes = self.raw.message_attributes.iter().flatten();
        let attributes =
            attributes.filter_map(|(name, value)| Some((name.as_str().into(), value.string_value()?.into())));
        Message {
            id: Cow::Borrowed(&self.id),
            body: self.raw.body().map(Cow::Borrowed),
            sent_at: self.number(&MessageSystemAttributeName::SentTimestamp),
            group: self.group().map(Cow::Borrowed),
            receive_count: self.number(&MessageSystemAttributeName::ApproximateReceiveCount),
            attributes: attributes.collect(),
        }
    }

    pub fn group(&self) -> Option<&str> {
        self.system(&MessageSystemAttributeName::MessageGroupId)
    }

    /// How often SQS has handed it out, this time included.
    pub fn receive_count(&self) -> u32 {
        self.number(&MessageSystemAttributeName::ApproximateReceiveCount).unwrap_or(1)
    }

    /// Bytes of its body.
    pub fn size(&self) -> usize {
        self.raw.body().map_or(0, str::len)
    }

    pub fn system(&self, name: &MessageSystemAttributeName) -> Option<&str> {
        Some(self.raw.attributes.as_ref()?.get(name)?.as_str())
    }

    fn number<T: std::str::FromStr>(&self, name: &MessageSystemAttributeName) -> Option<T> {
        self.system(name)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queues_url_tells_the_region_or_another_endpoint() {
        let place = |endpoint: Option<&str>, region: Option<&str>| Place {
            endpoint: endpoint.map(str::to_owned),
            region: region.map(str::to_owned),
        };
        for (url, expected) in [
            ("https://sqs.eu-west-1.amazonaws.com/123456789012/logins", place(None, Some("eu-west-1"))),
            ("https://sqs-fips.us-gov-west-1.amazonaws.com/1/q", place(None, Some("us-gov-west-1"))),
            ("https://queue.amazonaws.com/1/q", place(None, None)),
            ("https://eu-west-1.queue.amazonaws.com/1/q", place(None, Some("eu-west-1"))),
            ("https://sqs.cn-north-1.amazonaws.com.cn/1/q", place(None, Some("cn-north-1"))),
            ("https://sqs.eu-west-1.api.aws/1/q", place(None, Some("eu-west-1"))),
            (
                "https://vpce-0123abcd-x1y2z3.sqs.eu-west-1.vpce.amazonaws.com/1/q",
                place(Some("https://vpce-0123abcd-x1y2z3.sqs.eu-west-1.vpce.amazonaws.com"), Some("eu-west-1")),
            ),
            ("http://127.0.0.1:4566/000000000000/q", place(Some("http://127.0.0.1:4566"), None)),
        ] {
            assert_eq!(Place::of(url).unwrap(), expected, "{url}");
        }
        for (url, words) in [("logins", "not a queue's URL"), ("http://127.0.0.1:4566", "names no queue")] {
            assert!(Place::of(url).unwrap_err().to_string().contains(words), "{url}");
        }
    }
}
