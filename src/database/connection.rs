//! A connection after the login: a flight of statements out, its answers back, however many statements and rows it carries.
//! One round trip, COPY included. What the statements say is not known here.
//!
//! The messages are those of PostgreSQL's manual, chapter "Frontend/Backend Protocol". All statements up to a `sync` are one
//! transaction, which it commits; an error undoes it and skips what follows up to there.
//!
//! **Invariant (Silence):** of what the server refuses, only codes and names of the schema are kept.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, BufMut, BytesMut};
use futures_util::ready;
use postgres_protocol::IsNull;
use postgres_protocol::message::backend::{DataRowBody, ErrorResponseBody, Message};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::CancelToken;
use tokio_postgres::error::SqlState;
use tokio_postgres::fallible_iterator::FallibleIterator;
use tokio_postgres::types::Type;

use super::login::{LoggedIn, Stream};

/// An open connection. Dropped, it is closed at once, whatever is still under way on it.
pub struct Connection {
    stream: Box<dyn Stream>,
    cancel: CancelToken,
    /// The process that the login named.
    process: Option<i32>,
    route: Route,
    /// The names of the statements that the session keeps.
    kept: HashSet<&'static str>,
    limit: Option<u64>,
    outgoing: BytesMut,
    incoming: BytesMut,
    /// From the first byte of a flight to the last of its answers. One that was given up stays so.
    is_in_flight: bool,
}

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    Unknown,
    /// The server.
    Direct,
    /// Somebody in between, who hands sessions on. At the login a pooler makes up the process that serves us.
    Pooled,
}

/// The buffer is sent when it is this full. PgBouncer and Postgres read 4 to 8 KiB at a time, so more brings nothing.
pub const CHUNK: usize = 64 * 1024;

/// Binary, for parameters.
const BINARY: i16 = 1;

/// Why a flight did not come back. The connection is of no use any more.
#[derive(Debug)]
pub struct Lost;

/// What the server says of a statement that it refuses.
#[derive(Debug)]
pub struct ServerError {
    pub sqlstate: SqlState,
    /// The session ends with it.
    pub is_fatal: bool,
    pub column: Option<String>,
    pub constraint: Option<String>,
    /// The function of PostgreSQL's sources that raised it.
    pub routine: Option<String>,
    /// Whether it came from within something: a function, a trigger, a COPY.
    pub has_context: bool,
    /// Whether a COPY had begun in its transaction.
    pub is_in_copy: bool,
    /// The row of a COPY, from 1, at which it came up. A hint: the server may speak another language.
    pub copy_line: Option<usize>,
}

/// What the server answers to one statement.
#[derive(Debug, Default)]
pub struct Answer {
    pub rows: Vec<Row>,
    /// How many rows it returned, added or changed.
    pub count: u64,
}

/// One row of an answer, its fields as text.
pub struct Row(DataRowBody);

