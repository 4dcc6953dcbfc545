//! Logs, metrics and panics: one JSON object a line on standard output, whole lines only.
//!
//! A line is flat: `timestamp`, `level`, `message`, `target`, then the fields of the event and of the spans around it,
//! so that `requestId` stands where Lambda's own JSON lines have it.
//!
//! **Invariant:** only our own targets follow `RUST_LOG`. At `debug` and `trace` other crates print requests, secrets
//! and bodies, so they are held at `warn` whatever `RUST_LOG` says; and of what they do say only the message is kept,
//! because the AWS SDK warns with whole responses in its fields.

use std::{
    error::Error,
    fmt,
    io::{self, Write},
    iter,
    panic::PanicHookInfo,
};

use metrics_cloudwatch_embedded::{Builder, Collector};
use serde::Serialize;
use serde_json::{Map, Value};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span::{Attributes, Id, Record},
    warn,
};
use tracing_subscriber::{
    Layer,
    filter::Targets,
    layer::{Context, SubscriberExt},
    registry::LookupSpan,
    util::SubscriberInitExt,
};

/// The library, and the binaries `ingest` and `sqs-etl`, which is `sqs_etl` too.
const OUR_TARGETS: [&str; 2] = ["sqs_etl", "ingest"];
/// Opens the span that bears `requestId`; writes no events of its own.
const REQUEST_SPAN_TARGET: &str = "lambda_runtime::layers::trace";

/// What was set up; `flush` sends metrics on their way.
#[derive(Clone, Copy)]
pub struct Telemetry {
    metrics: &'static Collector,
}

/// How a process tells of itself.
pub struct Settings<'a> {
    /// `RUST_LOG` as it stands.
    pub rust_log: Option<&'a str>,
    /// The metrics' CloudWatch namespace.
    pub namespace: &'a str,
    /// The metrics' dimension: its name, and its value here.
    pub dimension: (&'static str, &'a str),
    /// In which unit each metric counts.
    pub units: &'a [(&'static str, metrics::Unit)],
    /// Takes the log, whole lines at a time; [`stdout`] unless a person reads it.
    pub write: fn(&[u8]),
}

/// Sets up logs, metrics and the panic hook of the process.
///
/// # Panics
/// When called twice: there is one log and one set of metrics in a process.
pub fn init(settings: &Settings<'_>) -> Telemetry {
    let (filter, fault) = filter(settings.rust_log);
    tracing_subscriber::registry().with(JsonLines { write: settings.write }.with_filter(filter)).init();
    std::panic::set_hook(Box::new(report_panic));
    if fault {
        warn!("RUST_LOG cannot be read and is ignored");
    }
    let (dimension, value) = settings.dimension;
    let metrics = Builder::new()
        .cloudwatch_namespace(settings.namespace.to_owned())
        .with_dimension(dimension, value.to_owned())
        .init()
        .expect("metrics are set up once, with a namespace");
    // A unit goes by its metric's name; counter, gauge or histogram makes no difference here.
    for (name, unit) in settings.units {
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
            stdout(&lines);
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
    stdout(format!("{line}\n").as_bytes());
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

/// Hands on each event as a line of JSON.
struct JsonLines<W> {
    write: W,
}

/// A line. Fields come last, in alphabetical order.
#[derive(Serialize)]
struct Line<'a> {
    timestamp: String,
    level: &'a str,
    message: Value,
    target: &'a str,
    #[serde(flatten)]
    fields: Map<String, Value>,
}

/// What a span or an event has to say; a span keeps it until it is closed.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl<S, W> Layer<S> for JsonLines<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: Fn(&[u8]) + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut said = Fields::default();
        event.record(&mut said);
        let message = said.0.remove("message").unwrap_or_default();
        let mut fields = Map::new();
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            fields.extend(span.extensions().get::<Fields>().map(|span| span.0.clone()).unwrap_or_default());
        }
        let metadata = event.metadata();
        if is_ours(metadata.target()) {
            fields.append(&mut said.0);
        }
        let line =
            Line { timestamp: now(), level: metadata.level().as_str(), message, target: metadata.target(), fields };
        (self.write)(&line.bytes());
    }
}

impl Line<'_> {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).expect("strings, numbers and booleans under string keys");
        bytes.push(b'\n');
        bytes
    }
}

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    /// With the causes, outermost first.
    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let causes = iter::successors(Some(value), |&error| error.source());
        self.put(field, causes.map(ToString::to_string).collect::<Vec<_>>().join(": "));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
}

/// The place only: a panic's message may quote a value.
fn report_panic(panic: &PanicHookInfo<'_>) {
    let location = panic.location().map(ToString::to_string);
    let line = Line {
        timestamp: now(),
        level: "ERROR",
        message: "panicked".into(),
        target: OUR_TARGETS[0],
        fields: Map::from_iter([("location".to_owned(), location.into())]),
    };
    stdout(&line.bytes());
}

