//! Puts settings, secrets, database and contract together to a pipeline: the same for the function, the worker and the
//! benchmark.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use tracing::warn;

use crate::config::Config;
use crate::database::{Database, Tls};
use crate::pipeline::Pipeline;
use crate::pipeline::contract::Contract;
use crate::pipeline::mask::Keys;
use crate::secrets::Secrets;

/// A pipeline, and the connections that it writes over.
pub struct Assembly {
    pub pipeline: Pipeline,
    pub database: Database,
}

impl Assembly {
    /// Reads the contract, fetches the masking keys and opens a first connection, the last two at once.
    ///
    /// # Errors
    /// If nothing could ever be written: a faulty contract, no masking keys, no trusted roots.
    pub async fn new(config: &Config, secrets: Secrets) -> anyhow::Result<Self> {
        let contract = contract(config.contract_path.as_deref())?;
        let secrets = Arc::new(secrets);
        let settings = &config.database;
        let tls = Tls::new(&settings.ssl_mode).context("set up TLS for the database")?;
        let database = Database::new(secrets.credentials(), tls, settings.pool_size, settings.connect_timeout);
        let (keys, ()) = tokio::join!(keys(&secrets), warm(&database));
        let pipeline =
            Pipeline::new(contract, &keys?, database.clone()).context("fit the masking key to the contract")?;
        Ok(Self { pipeline, database })
    }
}

/// The contract in a file, or the built-in one.
pub fn contract(path: Option<&Path>) -> anyhow::Result<Contract> {
    let Some(path) = path else { return Ok(Contract::built_in()) };
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("read the contract {} (CONTRACT_PATH)", path.display()))?;
    Ok(Contract::parse(&path.display().to_string(), &text)?)
}

/// Opens a connection ahead of need. A database that is away does not end the start: the first batch tries again, and its
/// messages are redelivered.
pub async fn warm(database: &Database) {
    if let Err(error) = database.warm().await {
        warn!(error = format!("{:#}", anyhow::Error::from(error)), "no database yet");
    }
}

async fn keys(secrets: &Secrets) -> anyhow::Result<Keys> {
    let secret = secrets.masking_secret().await?;
    Keys::from_secret(secret.expose()).context("read the masking keys")
}
