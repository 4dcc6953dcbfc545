//! The one screen at the end. It words what `facts` knows and decides nothing.

use std::time::Duration;

use crate::ingest::Profile;
use crate::terminal::Paint;
use crate::words::{counted, median, milliseconds, number, shortened, times};

use super::delivery::MAX_RECEIVES;
use super::facts::{COLUMNS, Facts, Failures, Visitor};
use super::plan::{Origin, Plan};

/// More kinds of failure than this are only counted.
const KINDS: usize = 8;
/// Of a longer value only so much is shown.
const ID: usize = 8;
const PSEUDONYM: usize = 11;
const OTHER: usize = 11;

/// How it may look, and what else may be said.
pub struct Screen<'a> {
    pub paint: Paint,
    pub width: usize,
    /// What calls this program.
    pub command: String,
    pub profile: Option<&'a Profile>,
    /// Only if Postgres is kept: how to look into it, and how to end it.
    pub psql: Option<String>,
    pub stop: Option<String>,
}

/// The screen, with a line end behind its last line.
pub fn write(facts: &Facts, plan: &Plan, screen: &Screen) -> String {
    let sections = [
        sums(facts, plan, screen),
        deliveries(facts, plan),
        table(facts, screen),
        failures(facts, plan, screen),
        speed(facts, screen),
        next(screen),
    ];
    let sections = sections.into_iter().filter(|section| !section.lines.is_empty());
    let texts: Vec<_> = sections.map(|section| section.text(screen.paint)).collect();
    format!("\n{}", texts.join("\n"))
}

struct Section {
    title: String,
    lines: Vec<String>,
}

impl Section {
    fn new(title: impl Into<String>, lines: Vec<String>) -> Self {
        Self { title: title.into(), lines }
    }

    fn text(self, paint: Paint) -> String {
        let lines: String = self.lines.iter().map(|line| format!("  {}\n", line.trim_end())).collect();
        format!("{}\n{lines}", paint.bold(&self.title))
    }
}

/// A total, or with `=` and `+` a part of it.
fn sum(sign: char, count: usize, what: &str) -> String {
    format!("{sign} {:>7}  {what}", number(count))
}

fn sums(facts: &Facts, plan: &Plan, screen: &Screen) -> Section {
    let paint = screen.paint;
    let mut lines = vec![
        sum(' ', facts.sent, &format!("sent{}", blank_lines(plan))),
        sum('=', facts.stored, "stored in user_logins"),
        sum('+', facts.dead, "in the dead-letter queue"),
    ];
    let faults =
        [(facts.lost, "LOST: neither stored nor a dead letter"), (facts.both, "BOTH stored and a dead letter")];
    if faults.iter().all(|(count, _)| *count == 0) {
        lines[2] += &format!("; {}", paint.green("none lost, none in both"));
    }
    let faults = faults.into_iter().filter(|(count, _)| *count > 0);
    lines.extend(faults.map(|(count, what)| paint.red(&sum('!', count, what))));
    if facts.passes.len() > 1 {
        lines.push(passes(facts, screen));
    }
    Section::new("Messages", lines)
}

fn blank_lines(plan: &Plan) -> String {
    match plan.origin {
        Origin::File { blank } if blank > 0 => format!("; {} skipped", counted(blank, "blank line")),
        _ => String::new(),
    }
}

fn passes(facts: &Facts, screen: &Screen) -> String {
    let again = times(facts.passes.len() - 1);
    let verdict = match (facts.is_unchanged(), facts.passes.last()) {
        (true, Some(table)) => screen.paint.green(&format!("still {}, no value changed", counted(table.rows, "row"))),
        _ => screen.paint.red("THE TABLE CHANGED"),
    };
    format!("{:>9}  sent {again} more, with the same ids: {verdict}", "")
}

fn deliveries(facts: &Facts, plan: &Plan) -> Section {
    let of = &facts.deliveries;
    let batches = format!("{} of up to {}", counted(of.batches, "batch"), number(of.batch_size));
    let twice = plan.duplicates().len();
    let sent_again = of.already_present.saturating_sub(twice + of.answer_lost);
    let parts = [
        (twice, "stored before, no change: delivered twice by the queue"),
        (of.answer_lost, "stored before, no change: function killed between commit and answer"),
        (sent_again, "stored before, no change: sent again"),
        (of.handed_back, "handed back"),
    ];
    let mut lines = vec![sum(' ', of.total, &format!("delivered, in {batches}")), sum('=', of.committed, "stored")];
    let parts = parts.into_iter().filter(|(count, _)| *count > 0);
    lines.extend(parts.map(|(count, what)| sum('+', count, what)));
    Section::new("Deliveries", lines)
}

fn table(facts: &Facts, screen: &Screen) -> Section {
    let rows: Vec<Vec<String>> = facts.first_rows.iter().map(cells).collect();
    let title = format!("Table user_logins, first {} of {}", rows.len(), counted(facts.stored, "row"));
    if rows.is_empty() {
        return Section::new(title, rows.into_iter().flatten().collect());
    }
    let widths = widths(&rows);
    let fitting = fitting(&widths, screen.width);
    let line = |cells: Vec<&str>| aligned(&cells[..fitting], &widths);
    let mut lines = vec![screen.paint.dim(&line(COLUMNS.to_vec()))];
    for row in &rows {
        let is_repeated = rows.iter().filter(|other| other[3] == row[3]).count() > 1;
        let text = line(row.iter().map(String::as_str).collect());
        lines.push(if is_repeated { text.replace(&row[3], &screen.paint.cyan(&row[3])) } else { text });
    }
    let nulls: Vec<_> = facts.nulls.iter().map(|(column, count)| format!("{} {column}", number(*count))).collect();
    if !nulls.is_empty() {
        lines.push(screen.paint.dim(&format!("nulls in all rows: {}", nulls.join(", "))));
    }
    lines.extend(recognised(facts, screen.paint));
    Section::new(title, lines)
}

