//! What Lambda knows of a function, and what becomes of an event that is sent to it. Nothing here starts anything.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

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

impl Invocation {
    pub(crate) fn without_environment(failure: InitFailure) -> Self {
        Self {
            request_id: String::new(),
            result: InvocationResult::InitFailed(failure),
            duration: Duration::ZERO,
            init: None,
        }
    }
}
