//! The Lambda Runtime API of one execution environment, as a custom runtime sees it: `next`,
//! `response`, `error`, `init/error` and SnapStart's `restore`. No streamed responses, no
//! extensions, no telemetry.
//!
//! Paths and headers: <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hyper::body::Bytes;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode};
use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot, watch};
use uuid::Uuid;

use crate::http_server::{HttpServer, Reply, reply};

const VERSION: &str = "/2018-06-01/runtime/";
const ACCEPTED: &str = r#"{"status":"OK"}"#;

/// What the function said to one event.
#[derive(Debug)]
pub(crate) enum Answer {
    Response(Bytes),
    Error(Bytes),
}

/// How far the environment's start has come.
#[derive(Clone, Debug)]
pub(crate) enum Phase {
    Starting,
    /// It asked for `restore/next` at this time; SnapStart would take its snapshot here.
    Restoring(Instant),
    /// It asked for its first event.
    Ready {
        restoring: Option<Instant>,
        at: Instant,
    },
    /// It reported that it cannot start.
    Failed(Bytes),
}

/// The server in front of one environment. Dropped, it hangs up.
#[derive(Debug)]
pub(crate) struct RuntimeApi {
    desk: Arc<Desk>,
    events: mpsc::UnboundedSender<Event>,
    server: HttpServer,
}

/// An answer that is awaited. Dropped, it is no longer.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) request_id: String,
    pub(crate) answer: oneshot::Receiver<Answer>,
    desk: Arc<Desk>,
}

impl RuntimeApi {
    pub(crate) fn start(function_arn: &str) -> io::Result<Self> {
        let (events, queue) = mpsc::unbounded_channel();
        let desk = Arc::new(Desk {
            function_arn: function_arn.to_owned(),
            queue: AsyncMutex::new(queue),
            awaited: Mutex::default(),
            phase: watch::Sender::new(Phase::Starting),
        });
        let behind = Arc::clone(&desk);
        let server = HttpServer::start(move |request| {
            let desk = Arc::clone(&behind);
            async move { desk.answer(request).await }
        })?;
        Ok(Self { desk, events, server })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    pub(crate) fn phase(&self) -> watch::Receiver<Phase> {
        self.desk.phase.subscribe()
    }

    /// Queues an event for the next poll. The deadline that the function is told is `timeout` away.
    pub(crate) fn hand_over(&self, body: Bytes, timeout: Duration) -> Pending {
        let request_id = Uuid::new_v4().to_string();
        let (sender, answer) = oneshot::channel();
        self.desk.awaited().insert(request_id.clone(), sender);
        let deadline = SystemTime::now() + timeout;
        let event = Event { request_id: request_id.clone(), body, deadline_ms: epoch_ms(deadline) };
        // The queue's other end is the desk, which we hold.
        let _ = self.events.send(event);
        Pending { request_id, answer, desk: Arc::clone(&self.desk) }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.desk.awaited().remove(&self.request_id);
    }
}

#[derive(Debug)]
struct Event {
    request_id: String,
    body: Bytes,
    deadline_ms: u128,
}

/// What the requests of one environment share.
#[derive(Debug)]
struct Desk {
    function_arn: String,
    /// Managed concurrency polls several times at once; each event goes to one of the polls.
    queue: AsyncMutex<mpsc::UnboundedReceiver<Event>>,
    awaited: Mutex<HashMap<String, oneshot::Sender<Answer>>>,
    phase: watch::Sender<Phase>,
}

impl Desk {
    async fn answer(&self, request: Request<Bytes>) -> Reply {
        let path = request.uri().path().to_owned();
        let Some(path) = path.strip_prefix(VERSION) else {
            return not_found();
        };
        let segments: Vec<&str> = path.split('/').collect();
        match (request.method(), segments.as_slice()) {
            (&Method::GET, ["invocation", "next"]) => self.next().await,
            (&Method::POST, ["invocation", id, "response"]) => self.settle(id, Answer::Response(request.into_body())),
            (&Method::POST, ["invocation", id, "error"]) => self.settle(id, Answer::Error(request.into_body())),
            (&Method::GET, ["restore", "next"]) => self.restore(),
            (&Method::POST, ["init" | "restore", "error"]) => self.fail(request.into_body()),
            _ => not_found(),
        }
    }

    async fn next(&self) -> Reply {
        self.note_first_poll();
        let event = self.queue.lock().await.recv().await;
        match event {
            Some(event) => self.invocation(event),
            None => reply(StatusCode::GONE, r#"{"errorType":"Shutdown"}"#),
        }
    }

    fn note_first_poll(&self) {
        self.phase.send_if_modified(|phase| {
            let restoring = match phase {
                Phase::Starting => None,
                Phase::Restoring(at) => Some(*at),
                Phase::Ready { .. } | Phase::Failed(_) => return false,
            };
            *phase = Phase::Ready { restoring, at: Instant::now() };
            true
        });
    }

    fn invocation(&self, event: Event) -> Reply {
        let trace = format!("Root=1-{:08x}-{}", event.deadline_ms / 1000, &Uuid::new_v4().simple().to_string()[..24]);
        let headers = [
            ("lambda-runtime-aws-request-id", event.request_id),
            ("lambda-runtime-deadline-ms", event.deadline_ms.to_string()),
            ("lambda-runtime-invoked-function-arn", self.function_arn.clone()),
            ("lambda-runtime-trace-id", trace),
        ];
        let mut reply = reply(StatusCode::OK, event.body);
        for (name, value) in headers {
            let value = HeaderValue::from_str(&value).expect("ids, numbers and ARNs are ASCII");
            reply.headers_mut().insert(HeaderName::from_static(name), value);
        }
        reply
    }

    /// An id that nobody awaits is one that timed out, or that the function made up.
    fn settle(&self, request_id: &str, answer: Answer) -> Reply {
        let Some(awaited) = self.awaited().remove(request_id) else {
            return reply(StatusCode::BAD_REQUEST, r#"{"errorType":"InvalidRequestID"}"#);
        };
        // Nobody waits any more if the invocation timed out this moment.
        let _ = awaited.send(answer);
        reply(StatusCode::ACCEPTED, ACCEPTED)
    }

    /// Lambda takes its snapshot here and answers when it restores it, which here is at once.
    fn restore(&self) -> Reply {
        self.phase.send_replace(Phase::Restoring(Instant::now()));
        reply(StatusCode::OK, "")
    }

    fn fail(&self, error: Bytes) -> Reply {
        self.phase.send_replace(Phase::Failed(error));
        reply(StatusCode::ACCEPTED, ACCEPTED)
    }

    fn awaited(&self) -> std::sync::MutexGuard<'_, HashMap<String, oneshot::Sender<Answer>>> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn not_found() -> Reply {
    reply(StatusCode::NOT_FOUND, r#"{"errorType":"InvalidPath"}"#)
}

fn epoch_ms(time: SystemTime) -> u128 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()
}
