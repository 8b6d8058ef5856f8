//! The only place that prints.

use std::io::{self, Write};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::{Value, json};

use crate::advice;

/// What a command has to say: one JSON object for scripts, lines for people.
#[derive(Debug)]
pub(crate) struct Answer {
    json: Value,
    lines: Vec<String>,
    exit: u8,
}

impl Answer {
    /// The same answer with another exit status than 0: the command did its work, and something is not as it
    /// should be.
    pub(crate) const fn with_exit(mut self, exit: u8) -> Self {
        self.exit = exit;
        self
    }

    /// The answer of a command that changes something: it says whether it did.
    pub(crate) fn tried(mut self, dry_run: bool) -> Self {
        if let Value::Object(object) = &mut self.json {
            object.insert("dry_run".to_owned(), dry_run.into());
        }
        if dry_run {
            let line = "nothing is changed; without --dry-run the answer would be:";
            self.lines.insert(0, line.to_owned());
        }
        self
    }

    /// The exit status.
    pub(crate) const fn exit(&self) -> u8 {
        self.exit
    }

    /// An answer with one line for people.
    pub(crate) fn new(json: impl Serialize, line: impl Into<String>) -> Result<Self> {
        Self::lines(json, vec![line.into()])
    }

    /// An answer with any number of lines.
    pub(crate) fn lines(json: impl Serialize, lines: Vec<String>) -> Result<Self> {
        let json = serde_json::to_value(json).context("the answer has no JSON form")?;
        Ok(Self { json, lines, exit: 0 })
    }

    /// An answer as a table: the columns' names, then rows of as many cells.
    pub(crate) fn table(json: impl Serialize, names: &[&str], rows: &[Vec<String>]) -> Result<Self> {
        let header = names.iter().map(|name| (*name).to_owned()).collect();
        let all: Vec<Vec<String>> = std::iter::once(header).chain(rows.iter().cloned()).collect();
        let width = |column: usize| {
            all.iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
        };
        let line = |row: &Vec<String>| {
            let cells = row.iter().enumerate();
            let padded = cells.map(|(column, cell)| format!("{cell:<0$}", width(column).unwrap_or(0)));
            padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        Self::lines(json, all.iter().map(line).collect())
    }
}

/// Prints what a command answered on standard output.
pub(crate) fn success(answer: &Answer, json: bool) -> Result<()> {
    let mut out = io::stdout().lock();
    let written = if json {
        writeln!(out, "{}", answer.json)
    } else {
        answer.lines.iter().try_for_each(|line| writeln!(out, "{line}"))
    };
    match written.and_then(|()| out.flush()) {
        // The reader has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("standard output cannot be written"),
    }
}

/// How far a long command is, drawn on standard error where that is a terminal.
#[derive(Clone, Debug)]
pub(crate) struct Bar(ProgressBar);

impl Bar {
    /// A bar over `what`, whose number is not known yet.
    pub(crate) fn new(what: &'static str) -> Self {
        let bar = ProgressBar::new(0);
        let form = "{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}";
        if let Ok(style) = ProgressStyle::with_template(form) {
            bar.set_style(style);
        }
        bar.set_message(what);
        Self(bar)
    }

    /// One that is not drawn.
    pub(crate) fn none() -> Self {
        Self(ProgressBar::hidden())
    }

    /// Says how many more there will be.
    pub(crate) fn expect(&self, more: u64) {
        self.0.inc_length(more);
    }

    /// Says that so many are done.
    pub(crate) fn step(&self, done: u64) {
        self.0.inc(done);
    }
}

/// Prints how far a long command is, on standard error, where it disturbs no script.
pub(crate) fn progress(line: &str) {
    // Nobody may be looking.
    drop(writeln!(io::stderr(), "{line}"));
}

/// Prints why a command failed, and what to do about it, on standard error.
pub(crate) fn failure(error: &anyhow::Error, json: bool) {
    let (advice, error) = (advice::on(error), told(error));
    let text = if json {
        json!({ "error": error, "advice": advice }).to_string()
    } else {
        let advice = advice.map(|advice| format!("\n  {advice}")).unwrap_or_default();
        format!("error: {error}{advice}")
    };
    // When standard error is closed nobody can be told; the exit status still says it.
    drop(writeln!(io::stderr(), "{text}"));
}

/// An error with its causes, but for those that the text before them has said already.
fn told(error: &anyhow::Error) -> String {
    let mut causes = error.chain().map(ToString::to_string);
    let mut text = causes.next().unwrap_or_default();
    for cause in causes {
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}
