//! A TCP proxy in front of Postgres: it puts a distance between client and server, counts the round
//! trips, and cuts the line. It does not read the protocol, so it works under TLS as well.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::background;

/// The farewell of a Postgres client. Nothing answers it, so it is no round trip.
const TERMINATE: &[u8] = b"X\0\0\0\x04";

/// A proxy on a free port of 127.0.0.1. Dropped, it closes its port and all connections.
///
/// A round trip is counted when a client sends after it was given something of the server's since it
/// last sent. The first thing a connection sends counts too; whatever else is sent before an answer
/// belongs to the same flight. On a loopback without delay the server's answer to the first half of a
/// flight can arrive before the second half is sent: to count exactly, set a delay of a few
/// milliseconds.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    line: Arc<Line>,
    accepting: AbortHandle,
}

/// What all connections share.
#[derive(Debug)]
struct Line {
    server: SocketAddr,
    state: Mutex<State>,
    /// Each change of this number cuts all connections that were made before it.
    cuts: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    to_server: Duration,
    to_client: Duration,
    black_hole: bool,
    /// By the number of the connection.
    round_trips: BTreeMap<u64, u64>,
    last_connection: u64,
}

impl Proxy {
    /// Passes everything on to 127.0.0.1:`server_port`, without delay.
    pub fn start(server_port: u16) -> Result<Self> {
        let listen = || -> io::Result<_> {
            let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            listener.set_nonblocking(true)?;
            let _background = background::handle().enter();
            Ok((listener.local_addr()?, TcpListener::from_std(listener)?))
        };
        let (address, listener) = listen().context("listen for the proxy's clients")?;
        let line = Arc::new(Line {
            server: (Ipv4Addr::LOCALHOST, server_port).into(),
            state: Mutex::default(),
            cuts: watch::Sender::new(0),
        });
        let accepting = background::handle().spawn(accept(listener, Arc::clone(&line))).abort_handle();
        Ok(Self { address, line, accepting })
    }

    /// The port to connect to instead of the server's.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Holds back everything by this much in each direction, so that a round trip takes twice as
    /// much. It holds for what is sent from now on.
    pub fn set_delay(&self, each_way: Duration) {
        self.set_delays(each_way, each_way);
    }

    /// Holds back what goes to the server and what goes to the client by different times.
    pub fn set_delays(&self, to_server: Duration, to_client: Duration) {
        let mut state = self.line.state();
        state.to_server = to_server;
        state.to_client = to_client;
    }

    /// The round trips of all connections since the start or the last [`Proxy::reset`].
    pub fn round_trips(&self) -> u64 {
        self.line.state().round_trips.values().sum()
    }

    /// The same for each connection, in the order in which they were made.
    pub fn round_trips_by_connection(&self) -> Vec<u64> {
        self.line.state().round_trips.values().copied().collect()
    }

    /// Connections made since the start or the last [`Proxy::reset`], and those that have sent since.
    pub fn connections(&self) -> usize {
        self.line.state().round_trips.len()
    }

    /// Counts from zero again. A connection that stays counts its next flight as usual.
    pub fn reset(&self) {
        self.line.state().round_trips.clear();
    }

    /// Breaks all connections, in the middle of whatever they are doing. New ones are served.
    pub fn cut(&self) {
        self.line.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// With `true`, new connections are accepted and nothing is ever answered. Those that are there
    /// go on: [`Proxy::cut`] ends them. `false` serves new connections again.
    pub fn set_black_hole(&self, black_hole: bool) {
        self.line.state().black_hole = black_hole;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

impl Line {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn accept(listener: TcpListener, line: Arc<Line>) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            continue;
        };
        let (line, mut cuts) = (Arc::clone(&line), line.cuts.subscribe());
        tokio::spawn(async move {
            tokio::select! {
                () = serve(client, line) => {}
                _ = cuts.changed() => {}
            }
        });
    }
}

/// Ends when either side has closed and what it had sent is delivered. Dropped, it cuts both sides.
async fn serve(client: TcpStream, line: Arc<Line>) {
    if line.state().black_hole {
        let _client = client;
        return std::future::pending().await;
    }
    // A server that is down looks to the client like a connection that is closed at once.
    let Ok(server) = TcpStream::connect(line.server).await else {
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let connection = Arc::new(Connection::open(line));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (counts, delivers) = (Arc::clone(&connection), Arc::clone(&connection));
    let upwards = forward(
        from_client,
        to_server,
        |chunk| {
            counts.note_sent(chunk);
            counts.line.state().to_server
        },
        || {},
    );
    let downwards = forward(from_server, to_client, |_| connection.line.state().to_client, || delivers.note_answered());
    tokio::select! {
        () = upwards => {}
        () = downwards => {}
    }
}

/// Reads chunks, keeps each for the delay that `delay_of` names, and writes them in their order.
async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut delay_of: impl FnMut(&[u8]) -> Duration,
    mut delivered: impl FnMut(),
) {
    let (sender, mut on_the_way) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let read = async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let chunk = &buffer[..length];
            let due = Instant::now() + delay_of(chunk);
            if sender.send((due, chunk.to_vec())).is_err() {
                return;
            }
        }
    };
    let write = async move {
        while let Some((due, chunk)) = on_the_way.recv().await {
            wait_until(due).await;
            // Noted first: once it is written, the client's next flight may already be on its way.
            delivered();
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(read, write);
}

/// The runtime's timer counts whole milliseconds and is late by up to two of them, so the last ones are slept by a thread,
/// which is late by some tens of microseconds.
async fn wait_until(due: Instant) {
    const LAST: Duration = Duration::from_millis(2);
    if due.saturating_duration_since(Instant::now()) > LAST {
        tokio::time::sleep_until(due - LAST).await;
    }
    let left = due.saturating_duration_since(Instant::now());
    if !left.is_zero() {
        // It fails only when the whole process ends.
        let _ = tokio::task::spawn_blocking(move || std::thread::sleep(left)).await;
    }
}

struct Connection {
    line: Arc<Line>,
    number: u64,
    /// Whether the client was given something since it last sent.
    answered: Mutex<bool>,
}

impl Connection {
    fn open(line: Arc<Line>) -> Self {
        let number = {
            let mut state = line.state();
            state.last_connection += 1;
            let number = state.last_connection;
            state.round_trips.insert(number, 0);
            number
        };
        Self { line, number, answered: Mutex::new(true) }
    }

    fn note_sent(&self, chunk: &[u8]) {
        if chunk != TERMINATE && std::mem::take(&mut *self.answered()) {
            *self.line.state().round_trips.entry(self.number).or_default() += 1;
        }
    }

    fn note_answered(&self) {
        *self.answered() = true;
    }

    fn answered(&self) -> MutexGuard<'_, bool> {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
