//! A Lambda function on this machine: its real binary behind the Runtime API, in one or several
//! execution environments that are started, reused, killed and replaced as Lambda does. It enforces
//! the timeout, not the memory size, and there is no IAM, no network of its own and no retry.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hyper::body::Bytes;
use tokio::sync::{Mutex as AsyncMutex, Semaphore};

use crate::background;
use crate::environment::Environment;
use crate::output::{Output, Stream};

/// The account in every ARN of this crate.
pub const ACCOUNT: &str = "000000000000";

/// What Lambda would know about the function.
#[derive(Clone, Debug)]
pub struct FunctionConfig {
    pub(crate) bootstrap: PathBuf,
    pub(crate) name: String,
    pub(crate) region: String,
    pub(crate) memory_mb: u32,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) task_root: Option<PathBuf>,
    pub(crate) environments: usize,
    pub(crate) max_concurrency: Option<usize>,
    pub(crate) snap_start: bool,
    pub(crate) echo: bool,
    pub(crate) init_limit: Duration,
}

impl FunctionConfig {
    /// The binary, and otherwise: name `ingest`, `us-east-1`, 256 MB, no variables of its own, one
    /// environment that takes one event at a time, no SnapStart, 30 seconds to initialise.
    pub fn new(bootstrap: impl Into<PathBuf>) -> Self {
        Self {
            bootstrap: bootstrap.into(),
            name: "ingest".to_owned(),
            region: "us-east-1".to_owned(),
            memory_mb: 256,
            env: BTreeMap::new(),
            task_root: None,
            environments: 1,
            max_concurrency: None,
            snap_start: false,
            echo: false,
            init_limit: Duration::from_secs(30),
        }
    }

    /// The function's name.
    pub fn name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// The region it believes to be in.
    pub fn region(mut self, region: &str) -> Self {
        region.clone_into(&mut self.region);
        self
    }

    /// What `AWS_LAMBDA_FUNCTION_MEMORY_SIZE` says, in MB. Nothing enforces it.
    pub fn memory_mb(mut self, megabytes: u32) -> Self {
        self.memory_mb = megabytes;
        self
    }

    /// Sets a variable of the function's environment. It sees none of ours, and this wins over what
    /// Lambda sets.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Sets several variables.
    pub fn envs<N: Into<String>, V: Into<String>>(mut self, variables: impl IntoIterator<Item = (N, V)>) -> Self {
        self.env.extend(variables.into_iter().map(|(name, value)| (name.into(), value.into())));
        self
    }

    /// `LAMBDA_TASK_ROOT` and the working directory. By default the binary's folder.
    pub fn task_root(mut self, folder: impl Into<PathBuf>) -> Self {
        self.task_root = Some(folder.into());
        self
    }

    /// How many environments may run at once. They are started when they are needed.
    pub fn environments(mut self, count: usize) -> Self {
        self.environments = count.max(1);
        self
    }

    /// Managed instances: up to `events` at a time in each environment. A timeout then fails its own
    /// invocation only and kills nothing.
    pub fn max_concurrency(mut self, events: usize) -> Self {
        self.max_concurrency = Some(events.max(1));
        self
    }

    /// Lets the function believe that it is restored from a snapshot. The restore follows at once.
    pub fn snap_start(mut self) -> Self {
        self.snap_start = true;
        self
    }

    /// Copies what the function writes to our own stderr.
    pub fn echo(mut self) -> Self {
        self.echo = true;
        self
    }

    /// How long an environment may take to its first poll. Lambda allows 10 seconds.
    pub fn init_limit(mut self, limit: Duration) -> Self {
        self.init_limit = limit;
        self
    }

    pub(crate) fn arn(&self) -> String {
        format!("arn:aws:lambda:{}:{ACCOUNT}:function:{}", self.region, self.name)
    }

    pub(crate) fn task_root_or_folder(&self) -> PathBuf {
        let folder = || self.bootstrap.parent().map(Path::to_path_buf);
        self.task_root.clone().or_else(folder).unwrap_or_default()
    }

    pub(crate) fn initialization_type(&self) -> &'static str {
        match (self.snap_start, self.max_concurrency) {
            (true, _) => "snap-start",
            (false, Some(_)) => "lambda-managed-instances",
            (false, None) => "on-demand",
        }
    }
}

/// What became of one event.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// The id that the function was told.
    pub request_id: String,
    /// What came back.
    pub result: InvocationResult,
    /// From handing the event over to its end. The start of an environment is not in it.
    pub duration: Duration,
    /// How long the environment took to start, if this event made it start.
    pub init: Option<Init>,
}

/// What came back from the function.
#[derive(Clone, Debug)]
pub enum InvocationResult {
    /// A normal return: the body as it was sent.
    Response(Vec<u8>),
    /// The function reported an error: `{"errorType", "errorMessage", ...}`.
    Error(String),
    /// No answer in time. The environment was killed.
    TimedOut,
    /// The process ended without an answer, with this status if it is known.
    Crashed(Option<ExitStatus>),
    /// No environment could be started.
    InitFailed(InitFailure),
}

/// How long an environment took to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Init {
    /// From spawning the process to its first poll or, with SnapStart, to where the snapshot is taken.
    pub init: Duration,
    /// With SnapStart: from the restore to the first poll.
    pub restore: Option<Duration>,
}

/// Why an environment could not be started.
#[derive(Clone, Debug, thiserror::Error)]
pub enum InitFailure {
    /// The binary could not be run at all.
    #[error("the function's binary could not be run: {0}")]
    NotRun(String),
    /// The function said so itself, in this JSON.
    #[error("the function reported an error of its start: {0}")]
    Reported(String),
    /// The process ended before it asked for an event.
    #[error("the function ended before it asked for an event ({0:?}); look at its stderr")]
    Exited(Option<ExitStatus>),
    /// It did not ask for an event in time.
    #[error("the function asked for no event within {0:?}")]
    TimedOut(Duration),
}

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

impl Invocation {
    fn without_environment(failure: InitFailure) -> Self {
        Self {
            request_id: String::new(),
            result: InvocationResult::InitFailed(failure),
            duration: Duration::ZERO,
            init: None,
        }
    }
}
