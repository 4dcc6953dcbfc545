//! Postgres's protocol by hand, on a blocking socket: for the limits, which want to decide on every byte, and for the
//! driver's own questions.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use anyhow::{Context, Result, bail};
use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::backend::{DataRowBody, ErrorFields, Message};
use postgres_protocol::message::frontend;
use sqs_etl_local::postgres::{SUPERUSER, SUPERUSER_PASSWORD};

/// Rows as text.
pub type Rows = Vec<Vec<Option<String>>>;

/// A connection as the superuser of a temporary server.
pub struct Wire {
    stream: TcpStream,
    input: BytesMut,
    chunk: Box<[u8]>,
}

impl Wire {
    pub fn connect(port: u16, database: &str) -> Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).context("connect to Postgres")?;
        stream.set_nodelay(true)?;
        let mut wire = Self { stream, input: BytesMut::new(), chunk: vec![0; 64 * 1024].into() };
        wire.log_in(database).context("log in to Postgres")?;
        Ok(wire)
    }

    /// Connects to where a contender is told to.
    pub fn connect_to_url(url: &str) -> Result<Self> {
        let place = url.rsplit('@').next().and_then(|place| place.split('?').next()).unwrap_or_default();
        let (address, database) = place.split_once('/').context("a URL names a database")?;
        let port = address.rsplit(':').next().unwrap_or_default().parse().context("a URL names a port")?;
        Self::connect(port, database)
    }

    /// Runs statements and returns all their rows.
    pub fn sql(&mut self, statements: &str) -> Result<Rows> {
        let mut flight = BytesMut::new();
        frontend::query(statements, &mut flight)?;
        self.exchange(&flight).with_context(|| shortened(statements))
    }

    /// Sends a flight that ends in a `Sync` or is a simple query, and waits until the server is ready again.
    pub fn exchange(&mut self, flight: &[u8]) -> Result<Rows> {
        self.stream.write_all(flight)?;
        let (mut rows, mut fault) = (Rows::new(), None);
        loop {
            match self.receive()? {
                Message::DataRow(row) => rows.push(texts(&row)?),
                Message::ErrorResponse(error) => fault = fault.or(Some(told(error.fields())?)),
                Message::ReadyForQuery(_) => break,
                _ => {}
            }
        }
        match fault {
            None => Ok(rows),
            Some(fault) => bail!("{fault}"),
        }
    }

    fn log_in(&mut self, database: &str) -> Result<()> {
        let mut out = BytesMut::new();
        frontend::startup_message([("user", SUPERUSER), ("database", database)], &mut out)?;
        self.stream.write_all(&out)?;
        let mut scram = ScramSha256::new(SUPERUSER_PASSWORD.as_bytes(), ChannelBinding::unsupported());
        loop {
            let mut out = BytesMut::new();
            match self.receive()? {
                Message::AuthenticationSasl(_) => {
                    frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), &mut out)?;
                }
                Message::AuthenticationSaslContinue(body) => {
                    scram.update(body.data())?;
                    frontend::sasl_response(scram.message(), &mut out)?;
                }
                Message::AuthenticationSaslFinal(body) => scram.finish(body.data())?,
                Message::ErrorResponse(error) => bail!("{}", told(error.fields())?),
                Message::ReadyForQuery(_) => return Ok(()),
                _ => {}
            }
            self.stream.write_all(&out)?;
        }
    }

    fn receive(&mut self) -> Result<Message> {
        loop {
            if let Some(message) = Message::parse(&mut self.input)? {
                return Ok(message);
            }
            match self.stream.read(&mut self.chunk)? {
                0 => bail!("Postgres hung up"),
                length => self.input.extend_from_slice(&self.chunk[..length]),
            }
        }
    }
}

fn texts(row: &DataRowBody) -> Result<Vec<Option<String>>> {
    let text = |range: std::ops::Range<usize>| String::from_utf8_lossy(&row.buffer()[range]).into_owned();
    Ok(row.ranges().map(|range| Ok(range.map(text))).collect()?)
}

fn told(mut fields: ErrorFields<'_>) -> Result<String> {
    let mut text = String::new();
    while let Some(field) = fields.next()? {
        if matches!(field.type_(), b'C' | b'M') {
            text = format!("{text} {}", String::from_utf8_lossy(field.value_bytes()));
        }
    }
    Ok(text)
}

fn shortened(statements: &str) -> String {
    statements.chars().take(80).collect()
}
