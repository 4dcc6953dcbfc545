//! Takes JSON records off an SQS queue, validates them, masks the personal data in them and writes them to PostgreSQL.
//!
//! The binary `ingest` is the AWS Lambda function made of this. `ARCHITECTURE.md` has the map.

pub mod assembly;
pub mod config;
pub mod database;
pub mod lambda;
pub mod pipeline;
pub mod report;
mod scan;
pub mod secrets;
pub mod telemetry;
