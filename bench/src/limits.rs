//! Postgres's own limit: rows that somebody else prepared, sent by COPY in one flight and committed in one round trip.

use anyhow::{Context, Result};
use bytes::{BufMut, BytesMut};
use postgres_protocol::IsNull;
use postgres_protocol::message::frontend::{self, CopyData};
use serde_json::Value;
use uuid::Uuid;

use crate::protocol::{Clock, Tally};
use crate::wire::Wire;

const COPY: &str = "copy user_logins (message_id, user_id, device_type, masked_ip, masked_device_id, locale, \
                    app_version, create_date) from stdin (format binary)";
/// The name under which the session keeps it.
const KEPT: &str = "limit";
const COLUMNS: i16 = 8;
/// Rows of one COPY where there are several.
const ROWS_OF_MANY: usize = 100;
/// Bytes of one `CopyData` message.
const CHUNK: usize = 64 * 1024;
/// 2026-01-01, counted from 2000-01-01.
const SENT_DATE: i32 = 9_497;

/// How the rows of a batch are divided.
#[derive(Clone, Copy, Debug)]
pub enum Division {
    OneCopy,
    ManyCopies,
}

/// Has the session keep the COPY, so that no batch pays for its being parsed.
pub fn prepare(wire: &mut Wire) -> Result<()> {
    let mut out = BytesMut::new();
    frontend::parse(KEPT, COPY, [], &mut out)?;
    frontend::sync(&mut out);
    wire.exchange(&out).map(drop)
}

/// Sends the batches' rows, which are made outside the clock.
pub fn run(wire: &mut Wire, division: Division, events: &[Vec<u8>]) -> Result<Tally> {
    let batches = events.iter().map(|event| rows_of(event)).collect::<Result<Vec<_>>>()?;
    let flights = batches.iter().map(|rows| flight(rows, division)).collect::<Result<Vec<_>>>()?;
    let clock = Clock::start();
    for flight in &flights {
        wire.exchange(flight)?;
    }
    let (wall_ns, cpu_ns) = clock.read();
    Ok(Tally { wall_ns, cpu_ns, stored: batches.iter().map(Vec::len).sum(), ..Tally::default() })
}

fn flight(rows: &[BytesMut], division: Division) -> Result<BytesMut> {
    let rows_of_one = match division {
        Division::OneCopy => rows.len().max(1),
        Division::ManyCopies => ROWS_OF_MANY,
    };
    let mut out = BytesMut::new();
    for rows in rows.chunks(rows_of_one) {
        let no_values = |(): (), _: &mut BytesMut| Ok(IsNull::Yes);
        if frontend::bind("", KEPT, [0; 0], [(); 0], no_values, [0; 0], &mut out).is_err() {
            anyhow::bail!("a bind without values cannot fail");
        }
        frontend::execute("", 0, &mut out)?;
        for chunk in copy_stream(rows).chunks(CHUNK) {
            CopyData::new(chunk)?.write(&mut out);
        }
        frontend::copy_done(&mut out);
    }
    frontend::sync(&mut out);
    Ok(out)
}

fn copy_stream(rows: &[BytesMut]) -> BytesMut {
    let mut stream = BytesMut::new();
    stream.put_slice(b"PGCOPY\n\xff\r\n\0");
    stream.put_i32(0);
    stream.put_i32(0);
    for row in rows {
        stream.put_slice(row);
    }
    stream.put_i16(-1);
    stream
}

/// An event's rows in COPY's binary form. The pseudonyms are as long as real ones, and real work is what they lack.
fn rows_of(event: &[u8]) -> Result<Vec<BytesMut>> {
    let event: Value = serde_json::from_slice(event).context("read an event")?;
    let records = event["Records"].as_array().context("an event has records")?;
    records.iter().map(row_of).collect()
}

fn row_of(record: &Value) -> Result<BytesMut> {
    let body: Value = serde_json::from_str(record["body"].as_str().context("a record has a body")?)?;
    let id = Uuid::parse_str(record["messageId"].as_str().context("a record has an id")?)?;
    let pseudonym = format!("k1:{}{}", id.simple(), Uuid::from_u128(!id.as_u128()).simple());
    let mut row = BytesMut::new();
    row.put_i16(COLUMNS);
    field(&mut row, Some(id.as_bytes()));
    field(&mut row, body["user_id"].as_str().map(str::as_bytes));
    field(&mut row, body["device_type"].as_str().map(str::as_bytes));
    field(&mut row, Some(pseudonym.as_bytes()));
    field(&mut row, Some(pseudonym.as_bytes()));
    field(&mut row, body["locale"].as_str().map(str::as_bytes));
    field(&mut row, Some(&2_003_000_i32.to_be_bytes()));
    field(&mut row, Some(&SENT_DATE.to_be_bytes()));
    Ok(row)
}

fn field(row: &mut BytesMut, value: Option<&[u8]>) {
    match value {
        None => row.put_i32(-1),
        Some(value) => {
            row.put_i32(i32::try_from(value.len()).expect("a made-up value is short"));
            row.put_slice(value);
        }
    }
}
