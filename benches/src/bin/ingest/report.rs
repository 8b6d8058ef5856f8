//! What was found, as a table and as JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use millrace_benches::measure::{Histogram, Memory};
use millrace_benches::report::{Table, mebibytes, millis, rate};
use serde::Serialize;

use crate::events::BATCH;
use crate::steps::Share;

/// Most CPU seconds per million events, single and in batches, and the longest p99 at the rate.
const TARGETS: (f64, f64, Duration) = (25.0, 9.0, Duration::from_millis(5));
/// How much more the second half of an overload may hold than the first.
const FLAT: f64 = 1.1;

/// What was loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Server {
    /// hyper reads the body and answers.
    Read,
    /// The same once the body is on disk, many with one sync.
    Durable,
    /// The gateway.
    Gateway,
}

impl Server {
    const ALL: [Self; 3] = [Self::Read, Self::Durable, Self::Gateway];

    const fn name(self) -> &'static str {
        match self {
            Self::Read => "hyper, body read",
            Self::Durable => "hyper, group fdatasync",
            Self::Gateway => "millrace-ingest",
        }
    }
}

/// How events come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Shape {
    /// One in a request.
    Single,
    /// A hundred in a request.
    Batch,
}

impl Shape {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::Single, Self::Batch];

    /// Events in a request.
    pub(crate) const fn events(self) -> u64 {
        match self {
            Self::Single => 1,
            Self::Batch => BATCH,
        }
    }

    fn name(self) -> String {
        match self {
            Self::Single => "single".to_owned(),
            Self::Batch => format!("batches of {BATCH}"),
        }
    }
}

/// Times of answers.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Times {
    p50: Duration,
    p99: Duration,
    p999: Duration,
    most: Duration,
}

impl From<&Histogram> for Times {
    fn from(histogram: &Histogram) -> Self {
        Self {
            p50: histogram.quantile(0.5),
            p99: histogram.quantile(0.99),
            p999: histogram.quantile(0.999),
            most: histogram.most(),
        }
    }
}

impl Times {
    fn cells(self) -> [String; 3] {
        [self.p50, self.p99, self.p999].map(millis)
    }
}

/// A phase at full speed.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Cost {
    pub(crate) server: Server,
    pub(crate) shape: Shape,
    pub(crate) events: u64,
    pub(crate) events_per_second: f64,
    pub(crate) latency: Times,
    pub(crate) user_seconds_per_million: f64,
    pub(crate) system_seconds_per_million: f64,
    pub(crate) syncs: Option<f64>,
    pub(crate) memory: Memory,
}

impl Cost {
    fn seconds_per_million(&self) -> f64 {
        self.user_seconds_per_million + self.system_seconds_per_million
    }

    /// As one line.
    pub(crate) fn line(&self) -> String {
        format!(
            "{}, {}: {} events/s, {:.2} CPU s/M, p99 {}",
            self.server.name(),
            self.shape.name(),
            rate(self.events_per_second),
            self.seconds_per_million(),
            millis(self.latency.p99)
        )
    }
}

/// A phase at a rate.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Latency {
    pub(crate) server: Server,
    pub(crate) requests: u64,
    pub(crate) requests_per_second: f64,
    pub(crate) seconds_per_million: f64,
    pub(crate) latency: Times,
}

impl Latency {
    /// As one line.
    pub(crate) fn line(&self) -> String {
        let [p50, p99, p999] = self.latency.cells();
        format!(
            "{} at {}/s: p50 {p50}, p99 {p99}, p99.9 {p999}",
            self.server.name(),
            rate(self.requests_per_second)
        )
    }
}

/// More than the gateway can do.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Overload {
    pub(crate) shape: Shape,
    pub(crate) connections: usize,
    pub(crate) answers: BTreeMap<u16, u64>,
    pub(crate) events_per_second: f64,
    pub(crate) latency: Times,
    pub(crate) resident_before: u64,
    pub(crate) peak_of_first_half: u64,
    pub(crate) peak_of_second_half: u64,
    pub(crate) resident_after: u64,
}

impl Overload {
    /// As one line.
    pub(crate) fn line(&self) -> String {
        format!(
            "{} connections, {}: {} events/s, peak {} then {}, answers {:?}",
            self.connections,
            self.shape.name(),
            rate(self.events_per_second),
            mebibytes(self.peak_of_first_half),
            mebibytes(self.peak_of_second_half),
            self.answers
        )
    }
}

/// All of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    sync: String,
    rate: u32,
    pub(crate) costs: Vec<Cost>,
    pub(crate) latencies: Vec<Latency>,
    pub(crate) overloads: Vec<Overload>,
    pub(crate) shares: Vec<(Shape, Vec<Share>)>,
}

impl Report {
    /// One without findings.
    pub(crate) fn new(sync: &str, rate: u32) -> Self {
        Self {
            sync: sync.to_owned(),
            rate,
            costs: Vec::new(),
            latencies: Vec::new(),
            overloads: Vec::new(),
            shares: Vec::new(),
        }
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for shape in Shape::ALL {
            text.push_str(&self.costs_of(shape));
            text.push('\n');
        }
        text.push_str(&self.at_rate());
        if !self.overloads.is_empty() {
            text.push('\n');
            text.push_str(&self.over());
        }
        for (shape, shares) in &self.shares {
            text.push('\n');
            text.push_str(&self.steps(*shape, shares));
        }
        text.push('\n');
        text.push_str(&self.verdicts().text());
        text
    }

