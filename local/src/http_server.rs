//! An HTTP/1.1 server on a free port of 127.0.0.1 that hands whole requests to one async function.
//! No TLS, no streaming, no routing.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use crate::background;

pub(crate) type Reply = Response<Full<Bytes>>;

/// Dropped, it closes its port and all its connections.
#[derive(Debug)]
pub(crate) struct HttpServer {
    address: SocketAddr,
    accepting: AbortHandle,
}

impl HttpServer {
    pub(crate) fn start<H, R>(handler: H) -> io::Result<Self>
    where
        H: Fn(Request<Bytes>) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Reply> + Send + 'static,
    {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let _background = background::handle().enter();
        let listener = TcpListener::from_std(listener)?;
        let accepting = tokio::spawn(accept(listener, handler)).abort_handle();
        Ok(Self { address, accepting })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// The connections live in a set of this task's, so that they end with it.
async fn accept<H, R>(listener: TcpListener, handler: H)
where
    H: Fn(Request<Bytes>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Reply> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(serve(stream, handler.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve<H, R>(stream: TcpStream, handler: H)
where
    H: Fn(Request<Bytes>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Reply> + Send + 'static,
{
    // Without it every second answer waits 40 ms for the client's delayed acknowledgement.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| answer(request, handler.clone()));
    // An error here is a client that went away.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer<H, R>(request: Request<Incoming>, handler: H) -> Result<Reply, Infallible>
where
    H: Fn(Request<Bytes>) -> R,
    R: Future<Output = Reply>,
{
    let (head, body) = request.into_parts();
    Ok(match body.collect().await {
        Ok(body) => handler(Request::from_parts(head, body.to_bytes())).await,
        Err(_) => reply(StatusCode::BAD_REQUEST, "the body did not arrive"),
    })
}

/// A reply with a JSON body.
pub(crate) fn reply(status: StatusCode, json: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(json.into()));
    *reply.status_mut() = status;
    let json = hyper::header::HeaderValue::from_static("application/json");
    reply.headers_mut().insert(hyper::header::CONTENT_TYPE, json);
    reply
}
