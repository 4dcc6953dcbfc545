//! What a function writes to stdout and stderr, kept in memory. CloudWatch would get both.

use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt};

/// Both streams of all environments of one function.
#[derive(Debug, Default)]
pub(crate) struct Output {
    streams: Mutex<Streams>,
    echo: bool,
}

#[derive(Debug, Default)]
struct Streams {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Output {
    /// With `echo`, all of it also goes to our own stderr.
    pub(crate) fn new(echo: bool) -> Self {
        Self { echo, ..Self::default() }
    }

    pub(crate) fn text(&self, stream: Stream) -> String {
        let streams = self.streams();
        let bytes = match stream {
            Stream::Stdout => &streams.stdout,
            Stream::Stderr => &streams.stderr,
        };
        String::from_utf8_lossy(bytes).into_owned()
    }

    pub(crate) fn clear(&self) {
        *self.streams() = Streams::default();
    }

    /// Reads `source` until its end.
    pub(crate) async fn collect(&self, stream: Stream, mut source: impl AsyncRead + Unpin) {
        let mut chunk = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = source.read(&mut chunk).await {
            self.append(stream, &chunk[..length]);
        }
    }

    fn append(&self, stream: Stream, bytes: &[u8]) {
        if self.echo {
            // A closed stderr of ours is no reason to lose the function's words.
            let _ = std::io::stderr().write_all(bytes);
        }
        let mut streams = self.streams();
        match stream {
            Stream::Stdout => streams.stdout.extend_from_slice(bytes),
            Stream::Stderr => streams.stderr.extend_from_slice(bytes),
        }
    }

    fn streams(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
