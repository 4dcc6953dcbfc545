pub mod config;
pub mod database;
