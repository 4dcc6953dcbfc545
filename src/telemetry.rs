//! Logs, metrics and panics: one JSON object a line on standard output, whole lines only.
//!
//! **Invariant:** only our own targets follow `RUST_LOG`. At `debug` and `trace` other crates print requests, secrets
//! and bodies, so they are held at `warn` whatever `RUST_LOG` says.

use std::{
    fmt,
    io::{self, Write},
    panic::PanicHookInfo,
};

use metrics_cloudwatch_embedded::{Builder, Collector};
use tracing::{level_filters::LevelFilter, warn};
use tracing_subscriber::{
    filter::Targets,
    fmt::{format::Writer, time::FormatTime},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::config::Config;

/// The library and the binary.
const OUR_TARGETS: [&str; 2] = ["sqs_etl", "ingest"];
/// Opens the span that bears `requestId`; writes no events of its own.
const REQUEST_SPAN_TARGET: &str = "lambda_runtime::layers::trace";

/// What was set up; `flush` sends metrics on their way.
#[derive(Clone, Copy)]
pub struct Telemetry {
    metrics: &'static Collector,
}

/// Sets up logs, metrics and the panic hook of the process. `metric_units` says in which unit each metric counts.
///
/// # Panics
/// When called twice: there is one log and one set of metrics in a process.
pub fn init(config: &Config, metric_units: &[(&'static str, metrics::Unit)]) -> Telemetry {
    let (filter, fault) = filter(config.rust_log.as_deref());
    let lines = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_timer(Utc)
        .with_writer(io::stdout);
    tracing_subscriber::registry().with(filter).with(lines).init();
    std::panic::set_hook(Box::new(report_panic));
    if fault {
        warn!("RUST_LOG cannot be read and is ignored");
    }
    let metrics = Builder::new()
        .cloudwatch_namespace(config.metrics_namespace.clone())
        .with_dimension("FunctionName", config.function_name.clone())
        .init()
        .expect("metrics are set up once, with a namespace");
    for (name, unit) in metric_units {
        metrics::describe_counter!(*name, *unit, "");
    }
    Telemetry { metrics }
}

impl Telemetry {
    /// Writes what was counted since the last call, in CloudWatch's embedded metric format. Lambda may freeze the
    /// process as soon as an invocation is answered, so this comes before the answer.
    pub fn flush(&self) {
        let mut lines = Vec::new();
        // In one piece, so that no log line comes in between.
        if self.metrics.flush(&mut lines).is_ok() {
            write_whole(&lines);
        }
    }
}

/// Says why the process ends, also before `init`.
pub fn last_words(fault: &str) {
    let line = serde_json::json!({
        "timestamp": now(),
        "level": "ERROR",
        "message": "the function cannot start",
        "fault": fault,
    });
    write_whole(format!("{line}\n").as_bytes());
}

/// What `RUST_LOG` lets through, capped, and whether `RUST_LOG` was faulty.
fn filter(rust_log: Option<&str>) -> (Targets, bool) {
    let parsed = rust_log.map(str::parse::<Targets>).transpose();
    let fault = parsed.is_err();
    let wanted = parsed.ok().flatten().unwrap_or_default();
    let default = wanted.default_level().unwrap_or(LevelFilter::INFO);
    let others = wanted.iter().filter(|(target, _)| !is_ours(target)).map(|(target, level)| (target, cap(level)));
    let ours = wanted.iter().filter(|(target, _)| is_ours(target));
    let capped = Targets::new()
        .with_default(cap(default))
        .with_targets(others)
        .with_target(REQUEST_SPAN_TARGET, LevelFilter::INFO)
        .with_targets(OUR_TARGETS.map(|target| (target, default)))
        .with_targets(ours);
    (capped, fault)
}

fn is_ours(target: &str) -> bool {
    OUR_TARGETS.contains(&target.split("::").next().unwrap_or_default())
}

fn cap(level: LevelFilter) -> LevelFilter {
    level.min(LevelFilter::WARN)
}

/// The place only: a panic's message may quote a value.
fn report_panic(panic: &PanicHookInfo<'_>) {
    let location = panic.location().map(ToString::to_string);
    let line = serde_json::json!({
        "timestamp": now(),
        "level": "ERROR",
        "message": "panicked",
        "location": location,
    });
    write_whole(format!("{line}\n").as_bytes());
}

/// Standard output is locked for the length of one `write_all`. There is nobody to tell that it is closed.
fn write_whole(lines: &[u8]) {
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(lines).and_then(|()| stdout.flush());
}

struct Utc;

impl FormatTime for Utc {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        writer.write_str(&now())
    }
}

/// RFC 3339, in UTC, with milliseconds.
fn now() -> String {
    format!("{:.3}", jiff::Timestamp::now())
}
