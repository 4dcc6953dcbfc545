//! The real `ingest` binary behind the Lambda Runtime API, in front of a real Postgres.

mod deadline;
mod events;
mod harness;
mod properties;