/// Standard output, locked for the length of one `write_all`. There is nobody to tell that it is closed.
pub fn stdout(lines: &[u8]) {
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(lines).and_then(|()| stdout.flush());
}

/// RFC 3339, in UTC, with milliseconds.
fn now() -> String {
    format!("{:.3}", jiff::Timestamp::now())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::{Level, debug, error, info, info_span};

    use super::*;

    /// What is written while `act` runs, a JSON object a line.
    fn lines(rust_log: &str, act: impl FnOnce()) -> Vec<Value> {
        let written = Arc::new(Mutex::new(Vec::new()));
        let write = {
            let written = Arc::clone(&written);
            move |line: &[u8]| written.lock().unwrap().extend_from_slice(line)
        };
        let layer = JsonLines { write }.with_filter(filter(Some(rust_log)).0);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), act);
        let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[track_caller]
    fn check_filter(rust_log: Option<&str>, target: &str, highest: Option<Level>) {
        let (filter, _) = filter(rust_log);
        let passed = [Level::TRACE, Level::DEBUG, Level::INFO, Level::WARN, Level::ERROR]
            .into_iter()
            .find(|level| filter.would_enable(target, level));
        assert_eq!(passed, highest, "{rust_log:?} {target}");
    }

    #[test]
    fn our_targets_follow_rust_log() {
        check_filter(None, "sqs_etl::pipeline", Some(Level::INFO));
        check_filter(Some("trace"), "sqs_etl::pipeline", Some(Level::TRACE));
        check_filter(Some("trace"), "ingest", Some(Level::TRACE));
        check_filter(Some("off"), "sqs_etl", None);
        check_filter(Some("warn,sqs_etl::database=debug"), "sqs_etl::database", Some(Level::DEBUG));
        check_filter(Some("warn,sqs_etl::database=debug"), "sqs_etl::secrets", Some(Level::WARN));
        check_filter(Some("hyper=debug"), "sqs_etl", Some(Level::INFO));
    }

    #[test]
    fn other_crates_stay_at_warn_whatever_rust_log_says() {
        for rust_log in
            [None, Some("trace"), Some("aws_config=trace"), Some("debug,aws=trace,hyper=info"), Some("sqs_etl=trace")]
        {
            for target in ["aws_config::profile", "hyper::client", "lambda_runtime", "tokio_postgres", "sqs", "i"] {
                check_filter(rust_log, target, Some(Level::WARN));
            }
        }
        check_filter(Some("aws_config=error"), "aws_config", Some(Level::ERROR));
    }

    #[test]
    fn the_span_that_bears_the_request_id_is_open_at_any_level() {
        check_filter(Some("error"), REQUEST_SPAN_TARGET, Some(Level::INFO));
    }

    #[test]
    fn a_faulty_rust_log_is_ignored_and_noticed() {
        assert!(filter(Some("sqs_etl=loud")).1);
        check_filter(Some("sqs_etl=loud"), "sqs_etl", Some(Level::INFO));
        assert!(!filter(Some("sqs_etl=debug,warn")).1);
    }

    #[test]
    fn a_line_is_flat_and_has_the_fields_of_the_spans_around_it() {
        let lines = lines("info", || {
            info_span!(target: REQUEST_SPAN_TARGET, "invoke", requestId = "8f5").in_scope(|| {
                info_span!("batch", messages = 10, requestId = tracing::field::Empty)
                    .in_scope(|| info!(rows = 9, full = true, "batch written"));
            });
        });
        let [line] = lines.as_slice() else { panic!("one line, not {}", lines.len()) };
        for (field, value) in [
            ("level", Value::from("INFO")),
            ("message", "batch written".into()),
            ("target", "sqs_etl::telemetry::tests".into()),
            ("requestId", "8f5".into()),
            ("messages", 10.into()),
            ("rows", 9.into()),
            ("full", true.into()),
        ] {
            assert_eq!(line[field], value, "{field}");
        }
        let timestamp = line["timestamp"].as_str().unwrap();
        assert!(timestamp.parse::<jiff::Timestamp>().is_ok() && timestamp.ends_with('Z'), "{timestamp}");
    }

    #[test]
    fn an_error_is_written_with_its_causes() {
        let cause = anyhow::anyhow!("access denied").context("fetch the secret");
        let lines = lines("info", || error!(error = cause.as_ref() as &(dyn Error + 'static), "cannot start"));
        assert_eq!(lines[0]["error"], "fetch the secret: access denied");
    }

    #[test]
    fn of_other_crates_only_the_message_is_kept() {
        let lines = lines("trace", || {
            warn!(target: "aws_config::imds", body = "593-47-5928", "failed to load region");
            debug!(target: "aws_config::imds", "593-47-5928");
        });
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0]["message"], "failed to load region");
        assert!(!lines[0].to_string().contains("593"));
    }
}
