//! The login is tokio-postgres's; the stream behind it is taken back afterwards, because its client cannot send a COPY and
//! its rows in one flight.

use std::io;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures_util::future::{BoxFuture, Either, select};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio_postgres::config::{Host, SslMode, SslNegotiation, TargetSessionAttrs};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres::{CancelToken, Config, Socket};

/// What bytes to and from the server go through, once TLS is up or is not wanted.
pub trait Stream: TlsStream + Send + Unpin {}
impl<T: TlsStream + Send + Unpin> Stream for T {}

/// A session that has just begun.
pub struct LoggedIn {
    pub stream: Box<dyn Stream>,
    pub cancel: CancelToken,
    /// The process that the server says will serve us.
    pub process: Option<i32>,
}

/// Logs in without TLS.
pub async fn plain(config: &Config) -> Result<LoggedIn, tokio_postgres::Error> {
    let mut config = config.clone();
    // tokio-postgres gives nothing back that did not go through "TLS", so it is given one that is none.
    config.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
    if config.get_hosts().is_empty() {
        let addresses: Vec<String> = config.get_hostaddrs().iter().map(ToString::to_string).collect();
        for address in &addresses {
            config.host(address);
        }
    }
    match config.get_hosts() {
        [Host::Unix(folder)] => through_socket_file(folder.clone(), &config).await,
        _ => with_tls(&config, NoTls).await,
    }
}

/// Logs in through whatever `tls` makes.
pub async fn with_tls<M>(config: &Config, tls: M) -> Result<LoggedIn, tokio_postgres::Error>
where
    M: MakeTlsConnect<Socket> + Send,
    M::Stream: Send + 'static,
    M::TlsConnect: Send + 'static,
    <M::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    let slot = Slot::default();
    let (client, mut connection) = config.connect(Keeping { tls, slot: slot.clone() }).await?;
    if config.get_target_session_attrs() != TargetSessionAttrs::Any {
        // It has asked the server, and not read all of the answer.
        match select(pin!(client.check_connection()), &mut connection).await {
            Either::Left((result, _)) => result?,
            Either::Right((result, check)) => result.and(check.await)?,
        }
    }
    let cancel = client.cancel_token();
    drop((client, connection));
    Ok(slot.logged_in(cancel))
}

/// tokio-postgres offers no way to have "TLS" over a socket file, so the connection is made here. What it then lacks: a token of
/// it cannot cancel, and `target_session_attrs` is not looked at.
async fn through_socket_file(folder: PathBuf, config: &Config) -> Result<LoggedIn, tokio_postgres::Error> {
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let Ok(stream) = UnixStream::connect(folder.join(format!(".s.PGSQL.{port}"))).await else {
        // Its own attempt fails the same way, with an error that only it can make.
        return with_tls(config, NoTls).await;
    };
    let slot = Slot::default();
    let tls = Keep { tls: NoTls, slot: slot.clone() };
    let (client, connection) = config.connect_raw(stream, tls).await?;
    let cancel = client.cancel_token();
    drop((client, connection));
    Ok(slot.logged_in(cancel))
}

/// "TLS" that passes everything on as it is.
#[derive(Clone, Copy)]
pub struct NoTls;

