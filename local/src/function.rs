//! A Lambda function on this machine: its real binary behind the Runtime API, in one or several
//! execution environments that are started, reused, killed and replaced as Lambda does. It enforces
//! the timeout, not the memory size, and there is no IAM, no network of its own and no retry.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hyper::body::Bytes;
use tokio::sync::{Mutex as AsyncMutex, Semaphore};

use crate::background;
use crate::environment::Environment;
pub use crate::invocation::{ACCOUNT, FunctionConfig, Init, InitFailure, Invocation, InvocationResult};
use crate::output::{Output, Stream};

/// A function that can be invoked. Dropped, its environments are killed; should we be killed
/// ourselves, they are too.
#[derive(Debug)]
pub struct Function {
    pool: Arc<Pool>,
}

impl Function {
    /// Checks that the binary is there. Environments start with the first event or with
    /// [`Function::warm_up`].
    pub fn start(mut config: FunctionConfig) -> Result<Self> {
        config.bootstrap = config
            .bootstrap
            .canonicalize()
            .with_context(|| format!("find the function's binary {}", config.bootstrap.display()))?;
        Ok(Self { pool: Arc::new(Pool::new(config)) })
    }

    /// Sends one event and blocks until its end. `timeout` is the function's: it makes the deadline
    /// that the function is told, and when it is over the environment is killed.
    pub fn invoke(&self, event: impl Into<Vec<u8>>, timeout: Duration) -> Invocation {
        let (pool, event) = (Arc::clone(&self.pool), event.into());
        background::wait_for(async move { pool.invoke(event.into(), timeout).await })
    }

    /// The same without blocking, on any runtime. Dropping the future does not end the invocation.
    pub async fn invoke_async(&self, event: impl Into<Vec<u8>>, timeout: Duration) -> Invocation {
        let (pool, event) = (Arc::clone(&self.pool), event.into());
        let invocation = async move { pool.invoke(event.into(), timeout).await };
        background::handle().spawn(invocation).await.expect("an invocation does not panic")
    }

    /// Starts an environment if none is there, and says how long that took. An environment that was
    /// there already gives `None`.
    pub fn warm_up(&self) -> Result<Option<Init>, InitFailure> {
        let pool = Arc::clone(&self.pool);
        background::wait_for(async move { pool.slots[0].environment(&pool).await.map(|(_, init)| init) })
    }

    /// The process ids of the live environments.
    pub fn pids(&self) -> Vec<u32> {
        self.pool.live().iter().map(|environment| environment.pid()).collect()
    }

    /// Ends all environments, as Lambda does with those that are idle for long. The next event
    /// starts a fresh one.
    pub fn recycle(&self) {
        let pool = Arc::clone(&self.pool);
        background::wait_for(async move { pool.end_all().await });
    }

    /// What all environments wrote to stdout. A line may arrive shortly after the answer that the
    /// function gave after writing it: see [`Function::wait_for_output`].
    pub fn stdout(&self) -> String {
        self.pool.output.text(Stream::Stdout)
    }

    /// What all environments wrote to stderr.
    pub fn stderr(&self) -> String {
        self.pool.output.text(Stream::Stderr)
    }

    /// Blocks until `text` is in stdout or stderr; false if it is not within `limit`.
    pub fn wait_for_output(&self, text: &str, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            if self.stdout().contains(text) || self.stderr().contains(text) {
                return true;
            }
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Forgets what was written so far.
    pub fn clear_output(&self) {
        self.pool.output.clear();
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        self.recycle();
    }
}

/// The environments, each in its slot.
#[derive(Debug)]
struct Pool {
    config: FunctionConfig,
    output: Arc<Output>,
    slots: Vec<Slot>,
    /// One permit for each event that may be under way.
    room: Semaphore,
}

/// A place for one environment.
#[derive(Debug, Default)]
struct Slot {
    live: Mutex<Option<Arc<Environment>>>,
    /// Held while an environment is being started, so that only one is.
    starting: AsyncMutex<()>,
    /// Events under way.
    busy: AtomicUsize,
}

impl Pool {
    fn new(config: FunctionConfig) -> Self {
        Self {
            output: Arc::new(Output::new(config.echo)),
            slots: (0..config.environments).map(|_| Slot::default()).collect(),
            room: Semaphore::new(config.environments * config.max_concurrency.unwrap_or(1)),
            config,
        }
    }

    async fn invoke(&self, event: Bytes, timeout: Duration) -> Invocation {
        let _room = self.room.acquire().await.expect("the semaphore is never closed");
        let slot = self.take_slot();
        let invocation = slot.invoke(self, event, timeout).await;
        slot.busy.fetch_sub(1, Ordering::AcqRel);
        invocation
    }

    /// A warm slot with room, else a cold one; among equals the least busy.
    fn take_slot(&self) -> &Slot {
        let room = self.config.max_concurrency.unwrap_or(1);
        loop {
            let free = |slot: &&Slot| slot.busy.load(Ordering::Acquire) < room;
            let rank = |slot: &&Slot| (slot.warm().is_none(), slot.busy.load(Ordering::Acquire));
            // A permit is held, so that some slot has room; another thread may take it first.
            let Some(slot) = self.slots.iter().filter(free).min_by_key(rank) else {
                continue;
            };
            let busy = slot.busy.load(Ordering::Acquire);
            let taken = slot.busy.compare_exchange(busy, busy + 1, Ordering::AcqRel, Ordering::Acquire);
            if busy < room && taken.is_ok() {
                return slot;
            }
        }
    }

    fn live(&self) -> Vec<Arc<Environment>> {
        self.slots.iter().filter_map(Slot::warm).collect()
    }

    async fn end_all(&self) {
        let ended: Vec<_> = self.slots.iter().filter_map(|slot| slot.lock().take()).collect();
        ended.iter().for_each(|environment| environment.kill());
        for environment in ended {
            environment.gone().await;
        }
    }
}

impl Slot {
    async fn invoke(&self, pool: &Pool, event: Bytes, timeout: Duration) -> Invocation {
        let (environment, init) = match self.environment(pool).await {
            Ok(started) => started,
            Err(failure) => return Invocation::without_environment(failure),
        };
        let started = Instant::now();
        let (request_id, result) = environment.invoke(event, timeout).await;
        let duration = started.elapsed();
        if matches!(result, InvocationResult::TimedOut) && pool.config.max_concurrency.is_none() {
            self.lock().take();
            environment.kill();
            environment.gone().await;
        }
        Invocation { request_id, result, duration, init }
    }

    /// The live environment, or a fresh one with the time it took.
    async fn environment(&self, pool: &Pool) -> Result<(Arc<Environment>, Option<Init>), InitFailure> {
        let _starting = self.starting.lock().await;
        if let Some(warm) = self.warm() {
            return Ok((warm, None));
        }
        let (fresh, init) = Environment::start(&pool.config, &pool.output).await?;
        let fresh = Arc::new(fresh);
        *self.lock() = Some(Arc::clone(&fresh));
        Ok((fresh, Some(init)))
    }

    fn warm(&self) -> Option<Arc<Environment>> {
        self.lock().as_ref().filter(|environment| environment.is_alive()).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Environment>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