/// One parameter of a statement.
pub enum Parameter<'a> {
    Text(&'a str),
    /// A type by its oid, or 0 to have the server find it out, and what appends the value in the type's binary form.
    Encoded(u32, &'a (dyn Fn(&mut BytesMut) + Sync)),
}

/// What a length that does not fit a message would mean.
const TOO_LONG: &str = "a batch is far below the 2 GiB of a message";

impl Connection {
    /// Takes over a session.
    pub(super) fn new(session: LoggedIn) -> Self {
        Self {
            stream: session.stream,
            cancel: session.cancel,
            process: session.process,
            route: Route::Unknown,
            kept: HashSet::new(),
            limit: None,
            outgoing: BytesMut::new(),
            incoming: BytesMut::new(),
            is_in_flight: false,
        }
    }

    /// The capability to cancel what is under way.
    pub fn cancel_token(&self) -> CancelToken {
        self.cancel.clone()
    }

    /// Who is at the other end.
    pub fn route(&self) -> Route {
        self.route
    }

    /// Notes the process that has answered: `pg_backend_pid()`.
    pub fn answered_by(&mut self, process: i32) {
        self.route = if self.process == Some(process) { Route::Direct } else { Route::Pooled };
    }

    /// The session's own `statement_timeout` in milliseconds, if its user has set one.
    pub fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// Notes that limit, or that it is not known.
    pub fn note_limit(&mut self, millis: Option<u64>) {
        self.limit = millis;
    }

    /// Begins a flight.
    pub fn flight(&mut self) -> Flight<'_> {
        debug_assert!(!self.is_in_flight, "a connection in flight is thrown away");
        self.is_in_flight = true;
        self.outgoing.clear();
        Flight {
            connection: self,
            rows: Vec::new(),
            open: Vec::new(),
            refused: None,
            is_in_copy: false,
            landed: Vec::new(),
            due: 0,
            parsing: VecDeque::new(),
        }
    }

    /// Whether it can be seen that nothing can be sent any more: the server hung up or said something last, or a flight was
    /// given up.
    pub(super) fn is_closed(&mut self) -> bool {
        let quiet = &mut Context::from_waker(Waker::noop());
        let is_alive = loop {
            match self.poll_receive(quiet) {
                Poll::Pending => break true,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => break false,
            }
        };
        // Between flights a server may tell of a changed setting; an error is a farewell.
        !is_alive || self.is_in_flight || self.incoming.first() == Some(&b'E')
    }

    /// A round trip that asks for nothing.
    pub(super) async fn try_out(&mut self) -> Result<(), Lost> {
        let mut flight = self.flight();
        flight.sync();
        flight.land().await.map(drop)
    }

    /// Sends what is in the buffer, and takes in meanwhile what the server says, so that neither waits for the other for ever.
    async fn send(&mut self) -> io::Result<()> {
        poll_fn(|cx| {
            while self.poll_receive(cx)?.is_ready() {}
            while self.outgoing.has_remaining() {
                let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.outgoing))?;
                if sent == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.outgoing.advance(sent);
            }
            Pin::new(&mut self.stream).poll_flush(cx)
        })
        .await
    }

    async fn receive(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_receive(cx)).await
    }

    /// Reads once; an error at the end of the stream.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut buffer = [0; 8 * 1024];
        let mut buffer = ReadBuf::new(&mut buffer);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        if buffer.filled().is_empty() {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.incoming.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(()))
    }
}

/// **Invariant (Silence):** what is in the buffers are rows.
impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}

/// Statements on their way. Given up midway, it leaves the connection unusable.
pub struct Flight<'a> {
    connection: &'a mut Connection,
    /// Of the transaction that is being answered: the rows of its current statement, the answers before, the error.
    rows: Vec<Row>,
    open: Vec<Answer>,
    refused: Option<ServerError>,
    is_in_copy: bool,
    landed: Vec<Result<Vec<Answer>, ServerError>>,
    /// Transactions that were sent.
    due: usize,
    /// The names of the statements that are on their way, each with the number of its transaction.
    parsing: VecDeque<(usize, Option<&'static str>)>,
}

