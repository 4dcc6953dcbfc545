//! What the starts come to: a table, the targets beside it, and JSON.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sqs_etl_local::function::FunctionConfig;

use super::BATCH;
use crate::terminal::Paint;
use crate::words::{median, milliseconds, number, path, times};

/// What a start with both secrets from Secrets Manager may take until its first batch is stored.
const LIMIT: Duration = Duration::from_millis(25);
/// The same in starts of hello-world until its first answer.
const LIMIT_IN_HELLOS: f64 = 4.0;

/// How long one start took.
pub struct Start {
    pub to_next: Duration,
    pub to_answer: Duration,
}

/// One function with its settings, and its starts.
pub struct Series {
    pub title: &'static str,
    pub config: FunctionConfig,
    pub starts: Vec<Start>,
}

/// All starts of a run. As text, it is what the operator reads.
pub struct Report {
    pub binary: PathBuf,
    pub bytes: u64,
    pub hello: Option<Series>,
    /// The last one is what the targets are about.
    pub ours: Vec<Series>,
}

/// The least, the median and the most.
struct Spread([Duration; 3]);

/// A limit that was set, and what was found.
struct Target {
    what: String,
    found: String,
    met: bool,
}

impl Series {
    pub fn new(title: &'static str, config: FunctionConfig) -> Self {
        Self { title, config, starts: Vec::new() }
    }

    fn to_next(&self) -> Spread {
        Spread::of(self.starts.iter().map(|start| start.to_next).collect())
    }

    fn to_answer(&self) -> Spread {
        Spread::of(self.starts.iter().map(|start| start.to_answer).collect())
    }

    fn json(&self) -> Value {
        let all = |moment: fn(&Start) -> Duration| -> Vec<f64> {
            self.starts.iter().map(|start| moment(start).as_secs_f64() * 1_000.0).collect()
        };
        json!({
            "what": self.title,
            "to_next_ms": all(|start| start.to_next),
            "to_answer_ms": all(|start| start.to_answer),
            "median_to_next_ms": self.to_next().median().as_secs_f64() * 1_000.0,
            "median_to_answer_ms": self.to_answer().median().as_secs_f64() * 1_000.0,
        })
    }
}

impl Report {
    /// No starts yet.
    pub fn new(binary: &Path) -> Result<Self> {
        let bytes = binary.metadata().with_context(|| format!("measure {}", binary.display()))?.len();
        Ok(Self { binary: binary.to_owned(), bytes, hello: None, ours: Vec::new() })
    }

    /// How often our function was started.
    pub fn starts(&self) -> usize {
        self.ours.iter().map(|series| series.starts.len()).sum()
    }

    /// Writes all of it as JSON, times in milliseconds. The folder is made if need be.
    pub fn write(&self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let targets: Vec<Value> = self
            .targets()
            .iter()
            .map(|target| json!({"what": target.what, "found": target.found, "met": target.met}))
            .collect();
        let report = json!({
            "unix_time": now.as_secs(),
            "bytes": self.bytes,
            "messages_a_batch": BATCH,
            "series": self.hello.iter().chain(&self.ours).map(Series::json).collect::<Vec<_>>(),
            "targets": targets,
        });
        Ok(fs::write(path, serde_json::to_vec_pretty(&report)?)?)
    }

    /// None without something to compare with.
    fn targets(&self) -> Vec<Target> {
        let (Some(hello), Some(ours)) = (&self.hello, self.ours.last()) else { return Vec::new() };
        let (hello, ours) = (hello.to_answer().median(), ours.to_answer().median());
        let ratio = in_hellos(ours, hello);
        vec![
            Target {
                what: format!("first {BATCH} messages stored within {} ms", LIMIT.as_millis()),
                found: format!("{} ms", milliseconds(ours)),
                met: ours < LIMIT,
            },
            Target {
                what: format!("in at most {LIMIT_IN_HELLOS} times hello-world's first answer"),
                found: format!("{ratio:.1}"),
                met: ratio <= LIMIT_IN_HELLOS,
            },
        ]
    }

