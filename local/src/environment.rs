//! One execution environment: the function's process with a Runtime API of its own. It does not
//! decide when to start one or which one gets an event.

use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::invocation::{FunctionConfig, Init, InitFailure, InvocationResult};
use crate::output::{Output, Stream};
use crate::runtime_api::{Answer, Phase, RuntimeApi};
use crate::tether::Tether;

/// How long a killed process may take to be gone.
const BURIAL: Duration = Duration::from_secs(5);

/// A process that has asked for its first event. Dropped, its whole process group is killed.
#[derive(Debug)]
pub(crate) struct Environment {
    api: RuntimeApi,
    group: Pid,
    exited: watch::Receiver<Option<ExitStatus>>,
    tether: Option<Tether>,
}

impl Environment {
    /// Spawns the process and waits until it polls or turns out unable to.
    pub(crate) async fn start(config: &FunctionConfig, output: &Arc<Output>) -> Result<(Self, Init), InitFailure> {
        let cannot_run = |error: std::io::Error| InitFailure::NotRun(error.to_string());
        let api = RuntimeApi::start(&config.arn()).map_err(cannot_run)?;
        let spawned = Instant::now();
        let child = command(config, &api).spawn().map_err(cannot_run)?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        let group = pid.expect("a child that nobody has waited for has a process id");
        let exited = watch_over(child, group, output);
        let tether = Tether::to_group(group.as_raw_pid().unsigned_abs()).map_err(cannot_run)?;
        let environment = Self { api, group, exited, tether: Some(tether) };
        let init = environment.first_poll(spawned, config.init_limit).await?;
        Ok((environment, init))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.group.as_raw_pid().unsigned_abs()
    }

    /// False once the process has ended.
    pub(crate) fn is_alive(&self) -> bool {
        self.exited.borrow().is_none()
    }

    /// Hands the event to the function and waits for its answer, its end or the timeout.
    pub(crate) async fn invoke(&self, event: Bytes, limit: Duration) -> (String, InvocationResult) {
        let mut pending = self.api.hand_over(event, limit);
        let result = tokio::select! {
            // An answer counts even if the process ends right after it.
            biased;
            answer = &mut pending.answer => match answer {
                Ok(Answer::Response(body)) => InvocationResult::Response(body.to_vec()),
                Ok(Answer::Error(json)) => InvocationResult::Error(text(&json)),
                Err(_) => InvocationResult::Crashed(None),
            },
            status = ended(self.exited.clone()) => InvocationResult::Crashed(status),
            () = tokio::time::sleep(limit) => InvocationResult::TimedOut,
        };
        (std::mem::take(&mut pending.request_id), result)
    }

    /// Kills the process and all that it started. It does not wait.
    pub(crate) fn kill(&self) {
        if self.is_alive() {
            // It may be ending by itself this moment.
            let _ = kill_process_group(self.group, Signal::KILL);
        }
    }

    /// Waits until the process is gone.
    pub(crate) async fn gone(&self) {
        // A process that the kernel cannot get rid of must not hang us too.
        let _ = timeout(BURIAL, ended(self.exited.clone())).await;
    }

    async fn first_poll(&self, spawned: Instant, limit: Duration) -> Result<Init, InitFailure> {
        let mut phase = self.api.phase();
        let settled = phase.wait_for(|phase| matches!(phase, Phase::Ready { .. } | Phase::Failed(_)));
        let phase = tokio::select! {
            biased;
            phase = timeout(limit, settled) => phase.map(|phase| phase.map(|phase| phase.clone())),
            status = ended(self.exited.clone()) => return Err(InitFailure::Exited(status)),
        };
        match phase {
            Ok(Ok(Phase::Ready { restoring: None, at })) => Ok(Init { init: at - spawned, restore: None }),
            Ok(Ok(Phase::Ready { restoring: Some(asked), at })) => {
                Ok(Init { init: asked - spawned, restore: Some(at - asked) })
            }
            Ok(Ok(Phase::Failed(json))) => Err(InitFailure::Reported(text(&json))),
            Ok(Ok(Phase::Starting | Phase::Restoring(_)) | Err(_)) => Err(InitFailure::Exited(None)),
            Err(_) => Err(InitFailure::TimedOut(limit)),
        }
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        self.kill();
        if let Some(tether) = self.tether.take() {
            tether.release();
        }
    }
}

/// The variables that Lambda sets for an OS-only runtime, and the caller's own; nothing of ours.
/// <https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html>
fn command(config: &FunctionConfig, api: &RuntimeApi) -> Command {
    let root = config.task_root_or_folder();
    let mut command = Command::new(&config.bootstrap);
    command
        .env_clear()
        .env("AWS_LAMBDA_RUNTIME_API", api.address().to_string())
        .env("AWS_LAMBDA_FUNCTION_NAME", &config.name)
        .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", config.memory_mb.to_string())
        .env("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{}", config.name))
        .env("AWS_LAMBDA_LOG_STREAM_NAME", "1970/01/01/[$LATEST]0123456789abcdef")
        .env("AWS_LAMBDA_INITIALIZATION_TYPE", config.initialization_type())
        .env("AWS_REGION", &config.region)
        .env("AWS_DEFAULT_REGION", &config.region)
        .env("AWS_ACCESS_KEY_ID", "local")
        .env("AWS_SECRET_ACCESS_KEY", "local")
        .env("AWS_SESSION_TOKEN", "local")
        .env("_HANDLER", "bootstrap")
        .env("LAMBDA_TASK_ROOT", &root)
        .env("LAMBDA_RUNTIME_DIR", "/var/runtime")
        .env("LANG", "en_US.UTF-8")
        .env("TZ", ":UTC")
        .env("PATH", "/usr/local/bin:/usr/bin/:/bin:/opt/bin");
    if let Some(concurrency) = config.max_concurrency {
        command.env("AWS_LAMBDA_MAX_CONCURRENCY", concurrency.to_string());
    }
    command
        .envs(&config.env)
        .current_dir(&root)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    command
}

/// Collects the process's words and its end.
fn watch_over(mut child: Child, group: Pid, output: &Arc<Output>) -> watch::Receiver<Option<ExitStatus>> {
    if let Some(stdout) = child.stdout.take() {
        let output = Arc::clone(output);
        tokio::spawn(async move { output.collect(Stream::Stdout, stdout).await });
    }
    if let Some(stderr) = child.stderr.take() {
        let output = Arc::clone(output);
        tokio::spawn(async move { output.collect(Stream::Stderr, stderr).await });
    }
    let (sender, exited) = watch::channel(None);
    tokio::spawn(async move {
        if let Ok(status) = child.wait().await {
            // What it started goes with it; usually there is nothing.
            let _ = kill_process_group(group, Signal::KILL);
            sender.send_replace(Some(status));
        }
    });
    exited
}

async fn ended(mut exited: watch::Receiver<Option<ExitStatus>>) -> Option<ExitStatus> {
    exited.wait_for(Option::is_some).await.ok().and_then(|status| *status)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
