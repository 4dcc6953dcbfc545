pub mod config;
pub mod database;
pub mod secrets;
pub mod telemetry;
