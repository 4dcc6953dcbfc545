//! What plays AWS and PostgreSQL on one machine, for the demo, the tests and the benchmarks.
//!
//! It starts real programs (a Postgres server, the function's own binary) and imitates only what
//! stands between them. It knows nothing of contracts, masking or tables, proves nothing about
//! IAM, scaling or a VPC, and is never part of what is deployed.
//!
//! Every call that waits blocks its thread. The servers run on threads of their own, so a blocking
//! call is sound inside an async test too: whatever it waits for does not need the caller's runtime.
//! Tasks that the test itself spawned stand still meanwhile, unless its runtime has a second thread.

mod background;
pub mod clock;
mod environment;
pub mod function;
mod http_server;
mod invocation;
pub mod mapping;
mod output;
pub mod postgres;
pub mod proxy;
pub mod queue;
pub mod response;
mod runtime_api;
pub mod secrets;
mod tether;
