//! Ctrl-C and SIGTERM: noted, so that what was started can be ended in order. It ends nothing itself, unless it is
//! asked twice.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

use crate::INTERRUPTED;

/// Who asks a process and then its group, as `timeout` does, asks once.
const TWICE: Duration = Duration::from_millis(500);

/// Whether we were asked to stop. Clones are the same.
#[derive(Clone, Default)]
pub struct Interrupt {
    raised: Arc<AtomicBool>,
    heard: Arc<Notify>,
}

/// The error of whatever was given up.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

impl Interrupt {
    /// Listens from here on. Before, a signal ends us at once, which is right as long as nothing was started.
    pub fn listen(&self) -> Result<()> {
        let runtime = Builder::new_current_thread().enable_io().build().context("listen for signals")?;
        let signals = signals(&runtime).context("listen for signals")?;
        let noted = self.clone();
        thread::spawn(move || runtime.block_on(note(signals, &noted)));
        Ok(())
    }

    /// An error once we were asked to stop.
    pub fn check(&self) -> Result<(), Interrupted> {
        if self.is_raised() { Err(Interrupted) } else { Ok(()) }
    }

    pub fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    /// Waits until we are asked to stop.
    pub async fn raised(&self) {
        let mut heard = pin!(self.heard.notified());
        // Whoever asks between our look and our waiting must be heard as well.
        heard.as_mut().enable();
        if !self.is_raised() {
            heard.await;
        }
    }
}

fn signals(runtime: &Runtime) -> std::io::Result<Vec<Signal>> {
    let _entered = runtime.enter();
    [SignalKind::interrupt(), SignalKind::terminate()].into_iter().map(signal).collect()
}

/// Whoever asks twice does not want to wait. Processes and folders go away then too: they are tied to our life.
async fn note(mut signals: Vec<Signal>, interrupt: &Interrupt) {
    let mut first = Instant::now();
    loop {
        poll_fn(|context| match signals.iter_mut().any(|signal| signal.poll_recv(context).is_ready()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
        if !interrupt.raised.swap(true, Ordering::AcqRel) {
            first = Instant::now();
        } else if first.elapsed() >= TWICE {
            std::process::exit(INTERRUPTED.into());
        }
        interrupt.heard.notify_waiters();
    }
}