impl Flight<'_> {
    /// Adds a statement. Its rows come back as text.
    pub fn statement(&mut self, text: &str, parameters: &[Parameter<'_>]) {
        self.parse(None, text, parameters);
        self.execute("", parameters);
    }

    /// The same, but the session keeps the statement under the name, always the same text under one. Not for sessions that
    /// a pooler hands on.
    pub fn kept_statement(&mut self, name: &'static str, text: &str, parameters: &[Parameter<'_>]) {
        if !self.connection.kept.contains(name) {
            self.parse(Some(name), text, parameters);
        }
        self.execute(name, parameters);
    }

    /// The same, but it is not executed: Postgres plans it, or finds its plan still good, and locks what it is about.
    pub fn planned_statement(&mut self, name: &'static str, text: &str) {
        if !self.connection.kept.contains(name) {
            self.parse(Some(name), text, &[]);
        }
        self.bind(name, &[]);
    }

    fn parse(&mut self, name: Option<&'static str>, text: &str, parameters: &[Parameter<'_>]) {
        let oids = parameters.iter().map(|parameter| match parameter {
            Parameter::Text(_) => Type::TEXT.oid(),
            Parameter::Encoded(oid, _) => *oid,
        });
        let out = &mut self.connection.outgoing;
        frontend::parse(name.unwrap_or_default(), text, oids, out).expect("a statement has no NUL");
        self.parsing.push_back((self.due, name));
    }

    fn execute(&mut self, name: &str, parameters: &[Parameter<'_>]) {
        self.bind(name, parameters);
        frontend::execute("", 0, &mut self.connection.outgoing).expect("an unnamed portal has no NUL");
    }

    fn bind(&mut self, name: &str, parameters: &[Parameter<'_>]) {
        let out = &mut self.connection.outgoing;
        let encode = |parameter: &Parameter<'_>, out: &mut BytesMut| {
            match parameter {
                Parameter::Text(text) => out.put_slice(text.as_bytes()),
                Parameter::Encoded(_, encode) => encode(out),
            }
            Ok(IsNull::No)
        };
        frontend::bind("", name, [BINARY], parameters, encode, [], out).map_err(drop).expect(TOO_LONG);
    }

    /// Adds a `copy … from stdin (format binary)`, kept under the name, and its rows, each appended by `encode`; parts of it
    /// are sent meanwhile.
    pub async fn copy<R>(
        &mut self,
        name: &'static str,
        text: &str,
        rows: impl Iterator<Item = R>,
        encode: impl Fn(R, &mut BytesMut),
    ) -> Result<(), Lost> {
        self.kept_statement(name, text, &[]);
        let mut start = self.open_copy_data();
        self.connection.outgoing.put_slice(COPY_HEADER);
        for row in rows {
            encode(row, &mut self.connection.outgoing);
            if self.connection.outgoing.len() >= CHUNK {
                self.close_copy_data(start);
                self.connection.send().await.map_err(|_| Lost)?;
                self.take_in()?;
                if self.refused.is_some() {
                    // Whatever else is sent up to the sync would be skipped.
                    return Ok(());
                }
                start = self.open_copy_data();
            }
        }
        self.connection.outgoing.put_i16(COPY_END);
        self.close_copy_data(start);
        frontend::copy_done(&mut self.connection.outgoing);
        Ok(())
    }

    fn open_copy_data(&mut self) -> usize {
        let out = &mut self.connection.outgoing;
        out.put_u8(b'd');
        out.put_i32(0);
        out.len() - size_of::<i32>()
    }

    fn close_copy_data(&mut self, start: usize) {
        let out = &mut self.connection.outgoing;
        let length = i32::try_from(out.len() - start).expect(TOO_LONG);
        out[start..start + size_of::<i32>()].copy_from_slice(&length.to_be_bytes());
    }

    /// Ends a transaction: what was sent since the last one is committed, if nothing of it was refused.
    pub fn sync(&mut self) {
        frontend::sync(&mut self.connection.outgoing);
        self.due += 1;
    }

    /// Sends what was not sent yet and waits for the answers: for each transaction those of its statements, in their order, or
    /// the error that undid it.
    pub async fn land(mut self) -> Result<Vec<Result<Vec<Answer>, ServerError>>, Lost> {
        self.connection.send().await.map_err(|_| Lost)?;
        loop {
            self.take_in()?;
            if self.landed.len() == self.due {
                self.connection.is_in_flight = false;
                return Ok(self.landed);
            }
            if let Some(farewell) = self.refused.take_if(|error| error.is_fatal) {
                return Ok(vec![Err(farewell)]);
            }
            self.connection.receive().await.map_err(|_| Lost)?;
        }
    }

    /// Understands what has arrived so far.
    fn take_in(&mut self) -> Result<(), Lost> {
        while let Some(message) = Message::parse(&mut self.connection.incoming).map_err(|_| Lost)? {
            match message {
                Message::ParseComplete => {
                    let (_, name) = self.parsing.pop_front().ok_or(Lost)?;
                    self.connection.kept.extend(name);
                }
                Message::DataRow(row) => self.rows.push(Row(row)),
                Message::CommandComplete(done) => {
                    let count = done.tag().ok().and_then(|tag| tag.rsplit(' ').next()?.parse().ok()).unwrap_or(0);
                    self.open.push(Answer { rows: std::mem::take(&mut self.rows), count });
                }
                Message::CopyInResponse(_) => self.is_in_copy = true,
                Message::ErrorResponse(error) => {
                    self.refused = Some(ServerError { is_in_copy: self.is_in_copy, ..ServerError::from(&error) });
                }
                Message::ReadyForQuery(_) => self.land_transaction(),
                // Notices and settings may come at any time; the others need no answer.
                _ => {}
            }
        }
        Ok(())
    }

    fn land_transaction(&mut self) {
        // What stood behind an error was skipped.
        let transaction = self.landed.len();
        while self.parsing.pop_front_if(|(of, _)| *of == transaction).is_some() {}
        self.rows.clear();
        self.is_in_copy = false;
        let answers = std::mem::take(&mut self.open);
        self.landed.push(self.refused.take().map_or(Ok(answers), Err));
    }
}

