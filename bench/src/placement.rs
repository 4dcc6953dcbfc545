//! On which cores who runs. Linux only; elsewhere, or where it is not allowed, the benchmark goes on without.

use serde::Serialize;

/// Where contender and Postgres are to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Placement {
    /// Both on the first core; driver and proxy on the second.
    OneCore,
    /// Postgres on the first core; contender, driver and proxy on the second.
    TwoCores,
    /// Wherever the system puts them.
    Anywhere,
}

/// The cores to be used.
#[derive(Clone, Debug)]
pub struct Cores {
    /// Of the machine, as far as they are ours.
    count: usize,
    /// Those to be chosen of; none if there is no choice.
    all: Vec<usize>,
}

impl Cores {
    /// The cores that we may choose of. Fewer than two, or no permission: there is nothing to choose.
    pub fn find() -> Self {
        let count = std::thread::available_parallelism().map_or(1, Into::into);
        let all = imp::allowed();
        let works = all.len() >= 2 && all.get(1).is_some_and(|&core| imp::pin(None, &[core]).is_ok());
        Self { count, all: if works { all } else { Vec::new() } }
    }

    pub fn count(&self) -> usize {
        self.count
    }

    pub fn can_pin(&self) -> bool {
        !self.all.is_empty()
    }

    /// Where driver and proxy run: this thread and those it starts from here on.
    pub fn pin_driver(&self) {
        self.pin(None, self.all.get(1..2));
    }

    /// Puts a running server there, so that the backends that it starts from here on are there too.
    pub fn pin_postgres(&self, postmaster: u32, placement: Placement) {
        let cores = match placement {
            Placement::Anywhere => self.all.get(..),
            Placement::OneCore | Placement::TwoCores => self.all.get(..1),
        };
        for process in imp::children(postmaster).into_iter().chain([postmaster]) {
            self.pin(Some(process), cores);
        }
    }

    /// Runs `start` so that the process that it starts is there.
    pub fn starting<T>(&self, placement: Placement, start: impl FnOnce() -> T) -> T {
        let cores = match placement {
            Placement::OneCore => self.all.get(..1),
            Placement::TwoCores => self.all.get(1..2),
            Placement::Anywhere => self.all.get(..),
        };
        self.pin(None, cores);
        let started = start();
        self.pin_driver();
        started
    }

    fn pin(&self, process: Option<u32>, cores: Option<&[usize]>) {
        if let Some(cores @ [_, ..]) = cores {
            // That it works was seen at the start; a process that has ended meanwhile needs no core.
            let _ = imp::pin(process, cores);
        }
    }
}

#[cfg(target_os = "linux")]
mod imp {
    use std::fs;

    use rustix::process::Pid;
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    pub fn allowed() -> Vec<usize> {
        let Ok(set) = sched_getaffinity(None) else { return Vec::new() };
        (0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect()
    }

    pub fn pin(process: Option<u32>, cores: &[usize]) -> rustix::io::Result<()> {
        let mut set = CpuSet::new();
        for &core in cores {
            set.set(core);
        }
        sched_setaffinity(process.and_then(|id| Pid::from_raw(id.cast_signed())), &set)
    }

    pub fn children(process: u32) -> Vec<u32> {
        let list = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
        list.split_whitespace().filter_map(|id| id.parse().ok()).collect()
    }
}

#[cfg(not(target_os = "linux"))]
mod imp {
    pub fn allowed() -> Vec<usize> {
        Vec::new()
    }

    pub fn pin(_: Option<u32>, _: &[usize]) -> Result<(), ()> {
        Err(())
    }

    pub fn children(_: u32) -> Vec<u32> {
        Vec::new()
    }
}
