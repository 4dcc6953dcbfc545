//! Our function as a contender: assembled as `main.rs` does it, and called where Lambda's runtime would call it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use lambda_runtime::{Context, LambdaEvent};
use serde_json::Value;
use sqs_etl::assembly::Assembly;
use sqs_etl::config::Config;
use sqs_etl::lambda::{Payload, Runner};
use sqs_etl::pipeline::Pipeline;
use sqs_etl::pipeline::deadline::Deadline;
use sqs_etl::pipeline::message::{Batch, Message};
use sqs_etl::report;
use sqs_etl::secrets::Secrets;
use sqs_etl::telemetry::{self, Telemetry};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use crate::protocol::{Clock, Tally, nanos};

/// Long enough for any batch on any machine.
const TIME_FOR_A_BATCH: Duration = Duration::from_secs(600);

/// The function, ready for events.
pub struct Function {
    event_loop: Runtime,
    pipeline: Pipeline,
    reserve: Duration,
    telemetry: Telemetry,
    at_once: usize,
}

impl Function {
    /// Reads the settings out of the environment, as the function does.
    pub fn start() -> Result<Self> {
        let config = Config::from_env()?;
        let telemetry = telemetry::init(&telemetry::Settings {
            rust_log: config.rust_log.as_deref(),
            namespace: &config.metrics_namespace,
            dimension: ("FunctionName", &config.function_name),
            units: &report::METRICS,
            write: telemetry::stdout,
        });
        let at_once = config.database.pool_size;
        let mut builder = if at_once > 1 { Builder::new_multi_thread() } else { Builder::new_current_thread() };
        let event_loop = builder.enable_all().build()?;
        let assembly = event_loop.block_on(Assembly::new(&config, Secrets::new(&config)))?;
        let pipeline = assembly.pipeline;
        Ok(Self { event_loop, pipeline, reserve: config.deadline_reserve, telemetry, at_once })
    }

    /// The whole handler, one event after the other; with a pool of several connections, as many events at once.
    pub fn into_handler(self) -> impl FnMut(Vec<Vec<u8>>) -> Result<Tally> {
        let runner = Arc::new(Runner::new(self.pipeline, self.reserve));
        move |events| {
            let events: Vec<_> = events.into_iter().map(|event| (messages_of(&event), event)).collect();
            let clock = Clock::start();
            let mut tally = Tally::default();
            self.event_loop.block_on(async {
                let mut running = JoinSet::new();
                for event in events {
                    if running.len() == self.at_once {
                        add(&mut tally, running.join_next().await.transpose()?);
                    }
                    if self.at_once > 1 {
                        running.spawn(handle(Arc::clone(&runner), event, self.telemetry));
                    } else {
                        add(&mut tally, Some(handle(Arc::clone(&runner), event, self.telemetry).await));
                    }
                }
                while let Some(answer) = running.join_next().await {
                    add(&mut tally, Some(answer?));
                }
                anyhow::Ok(())
            })?;
            let (wall_ns, cpu_ns) = clock.read();
            Ok(Tally { wall_ns, cpu_ns, ..tally })
        }
    }

    /// The write stage alone, as the pipeline clocks it. The CPU time is that of all stages after the event was read.
    pub fn into_writer(self) -> impl FnMut(Vec<Vec<u8>>) -> Result<Tally> {
        move |events| {
            let batches = events.iter().map(|event| batch_of(event)).collect::<Result<Vec<_>>>()?;
            let clock = Clock::start();
            let mut tally = Tally::default();
            for batch in &batches {
                let deadline = Deadline::after(TIME_FOR_A_BATCH, self.reserve);
                let outcome = self.event_loop.block_on(self.pipeline.run(batch, deadline))?;
                tally.wall_ns += nanos(outcome.write_time);
                tally.stored += outcome.committed + outcome.already_present;
                tally.failed += outcome.failures.len();
            }
            let (_, cpu_ns) = clock.read();
            Ok(Tally { cpu_ns, ..tally })
        }
    }
}

/// What became of one event: messages stored, messages failed, error of the whole batch.
type Answer = (usize, usize, Option<String>);

/// From an event's bytes to the response's. The bytes are given up as soon as they are read, as by Lambda's runtime.
async fn handle(runner: Arc<Runner>, (messages, event): (usize, Vec<u8>), telemetry: Telemetry) -> Answer {
    let answered = async {
        let payload = Payload::from(Bytes::from(event));
        let mut context = Context::default();
        context.deadline = u64::try_from((since_1970() + TIME_FOR_A_BATCH).as_millis())?;
        // Boxed, because the compiler gives up on futures nested this deep.
        let response = Box::pin(runner.handle(LambdaEvent::new(payload, context))).await?;
        let failed = response.batch_item_failures.len();
        serde_json::to_vec(&response)?;
        anyhow::Ok(failed)
    };
    let answered = answered.await;
    telemetry.flush();
    match answered {
        Ok(failed) => (messages - failed, failed, None),
        Err(error) => (0, messages, Some(format!("{error:#}"))),
    }
}

fn add(tally: &mut Tally, answer: Option<Answer>) {
    if let Some((stored, failed, error)) = answer {
        tally.stored += stored;
        tally.failed += failed;
        tally.error = tally.error.take().or(error);
    }
}

/// How many messages an event holds, without reading it twice where time counts.
fn messages_of(event: &[u8]) -> usize {
    String::from_utf8_lossy(event).matches("\"receiptHandle\"").count()
}

fn batch_of(event: &[u8]) -> Result<Batch<'static>> {
    let event: Value = serde_json::from_slice(event).context("read an event")?;
    let records = event["Records"].as_array().context("an event has records")?;
    let messages = records.iter().map(|record| {
        let text = |value: &Value| value.as_str().map(str::to_owned).context("a record has an id and a body");
        let sent_at = text(&record["attributes"]["SentTimestamp"])?.parse()?;
        Ok(Message {
            id: text(&record["messageId"])?.into(),
            body: Some(text(&record["body"])?.into()),
            sent_at: Some(sent_at),
            group: None,
            receive_count: Some(1),
            attributes: Vec::new(),
        })
    });
    Ok(Batch { messages: messages.collect::<Result<_>>()?, ordered: false })
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
