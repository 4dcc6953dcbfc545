//! What a dimension costs: the points of a curve, made of runs.

use std::fmt::Write as _;

use serde::Serialize;

use crate::stats::median;

/// Cost against one dimension.
#[derive(Debug, Serialize)]
pub struct Curve {
    pub name: &'static str,
    pub x: &'static str,
    pub points: Vec<Point>,
}

/// Cost at one place of a curve; medians.
#[derive(Debug, Serialize)]
pub struct Point {
    pub x: usize,
    /// Messages in a batch.
    pub size: usize,
    pub batch_ms: f64,
    pub row_us: f64,
    pub cpu_row_us: f64,
    pub backend_row_us: Option<f64>,
    pub peak_mib: Option<f64>,
    /// Of all functions together.
    pub rows_a_second: f64,
}

/// The runs of one point.
#[derive(Default)]
pub struct Measured {
    walls: Vec<f64>,
    cpus: Vec<f64>,
    backends: Vec<f64>,
    pub peak_kib: Option<u64>,
}

impl Measured {
    pub fn add(&mut self, wall: u64, cpu: u64, backend: Option<u64>) {
        self.walls.push(wall as f64);
        self.cpus.push(cpu as f64);
        self.backends.extend(backend.map(|backend| backend as f64));
    }

    /// `at_once` is how many batches are under way at the same time.
    pub fn point(&self, x: usize, size: usize, batches: usize, at_once: usize) -> Point {
        let rows = (size * batches) as f64;
        let wall = median(&self.walls).unwrap_or_default();
        Point {
            x,
            size,
            batch_ms: wall / batches as f64 * at_once as f64 / 1e6,
            row_us: wall / rows / 1e3,
            cpu_row_us: median(&self.cpus).unwrap_or_default() / rows / 1e3,
            backend_row_us: median(&self.backends).map(|backend| backend / rows / 1e3),
            peak_mib: self.peak_kib.map(|kib| kib as f64 / 1024.0),
            rows_a_second: 1e9 * rows / wall,
        }
    }
}

impl Curve {
    pub fn text(&self) -> String {
        let mut text = format!("\nGrowth: {}\n", self.x);
        let _ = writeln!(
            text,
            "  {:>10} {:>8} {:>12} {:>10} {:>10} {:>12} {:>10} {:>10}",
            self.name, "batch", "ms a batch", "us a row", "our CPU", "Postgres CPU", "peak MiB", "rows/s"
        );
        for point in &self.points {
            let number = |number: Option<f64>| number.map_or("-".to_owned(), |number| format!("{number:.2}"));
            let Point { x, size, batch_ms, row_us, cpu_row_us, rows_a_second, .. } = point;
            let (backend, peak) = (number(point.backend_row_us), number(point.peak_mib));
            let _ = writeln!(
                text,
                "  {x:>10} {size:>8} {batch_ms:>12.3} {row_us:>10.2} {cpu_row_us:>10.2} {backend:>12} {peak:>10} \
                 {rows_a_second:>10.0}"
            );
        }
        text
    }
}
