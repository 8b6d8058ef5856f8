//! What a load program prints: a table for people, JSON for programs.

use std::time::{Duration, Instant};

use millrace_service::{Clock as _, SystemClock};
use serde::Serialize;

/// Rows of text under a heading, in columns as wide as they need.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Table {
    title: String,
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty one.
    pub fn new(title: impl Into<String>, columns: &[&str]) -> Self {
        Self {
            title: title.into(),
            columns: columns.iter().map(|&name| name.to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// As text, the first column to the left and the others to the right.
    pub fn text(&self) -> String {
        let width = |index: usize| {
            let lines = std::iter::once(&self.columns).chain(&self.rows);
            let cells = lines.filter_map(|cells| cells.get(index));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..self.columns.len()).map(width).collect();
        let mut text = format!("{}\n", self.title);
        for cells in std::iter::once(&self.columns).chain(&self.rows) {
            let mut line = String::from(" ");
            for (index, (cell, width)) in cells.iter().zip(&widths).enumerate() {
                match index {
                    0 => line.push_str(&format!(" {cell:<width$}")),
                    _ => line.push_str(&format!("  {cell:>width$}")),
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A line about progress, on standard error.
#[expect(clippy::print_stderr, reason = "a program for people says what it is at")]
pub fn say(text: &str) {
    eprintln!("{text}");
}

/// Time between two lines about the same wait.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// How far something long has come, said now and then.
#[derive(Debug)]
pub struct Progress {
    what: &'static str,
    all: u64,
    said: Instant,
}

impl Progress {
    /// Nothing of `all` yet; `what` stands behind the figures.
    pub fn new(what: &'static str, all: u64) -> Self {
        Self {
            what,
            all,
            said: SystemClock.instant(),
        }
    }

    /// It has come as far as `done`: says so, unless it said something just now.
    pub fn at(&mut self, done: u64) {
        let now = SystemClock.instant();
        if now.saturating_duration_since(self.said) >= SAY_EVERY {
            self.said = now;
            say(&format!("  {} of {} {}", count(done), count(self.all), self.what));
        }
    }
}

/// A result, on standard output.
#[expect(clippy::print_stdout, reason = "results go there")]
pub fn print(text: &str) {
    println!("{text}");
}

/// A count with a k or an M where it is long.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub fn count(number: u64) -> String {
    rate(number as f64)
}

/// A rate with a k or an M where it is long.
pub fn rate(number: f64) -> String {
    match number {
        n if n >= 1e6 => format!("{:.2} M", n / 1e6),
        n if n >= 1e4 => format!("{:.1} k", n / 1e3),
        n => format!("{n:.0}"),
    }
}

/// A time in milliseconds.
pub fn millis(time: std::time::Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

/// A size in MiB.
#[expect(clippy::cast_precision_loss, reason = "one digit is shown")]
pub fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