    fn steps(&self, shape: Shape, shares: &[Share]) -> String {
        let title = format!("millrace-ingest, {}: where the CPU goes", shape.name());
        let mut table = Table::new(title, &["step", "share", "CPU s/M"]);
        let cost = self
            .median(Server::Gateway, shape)
            .map_or(0.0, Cost::seconds_per_million);
        for share in shares {
            table.row([
                share.step.to_owned(),
                format!("{:.1} %", share.share * 100.0),
                format!("{:.2}", share.share * cost),
            ]);
        }
        table.text()
    }

    /// The round in the middle, by CPU.
    fn median(&self, server: Server, shape: Shape) -> Option<&Cost> {
        let mut rounds: Vec<_> = self
            .costs
            .iter()
            .filter(|cost| cost.server == server && cost.shape == shape)
            .collect();
        rounds.sort_by(|a, b| a.seconds_per_million().total_cmp(&b.seconds_per_million()));
        rounds.get(rounds.len() / 2).copied()
    }

    fn costs_of(&self, shape: Shape) -> String {
        let columns = [
            "server", "events/s", "CPU s/M", "user", "system", "ratio", "p50", "p99", "p99.9", "syncs",
            "memory",
        ];
        let title = format!("{}, journal.sync = {}", shape.name(), self.sync);
        let mut table = Table::new(title, &columns);
        let limit = self.median(Server::Durable, shape).map(Cost::seconds_per_million);
        for cost in Server::ALL
            .iter()
            .filter_map(|server| self.median(*server, shape))
        {
            let ratio = limit.map_or(0.0, |limit| cost.seconds_per_million() / limit);
            let [p50, p99, p999] = cost.latency.cells();
            table.row([
                cost.server.name().to_owned(),
                rate(cost.events_per_second),
                format!("{:.2}", cost.seconds_per_million()),
                format!("{:.2}", cost.user_seconds_per_million),
                format!("{:.2}", cost.system_seconds_per_million),
                format!("{ratio:.2}"),
                p50,
                p99,
                p999,
                cost.syncs
                    .map_or_else(|| "-".to_owned(), |syncs| format!("{syncs:.0}")),
                mebibytes(cost.memory.resident),
            ]);
        }
        table.text()
    }

    fn at_rate(&self) -> String {
        let title = format!(
            "single, {} requests per second, times from when a request was due",
            self.rate
        );
        let columns = [
            "server",
            "requests/s",
            "CPU s/M",
            "p50",
            "p99",
            "p99.9",
            "longest",
        ];
        let mut table = Table::new(title, &columns);
        for found in &self.latencies {
            let [p50, p99, p999] = found.latency.cells();
            table.row([
                found.server.name().to_owned(),
                rate(found.requests_per_second),
                format!("{:.2}", found.seconds_per_million),
                p50,
                p99,
                p999,
                millis(found.latency.most),
            ]);
        }
        table.text()
    }

    fn over(&self) -> String {
        let columns = [
            "overload",
            "connections",
            "events/s",
            "p99",
            "not 200",
            "before",
            "peak, 1st half",
            "2nd half",
            "after",
        ];
        let mut table = Table::new("millrace-ingest, ten times the connections", &columns);
        for found in &self.overloads {
            let refused: u64 = found
                .answers
                .iter()
                .filter(|(status, _)| **status != 200)
                .map(|(_, count)| count)
                .sum();
            table.row([
                found.shape.name(),
                found.connections.to_string(),
                rate(found.events_per_second),
                millis(found.latency.p99),
                refused.to_string(),
                mebibytes(found.resident_before),
                mebibytes(found.peak_of_first_half),
                mebibytes(found.peak_of_second_half),
                mebibytes(found.resident_after),
            ]);
        }
        table.text()
    }

    fn verdicts(&self) -> Table {
        let mut table = Table::new("targets", &["", "found", "target", ""]);
        let mut verdict = |what: String, found: String, target: String, met: bool| {
            let met = if met { "met" } else { "MISSED" };
            table.row([what, found, target, met.to_owned()]);
        };
        let (single, batch, p99) = TARGETS;
        for (shape, most) in [(Shape::Single, single), (Shape::Batch, batch)] {
            if let Some(cost) = self.median(Server::Gateway, shape) {
                let found = cost.seconds_per_million();
                let what = format!("CPU s/M, {}", shape.name());
                verdict(what, format!("{found:.2}"), format!("≤ {most}"), found <= most);
            }
        }
        let own = self
            .latencies
            .iter()
            .find(|found| found.server == Server::Gateway);
        if let Some(found) = own.map(|found| found.latency.p99) {
            let what = format!("p99 at {}/s", self.rate);
            verdict(what, millis(found), format!("≤ {}", millis(p99)), found <= p99);
        }
        for found in &self.overloads {
            #[expect(clippy::cast_precision_loss, reason = "a ratio of sizes of memory")]
            let ratio = found.peak_of_second_half as f64 / found.peak_of_first_half.max(1) as f64;
            let what = format!("memory in overload, {}", found.shape.name());
            verdict(
                what,
                format!("× {ratio:.2}"),
                format!("≤ × {FLAT}"),
                ratio <= FLAT,
            );
        }
        table
    }
}