/// Signature, flags, length of the header's extension (PostgreSQL's manual, COPY, "Binary Format").
const COPY_HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const COPY_END: i16 = -1;

impl From<&ErrorResponseBody> for ServerError {
    fn from(error: &ErrorResponseBody) -> Self {
        let mut found = ServerError {
            sqlstate: SqlState::INTERNAL_ERROR,
            is_fatal: false,
            column: None,
            constraint: None,
            routine: None,
            has_context: false,
            is_in_copy: false,
            copy_line: None,
        };
        let mut fields = error.fields();
        while let Ok(Some(field)) = fields.next() {
            let text = String::from_utf8_lossy(field.value_bytes());
            match field.type_() {
                b'C' => found.sqlstate = SqlState::from_code(&text),
                // Unlike `S`, this one is not translated.
                b'V' => found.is_fatal = matches!(&*text, "FATAL" | "PANIC"),
                b'c' => found.column = Some(text.into_owned()),
                b'n' => found.constraint = Some(text.into_owned()),
                b'R' => found.routine = Some(text.into_owned()),
                b'W' => {
                    found.has_context = true;
                    found.copy_line = copy_line(&text);
                }
                _ => {}
            }
        }
        found
    }
}

/// The number in `COPY table, line 17, column name`, which is the last line of the context of what a COPY meets.
fn copy_line(context: &str) -> Option<usize> {
    let (_, place) = context.lines().rfind(|line| line.starts_with("COPY "))?.split_once(", line ")?;
    let digits = place.find(|c: char| !c.is_ascii_digit()).unwrap_or(place.len());
    place[..digits].parse().ok()
}

impl Row {
    /// A field's text, if it is there and not null.
    pub fn get(&self, column: usize) -> Option<&str> {
        let mut rest = self.0.buffer();
        for _ in 0..column {
            skip_field(&mut rest)?;
        }
        std::str::from_utf8(skip_field(&mut rest)??).ok()
    }

    /// A field's number.
    pub fn number<T: std::str::FromStr>(&self, column: usize) -> Option<T> {
        self.get(column)?.parse().ok()
    }
}

/// Takes one field off: `None` if there is none, `Some(None)` if it is null.
fn skip_field<'a>(rest: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
        *rest = after;
        return Some(None);
    };
    let (field, after) = after.split_at_checked(length)?;
    *rest = after;
    Some(Some(field))
}

/// **Invariant (Silence):** nothing of what the row says.
impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Row")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_a_copy_is_read_from_the_context() {
        let check = |context: &str, expected| assert_eq!(copy_line(context), expected, "{context}");
        check("COPY user_logins, line 17", Some(17));
        check("COPY user_logins, line 17, column app_version", Some(17));
        check("PL/pgSQL function f() line 3 at RAISE\nCOPY user_logins, line 2", Some(2));
        check("PL/pgSQL function f() line 3 at RAISE", None);
        check("COPY user_logins, Zeile 17", None);
        check("COPY user_logins, line 99999999999999999999999", None);
        check("", None);
    }
}