fn cells(row: &[Option<String>; COLUMNS.len()]) -> Vec<String> {
    let cell = |(column, value): (&str, &Option<String>)| match (column, value) {
        (_, None) => "null".to_owned(),
        ("user_id", Some(value)) => shortened(value, ID),
        (column, Some(value)) if column.starts_with("masked_") => shortened(value, PSEUDONYM),
        (_, Some(value)) => shortened(value, OTHER),
    };
    COLUMNS.into_iter().zip(row).map(cell).collect()
}

fn widths(rows: &[Vec<String>]) -> Vec<usize> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    COLUMNS.iter().enumerate().map(|(i, name)| name.len().max(width(i))).collect()
}

/// How many columns the screen has room for.
fn fitting(widths: &[usize], screen: usize) -> usize {
    let mut end = 0;
    let fits = |width: &&usize| {
        end += 2 + **width;
        end <= screen
    };
    widths.iter().take_while(fits).count()
}

fn aligned(cells: &[&str], widths: &[usize]) -> String {
    let cells: Vec<_> = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
    cells.join("  ").trim_end().to_owned()
}

/// What equal pseudonyms tell without telling whose they are.
fn recognised(facts: &Facts, paint: Paint) -> Vec<String> {
    let mut lines: Vec<_> = facts.visitors.iter().map(|visitor| visitor_line(visitor, paint)).collect();
    if lines.is_empty() {
        lines.push(format!("{}, none of them seen twice", counted(facts.devices, "device")));
    }
    lines.extend(facts.spelled.as_ref().map(|spelled| {
        let (ways, rows) = (counted(spelled.ways, "way"), counted(spelled.rows, "row"));
        format!("one IP address, spelled in {ways}: {} in {rows}", counted(spelled.pseudonyms, "pseudonym"))
    }));
    lines
}

fn visitor_line(visitor: &Visitor, paint: Paint) -> String {
    let pseudonym = paint.cyan(&shortened(&visitor.pseudonym, PSEUDONYM));
    let user = shortened(&visitor.user_id, ID);
    format!("one device, one pseudonym: {pseudonym} in {}, user {user}", counted(visitor.logins, "row"))
}

fn failures(facts: &Facts, plan: &Plan, screen: &Screen) -> Section {
    let shown = &facts.failures[..facts.failures.len().min(KINDS)];
    let places: Vec<_> = shown.iter().map(|kind| place(kind, plan)).collect();
    let width = places.iter().map(String::len).max().unwrap_or(0);
    let lines = shown.iter().zip(&places).map(|(kind, place)| {
        let reason = screen.paint.yellow(&format!("{:<13}", kind.reason));
        format!("{place:<width$}  {reason}  {}{}", kind.detail, otherwise(kind, facts.passes.len()))
    });
    let mut lines: Vec<_> = lines.collect();
    if facts.failures.len() > KINDS {
        lines.push(format!("and {}", counted(facts.failures.len() - KINDS, "more kind")));
    }
    let title = format!("Handed back at each of {MAX_RECEIVES} deliveries, then moved to the dead-letter queue");
    Section::new(title, lines)
}

fn place(failures: &Failures, plan: &Plan) -> String {
    match (failures.places.as_slice(), &plan.origin) {
        ([place], Origin::Invented) => format!("no. {place}"),
        ([place], Origin::File { .. }) => format!("line {place}"),
        (places, _) => counted(places.len(), "message"),
    }
}

/// How often, for those of whom the title is not true.
fn otherwise(failures: &Failures, passes: usize) -> String {
    let as_titled = failures.places.len() * passes * MAX_RECEIVES as usize;
    if failures.times == as_titled { String::new() } else { format!(" (handed back {})", times(failures.times)) }
}

fn speed(facts: &Facts, screen: &Screen) -> Section {
    let took: Duration = facts.speed.invocations.iter().sum();
    if took.is_zero() || facts.speed.rows == 0 {
        return Section::new("Speed", Vec::new());
    }
    let rate = (facts.speed.rows as f64 / took.as_secs_f64()).round() as usize;
    let build = match screen.profile {
        Some(Profile::Release) | None => String::new(),
        Some(profile) => screen.paint.red(&format!(" ({profile} build)")),
    };
    let middle = milliseconds(median(&facts.speed.invocations));
    let invocations = counted(facts.speed.invocations.len(), "invocation");
    let size = number(facts.deliveries.batch_size);
    let lines = vec![
        format!("{:>9}  rows a second{build}, {size} in a batch: function and Postgres on this machine;", number(rate)),
        format!("{:>9}  {invocations} in {} ms, one at a time, the median {middle} ms", "", milliseconds(took)),
    ];
    Section::new("Speed", lines)
}

fn next(screen: &Screen) -> Section {
    let command = &screen.command;
    if let (Some(psql), Some(stop)) = (&screen.psql, &screen.stop) {
        let query = "select app_version, count(*) from user_logins group by 1 order by 1";
        let lines = vec![psql.clone(), format!("{psql} -c '{query}'"), stop.clone()];
        return Section::new("Postgres still runs: look into it; ask it something; stop and delete it", lines);
    }
    let message = r#"{"user_id":"me","device_id":"mine","ip":"::ffff:192.0.2.1"}"#;
    let lines = vec![
        format!("{command} demo --keep"),
        format!("{command} demo --count 100000 --batch-size 1000"),
        format!("echo '{message}' |"),
        format!("  {command} demo --messages - --deliveries 2"),
        format!("{command} start-time"),
    ];
    Section::new("Next: keep Postgres to look into it; a larger load; a message of your own; start times", lines)
}
