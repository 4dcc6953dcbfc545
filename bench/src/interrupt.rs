//! Ctrl-C and SIGTERM: the contenders are ended at once, so that whoever waits for one goes on and finds out.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

/// Whether we were asked to stop, and whom to end then. Clones are the same.
#[derive(Clone, Default)]
pub struct Interrupt(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    raised: bool,
    contenders: Vec<Pid>,
}

impl Interrupt {
    pub fn listen() -> Result<Self> {
        let interrupt = Self::default();
        let noted = interrupt.clone();
        let runtime = Builder::new_current_thread().enable_io().build().context("listen for signals")?;
        let entered = runtime.enter();
        let mut ctrl_c = signal(SignalKind::interrupt()).context("listen for Ctrl-C")?;
        let mut term = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        drop(entered);
        thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! { _ = ctrl_c.recv() => {}, _ = term.recv() => {} }
            });
            noted.raise();
        });
        Ok(interrupt)
    }

    pub fn check(&self) -> Result<()> {
        anyhow::ensure!(!self.with(|state| state.raised), "interrupted; nothing is left running");
        Ok(())
    }

    pub fn watch(&self, process: u32) {
        self.with(|state| state.contenders.extend(Pid::from_raw(process.cast_signed())));
    }

    /// Before a process is waited for: afterwards its id may be somebody else's.
    pub fn forget(&self, process: u32) {
        self.with(|state| state.contenders.retain(|&pid| Some(pid) != Pid::from_raw(process.cast_signed())));
    }

    fn raise(&self) {
        self.with(|state| {
            state.raised = true;
            for &contender in &state.contenders {
                // One that has ended already is as good as killed.
                let _ = kill_process(contender, Signal::KILL);
            }
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
