//! The Lambda function: reads the settings, prepares the pipeline and runs it for as long as Lambda has events.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use lambda_runtime::{BoxFuture, Runtime, SnapStartResource, layers::TracingLayer, service_fn};
use metrics::counter;
use tokio::runtime::Builder;

use sqs_etl::assembly::{self, Assembly};
use sqs_etl::config::{self, Config};
use sqs_etl::database::Database;
use sqs_etl::lambda::{self, COLD_START, Runner, Untouched};
use sqs_etl::report;
use sqs_etl::secrets::Secrets;
use sqs_etl::telemetry::{self, Telemetry};

/// For whoever starts the binary by hand.
const NOT_ON_LAMBDA: &str =
    "ingest is an AWS Lambda function: Lambda starts it, or `cargo lambda watch` does on your machine.
To see it at work without AWS: make demo. Its settings are in README.md.";

fn main() -> ExitCode {
    if !config::is_on_lambda() {
        eprintln!("{NOT_ON_LAMBDA}");
        return ExitCode::from(2);
    }
    let config = match Config::from_env() {
        Ok(config) => config,
        Err(faults) => return give_up(&faults.to_string()),
    };
    let telemetry = telemetry::init(&telemetry::Settings {
        rust_log: config.rust_log.as_deref(),
        namespace: &config.metrics_namespace,
        dimension: ("FunctionName", &config.function_name),
        units: &[&report::METRICS[..], &lambda::METRICS].concat(),
        write: telemetry::stdout,
    });
    match event_loop(config.database.pool_size).and_then(|event_loop| event_loop.block_on(run(config, telemetry))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => give_up(&format!("{fault:#}")),
    }
}

/// Ends a start that cannot go on, in the log and towards Lambda.
fn give_up(fault: &str) -> ExitCode {
    telemetry::last_words(fault);
    let told = event_loop(1).and_then(|event_loop| {
        let told = event_loop.block_on(lambda::report_init_error(fault));
        told.map_err(|error| anyhow::anyhow!("tell Lambda: {error}"))
    });
    if let Err(error) = told {
        telemetry::last_words(&format!("{error:#}"));
    }
    ExitCode::FAILURE
}

/// One thread, unless several batches may be under way at once: then no other thread has to be woken up.
fn event_loop(batches: usize) -> anyhow::Result<tokio::runtime::Runtime> {
    let mut builder = if batches > 1 { Builder::new_multi_thread() } else { Builder::new_current_thread() };
    builder.enable_all().build().context("start the event loop")
}

async fn run(config: Config, telemetry: Telemetry) -> anyhow::Result<()> {
    let Assembly { pipeline, database } = Assembly::new(&config, Secrets::new(&config)).await?;
    let runner = Arc::new(Runner::new(pipeline, config.deadline_reserve));
    let handler = service_fn(move |event| {
        let runner = Arc::clone(&runner);
        async move {
            let answer = runner.handle(event).await;
            telemetry.flush();
            answer
        }
    });
    counter!(COLD_START).increment(1);
    Runtime::new(handler)
        .layer(TracingLayer::new())
        .layer(Untouched)
        .register_snapstart_resource(Arc::new(Connections(database)))
        .run_concurrent()
        .await
        .map_err(|fault| anyhow::anyhow!("the Lambda runtime ended: {fault}"))
}

/// The connections across a SnapStart snapshot: those that went into it are dead when it is restored.
struct Connections(Database);

impl SnapStartResource for Connections {
    fn before_snapshot(&self) -> BoxFuture<'_, Result<(), lambda_runtime::Error>> {
        self.0.reset();
        Box::pin(async { Ok(()) })
    }

    fn after_restore(&self) -> BoxFuture<'_, Result<(), lambda_runtime::Error>> {
        self.0.reset();
        Box::pin(async {
            assembly::warm(&self.0).await;
            Ok(())
        })
    }
}
