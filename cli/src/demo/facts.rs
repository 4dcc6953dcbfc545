//! What became of the messages, as queue, function and table tell it, each for itself; and whether they agree.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::scene::Scene;

use super::delivery::Delivery;
use super::journal::{HandedBack, Journal};
use super::plan::{Plan, Planned};

/// The columns that the screen shows, in the table's order.
pub const COLUMNS: [&str; 7] =
    ["user_id", "device_type", "masked_ip", "masked_device_id", "locale", "app_version", "create_date"];
const FIRST_ROWS: usize = 5;
const VISITORS: usize = 2;

/// All that the screen tells.
#[derive(Debug, Default)]
pub struct Facts {
    /// Different message ids.
    pub sent: usize,
    pub stored: usize,
    pub dead: usize,
    /// Sent, but neither stored nor in the dead-letter queue.
    pub lost: usize,
    /// Stored and in the dead-letter queue too.
    pub both: usize,
    /// The table after each time that all was sent.
    pub passes: Vec<Table>,
    pub deliveries: Deliveries,
    pub first_rows: Vec<[Option<String>; COLUMNS.len()]>,
    /// Columns with nulls in them, and how many.
    pub nulls: Vec<(&'static str, usize)>,
    pub devices: usize,
    /// The devices with the most logins, of those with more than one.
    pub visitors: Vec<Visitor>,
    pub spelled: Option<Spelled>,
    pub failures: Vec<Failures>,
    pub speed: Speed,
}

/// A table that may be compared with itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    pub rows: usize,
    /// Over every value of every row.
    pub fingerprint: String,
}

/// Every delivery has one outcome. The total is the queue's, the outcomes are the function's.
#[derive(Debug, Default)]
pub struct Deliveries {
    pub total: usize,
    pub batches: usize,
    pub batch_size: usize,
    pub committed: usize,
    pub already_present: usize,
    pub handed_back: usize,
    /// Of those already present: came again because the answer for their batch got lost.
    pub answer_lost: usize,
}

/// One device's logins, told by its pseudonym.
#[derive(Debug)]
pub struct Visitor {
    pub user_id: String,
    pub pseudonym: String,
    pub logins: usize,
}

/// One address that was spelled in several ways.
#[derive(Debug)]
pub struct Spelled {
    pub ways: usize,
    pub rows: usize,
    pub pseudonyms: usize,
}

/// The messages that were handed back for one reason.
#[derive(Debug)]
pub struct Failures {
    pub reason: String,
    pub detail: String,
    /// Where the messages stand in the file or among those made up.
    pub places: Vec<usize>,
    /// How often all of them together were handed back.
    pub times: usize,
}

/// How long the function took, its starts not counted.
#[derive(Debug, Default)]
pub struct Speed {
    /// Sorted.
    pub invocations: Vec<Duration>,
    pub rows: usize,
}

impl Facts {
    /// Looks at the table after all was sent.
    pub fn note_pass(&mut self, scene: &Scene) -> Result<()> {
        let fingerprint = "select md5(coalesce(string_agg(t::text, ',' order by message_id), '')) from user_logins t";
        let rows = number(&scene.value("select count(*) from user_logins")?)?;
        self.passes.push(Table { rows, fingerprint: scene.value(fingerprint)? });
        Ok(())
    }

    /// Asks queue, function and table.
    pub fn gather(&mut self, plan: &Plan, delivery: &Delivery, scene: &Scene) -> Result<()> {
        let journal = Journal::of(delivery.function, delivery.times.len())?;
        self.deliveries = deliveries(delivery, &journal);
        self.failures = failures(plan, &journal.handed_back);
        self.count_ids(plan, delivery, scene)?;
        self.look_into_table(plan, scene)?;
        let mut invocations = delivery.times.clone();
        invocations.sort_unstable();
        self.speed = Speed { invocations, rows: self.deliveries.committed };
        Ok(())
    }

    /// Whether every message is in exactly one place, every delivery has one outcome, and sending all again changed
    /// nothing.
    pub fn is_conserved(&self) -> bool {
        let Deliveries { total, committed, already_present, handed_back, .. } = self.deliveries;
        let every_message = self.lost == 0 && self.both == 0 && self.sent == self.stored + self.dead;
        let every_delivery = total == committed + already_present + handed_back && committed == self.stored;
        every_message && every_delivery && self.is_unchanged()
    }

    /// Whether the table was the same each time that all was sent.
    pub fn is_unchanged(&self) -> bool {
        self.passes.windows(2).all(|pair| pair[0] == pair[1])
    }