    /// Hello-world's medians: to the first `next`, and to the first answer.
    fn hellos(&self) -> Option<[Duration; 2]> {
        self.hello.as_ref().map(|hello| [hello.to_next().median(), hello.to_answer().median()])
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paint = Paint::stdout();
        let bytes = number(usize::try_from(self.bytes).unwrap_or(usize::MAX));
        writeln!(f, "{}: {bytes} bytes ({:.1} MB)\n", path(&self.binary), self.bytes as f64 / 1_000_000.0)?;
        let runs = self.ours.first().map_or(0, |series| series.starts.len());
        let last = if self.hello.is_some() { "x hello" } else { "" };
        let columns = row(&format!("started {}, milliseconds", times(runs)), ["min", "median", "max", last]);
        writeln!(f, "{}", paint.bold(&columns))?;
        let [next, answer] = self.hellos().map_or([None; 2], |hellos| hellos.map(Some));
        let stored = format!("first {BATCH} messages stored");
        let (hello, ours) = (self.hello.iter().map(|series| (series, "first answer")), self.ours.iter());
        for (series, end) in hello.chain(ours.map(|series| (series, stored.as_str()))) {
            writeln!(f, "{}", series.title)?;
            writeln!(f, "{}", series.to_next().row("first next", next))?;
            writeln!(f, "{}", series.to_answer().row(end, answer))?;
        }
        let targets = self.targets();
        if !targets.is_empty() {
            writeln!(f, "\n{}", paint.bold("targets, with key and password from Secrets Manager, medians"))?;
        }
        for Target { what, found, met } in targets {
            let verdict = if met { paint.green("met") } else { paint.red("missed") };
            writeln!(f, "{:<52}{found:>14}  {verdict}", format!("  {what}"))?;
        }
        Ok(())
    }
}

impl Spread {
    fn of(mut durations: Vec<Duration>) -> Self {
        durations.sort_unstable();
        let end = |duration: Option<&Duration>| duration.copied().unwrap_or_default();
        Self([end(durations.first()), median(&durations), end(durations.last())])
    }

    fn median(&self) -> Duration {
        self.0[1]
    }

    fn row(&self, end: &str, hello: Option<Duration>) -> String {
        let [min, median, max] = self.0.map(milliseconds);
        let ratio = hello.map(|hello| format!("{:.1}", in_hellos(self.median(), hello))).unwrap_or_default();
        row(&format!("  spawn to {end}"), [&min, &median, &max, &ratio])
    }
}

fn in_hellos(ours: Duration, hello: Duration) -> f64 {
    ours.as_secs_f64() / hello.as_secs_f64().max(f64::EPSILON)
}

fn row(what: &str, [min, median, max, ratio]: [&str; 4]) -> String {
    format!("{what:<40}{min:>8}{median:>9}{max:>9}{ratio:>9}").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(title: &'static str, milliseconds: &[u64]) -> Series {
        let start = |to_answer: &u64| Start {
            to_next: Duration::from_millis(to_answer / 2),
            to_answer: Duration::from_millis(*to_answer),
        };
        Series {
            starts: milliseconds.iter().map(start).collect(),
            ..Series::new(title, FunctionConfig::new("bootstrap"))
        }
    }

    fn report(hello: Option<Series>, ours: &[u64]) -> Report {
        Report { binary: "bootstrap".into(), bytes: 7_900_000, hello, ours: vec![series("ours", ours)] }
    }

    #[track_caller]
    fn check_targets(hello: u64, ours: u64, expected: [bool; 2]) {
        let report = report(Some(series("hello-world", &[hello])), &[ours]);
        assert_eq!(report.targets().iter().map(|target| target.met).collect::<Vec<_>>(), expected, "{report}");
    }

    #[test]
    fn both_targets_are_told_apart() {
        check_targets(6, 24, [true, true]);
        check_targets(6, 25, [false, false]);
        check_targets(7, 25, [false, true]);
        check_targets(5, 24, [true, false]);
    }

    #[test]
    fn without_hello_world_there_is_nothing_to_be_met() {
        let text = report(None, &[8, 20, 10]).to_string();
        let expected = "bootstrap: 7,900,000 bytes (7.9 MB)\n\n\
                        started 3 times, milliseconds                min   median      max\n\
                        ours\n  \
                        spawn to first next                        4.0      5.0     10.0\n  \
                        spawn to first 10 messages stored          8.0     10.0     20.0\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn with_hello_world_medians_are_compared() {
        let text = report(Some(series("hello-world", &[4])), &[8, 20, 10]).to_string();
        for line in [
            "  spawn to first next                        2.0      2.0      2.0      1.0\n",
            "  spawn to first 10 messages stored          8.0     10.0     20.0      2.5\n",
            "  first 10 messages stored within 25 ms                    10.0 ms  met\n",
            "  in at most 4 times hello-world's first answer                2.5  met\n",
        ] {
            assert!(text.contains(line), "{line} is not in:\n{text}");
        }
    }
}