/// A stream in clear.
pub struct Clear<S>(S);

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> MakeTlsConnect<S> for NoTls {
    type Stream = Clear<S>;
    type TlsConnect = NoTls;
    type Error = io::Error;

    fn make_tls_connect(&mut self, _: &str) -> io::Result<NoTls> {
        Ok(NoTls)
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> TlsConnect<S> for NoTls {
    type Stream = Clear<S>;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Clear<S>>>;

    fn connect(self, stream: S) -> Self::Future {
        std::future::ready(Ok(Clear(stream)))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Clear<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Clear<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Clear<S> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

/// Makes connections of another maker, and keeps a hand on the last one.
struct Keeping<M> {
    tls: M,
    slot: Slot,
}

impl<S, M> MakeTlsConnect<S> for Keeping<M>
where
    M: MakeTlsConnect<S>,
    M::Stream: Send + 'static,
    M::TlsConnect: Send + 'static,
    <M::TlsConnect as TlsConnect<S>>::Future: Send,
    S: Send + 'static,
{
    type Stream = Shared;
    type TlsConnect = Keep<M::TlsConnect>;
    type Error = M::Error;

    fn make_tls_connect(&mut self, domain: &str) -> Result<Self::TlsConnect, Self::Error> {
        Ok(Keep { tls: self.tls.make_tls_connect(domain)?, slot: self.slot.clone() })
    }
}

struct Keep<T> {
    tls: T,
    slot: Slot,
}

impl<S, T> TlsConnect<S> for Keep<T>
where
    T: TlsConnect<S> + Send + 'static,
    T::Stream: Send + 'static,
    T::Future: Send,
    S: Send + 'static,
{
    type Stream = Shared;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = BoxFuture<'static, Result<Shared, Self::Error>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move {
            let stream = self.tls.connect(stream).await.map_err(Into::into)?;
            Ok(self.slot.keep(Box::new(stream)))
        })
    }
}

/// Where the stream is found after the login.
#[derive(Clone, Default)]
struct Slot(Arc<Mutex<Option<Shared>>>);

impl Slot {
    fn keep(&self, stream: Box<dyn Stream>) -> Shared {
        let shared = Shared(Arc::new(Mutex::new(LoggingIn { stream, said: Vec::new() })));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(shared.clone());
        shared
    }

    fn logged_in(self, cancel: CancelToken) -> LoggedIn {
        let shared = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let shared = shared.expect("a login goes through a stream");
        let inner = Arc::into_inner(shared.0).expect("tokio-postgres has dropped its half");
        let LoggingIn { stream, said } = inner.into_inner().unwrap_or_else(PoisonError::into_inner);
        LoggedIn { stream, cancel, process: process(&said) }
    }
}

/// A stream during the login, with what the server has said.
struct LoggingIn {
    stream: Box<dyn Stream>,
    said: Vec<u8>,
}

/// The stream that tokio-postgres works with; we hold another hand on it.
#[derive(Clone)]
struct Shared(Arc<Mutex<LoggingIn>>);

impl Shared {
    fn with<T>(&self, work: impl FnOnce(&mut LoggingIn) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl AsyncRead for Shared {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.with(|inner| {
            let before = buffer.filled().len();
            let result = Pin::new(&mut inner.stream).poll_read(cx, buffer);
            inner.said.extend(&buffer.filled()[before..]);
            result
        })
    }
}

impl AsyncWrite for Shared {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.with(|inner| Pin::new(&mut inner.stream).poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|inner| Pin::new(&mut inner.stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|inner| Pin::new(&mut inner.stream).poll_shutdown(cx))
    }
}

impl TlsStream for Shared {
    fn channel_binding(&self) -> ChannelBinding {
        self.with(|inner| inner.stream.channel_binding())
    }
}

/// The process id of a BackendKeyData message: `K`, length, process id, key.
fn process(said: &[u8]) -> Option<i32> {
    let mut rest = said;
    loop {
        let (&[tag, l0, l1, l2, l3], _) = rest.split_first_chunk()?;
        let length = usize::try_from(u32::from_be_bytes([l0, l1, l2, l3])).ok()?;
        if tag == b'K' {
            return Some(i32::from_be_bytes(rest.get(5..9)?.try_into().ok()?));
        }
        rest = rest.get(1 + length..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_found_among_what_the_server_says() {
        let said = b"R\0\0\0\x08\0\0\0\0S\0\0\0\x08a\0b\0K\0\0\0\x0c\0\0\x01\x02\0\0\0\x09Z\0\0\0\x05I";
        assert_eq!(process(said), Some(0x102));
        assert_eq!(process(&said[..25]), None);
        assert_eq!(process(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I"), None);
        assert_eq!(process(b"R\xff\xff\xff\xff"), None);
    }
}