    fn count_ids(&mut self, plan: &Plan, delivery: &Delivery, scene: &Scene) -> Result<()> {
        let stored = scene.rows("select message_id from user_logins")?;
        let stored: HashSet<String> = stored.into_iter().flatten().flatten().collect();
        let dead = delivery.dead_letters();
        let sent: HashSet<&String> = plan.messages.iter().map(|message| &message.id).collect();
        self.lost = sent.iter().filter(|id| !stored.contains(**id) && !dead.contains(**id)).count();
        self.both = stored.intersection(&dead).count();
        (self.sent, self.stored, self.dead) = (sent.len(), stored.len(), dead.len());
        Ok(())
    }

    fn look_into_table(&mut self, plan: &Plan, scene: &Scene) -> Result<()> {
        self.first_rows = first_rows(scene)?;
        self.nulls = nulls(scene)?;
        self.devices = number(&scene.value("select count(distinct masked_device_id) from user_logins")?)?;
        self.visitors = visitors(scene)?;
        self.spelled = plan.spelled.as_ref().map(|planned| spelled(planned.ways, &planned.ids, scene)).transpose()?;
        Ok(())
    }
}

fn deliveries(delivery: &Delivery, journal: &Journal) -> Deliveries {
    let sum = |of: fn(&super::journal::BatchDone) -> usize| journal.batches.values().map(of).sum();
    let lost = delivery.lost.as_ref().and_then(|request_id| journal.batches.get(request_id));
    Deliveries {
        // The lost batch's bad messages were handed back to nobody.
        total: delivery.deliveries,
        batches: delivery.times.len(),
        batch_size: delivery.batch_size,
        committed: sum(|batch| batch.committed),
        already_present: sum(|batch| batch.already_present),
        handed_back: sum(|batch| batch.failed),
        answer_lost: lost.map_or(0, |batch| batch.committed + batch.already_present),
    }
}

/// By reason and detail, in the order of the first message with each.
fn failures(plan: &Plan, handed_back: &[HandedBack]) -> Vec<Failures> {
    let places: HashMap<&str, &Planned> = plan.messages.iter().map(|message| (message.id.as_str(), message)).collect();
    let mut by_reason: BTreeMap<(&str, &str), (HashSet<usize>, usize)> = BTreeMap::new();
    for message in handed_back {
        let (known, times) = by_reason.entry((&message.reason, &message.detail)).or_default();
        known.extend(places.get(message.message_id.as_str()).map(|planned| planned.place));
        *times += 1;
    }
    let failures = by_reason.into_iter().map(|((reason, detail), (places, times))| {
        let mut places: Vec<_> = places.into_iter().collect();
        places.sort_unstable();
        Failures { reason: reason.to_owned(), detail: detail.to_owned(), places, times }
    });
    let mut failures: Vec<_> = failures.collect();
    failures.sort_by(|a, b| a.places.cmp(&b.places));
    failures
}

/// As Postgres gives them without being told an order: those first that came first.
fn first_rows(scene: &Scene) -> Result<Vec<[Option<String>; COLUMNS.len()]>> {
    let rows = scene.rows(&format!("select {} from user_logins limit {FIRST_ROWS}", COLUMNS.join(", ")))?;
    let rows = rows.into_iter().map(|row| row.try_into().ok().context("a row has other columns than asked for"));
    rows.collect()
}

fn nulls(scene: &Scene) -> Result<Vec<(&'static str, usize)>> {
    let counts = COLUMNS.map(|column| format!("count(*) - count({column})")).join(", ");
    let row = scene.rows(&format!("select {counts} from user_logins"))?.into_iter().next().unwrap_or_default();
    let counts = COLUMNS.into_iter().zip(row.into_iter().flatten());
    let counts = counts.map(|(column, count)| Ok((column, number(&count)?)));
    counts.filter(|count| !matches!(count, Ok((_, 0)))).collect()
}

fn visitors(scene: &Scene) -> Result<Vec<Visitor>> {
    let rows = scene.rows(&format!(
        "select min(user_id), masked_device_id, count(*) from user_logins group by masked_device_id \
         having count(*) > 1 order by count(*) desc, masked_device_id limit {VISITORS}"
    ))?;
    let visitors = rows.into_iter().map(|row| {
        let [user_id, pseudonym, logins]: [Option<String>; 3] = row.try_into().ok().context("three columns")?;
        let logins = number(&logins.unwrap_or_default())?;
        Ok(Visitor { user_id: user_id.unwrap_or_default(), pseudonym: pseudonym.unwrap_or_default(), logins })
    });
    visitors.collect()
}

fn spelled(ways: usize, ids: &[String], scene: &Scene) -> Result<Spelled> {
    let of_ids = format!("from user_logins where message_id in ('{}')", ids.join("', '"));
    let count = |what: &str| number(&scene.value(&format!("select count({what}) {of_ids}"))?);
    Ok(Spelled { ways, rows: count("*")?, pseudonyms: count("distinct masked_ip")? })
}

fn number(text: &str) -> Result<usize> {
    text.parse().context("a count is no number")
}
