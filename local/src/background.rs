//! The threads on which this crate's servers run. Not a runtime for anybody else's work.

use std::future::Future;
use std::sync::{OnceLock, mpsc};

use tokio::runtime::{Builder, Handle, Runtime};

/// The runtime behind all servers of this process. It lives as long as the process does.
pub(crate) fn handle() -> &'static Handle {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME
        .get_or_init(|| {
            Builder::new_multi_thread()
                .worker_threads(2)
                .thread_name("sqs-etl-local")
                .enable_all()
                .build()
                .expect("a runtime needs two threads and a poller, which every machine has")
        })
        .handle()
}

/// Runs `work` in the background and blocks until it is done.
///
/// `Handle::block_on` refuses to run inside another runtime; waiting on a channel does not.
pub(crate) fn wait_for<W>(work: W) -> W::Output
where
    W: Future + Send + 'static,
    W::Output: Send + 'static,
{
    let (sender, receiver) = mpsc::channel();
    handle().spawn(async move {
        // The receiver is gone only if the waiting thread is.
        let _ = sender.send(work.await);
    });
    receiver.recv().expect("the background work panicked")
}
