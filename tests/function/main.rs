//! The real `ingest` binary behind the Lambda Runtime API, in front of a real Postgres; and the pipeline's properties.

mod connection;
mod copying;
mod credentials;
mod deadline;
mod events;
mod harness;
mod isolation;
mod large;
mod leak;
mod outage;
mod platform;
mod pooler;
mod properties;
