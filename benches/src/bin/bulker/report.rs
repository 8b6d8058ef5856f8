//! The tables, and how far the targets are.

use std::time::Duration;

use anyhow::Result;
use millrace_benches::measure::{per_million, per_second};
use millrace_benches::report::{Table, mebibytes, millis, rate};
use serde_json::{Value, json};

use crate::end_to_end::EndToEnd;

pub(crate) const OURS: &str = "Millrace, exactly once";
pub(crate) const ENGINE: &str = "ClickHouse's Kafka engine";
pub(crate) const LIMIT: &str = "a loop without guarantees (the limit)";

/// Of the CPU time that the Kafka engine takes, what the bulker and ClickHouse may take together.
const OF_THE_ENGINE: f64 = 0.74;
/// The same, of the loop without guarantees.
const OF_THE_LIMIT: f64 = 1.4;

/// What one run cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Price {
    pub(crate) events: u64,
    /// From the start of the process to the last row.
    pub(crate) elapsed: Duration,
    /// CPU time outside ClickHouse.
    pub(crate) own: Duration,
    /// CPU time of ClickHouse, merges included.
    pub(crate) clickhouse: Duration,
    /// Most resident memory outside ClickHouse, in bytes; 0 where there is no such process.
    pub(crate) peak: u64,
}

#[derive(Debug)]
pub(crate) struct Report {
    events: u64,
    prices: Vec<(&'static str, Price)>,
    without_engine: Option<String>,
    pub(crate) end_to_end: Option<EndToEnd>,
}

/// Medians of one way.
struct Row {
    way: &'static str,
    rate: f64,
    own: f64,
    clickhouse: f64,
    total: f64,
    peak: u64,
}

impl Report {
    pub(crate) fn new(events: u64) -> Self {
        Self {
            events,
            prices: Vec::new(),
            without_engine: None,
            end_to_end: None,
        }
    }

    pub(crate) fn add(&mut self, way: &'static str, price: Price) {
        self.prices.push((way, price));
    }

    /// The engine could not be measured, and why.
    pub(crate) fn without_engine(&mut self, why: String) {
        self.without_engine = Some(why);
    }

    fn rows(&self) -> Vec<Row> {
        [OURS, ENGINE, LIMIT]
            .into_iter()
            .filter_map(|way| self.row(way))
            .collect()
    }

    fn row(&self, way: &'static str) -> Option<Row> {
        let of: Vec<&Price> = self
            .prices
            .iter()
            .filter(|(w, _)| *w == way)
            .map(|(_, price)| price)
            .collect();
        let middle = |figure: &dyn Fn(&Price) -> f64| {
            let mut figures: Vec<f64> = of.iter().map(|price| figure(price)).collect();
            figures.sort_by(f64::total_cmp);
            figures.get(figures.len() / 2).copied()
        };
        Some(Row {
            way,
            rate: middle(&|price| per_second(price.events, price.elapsed))?,
            own: middle(&|price| per_million(price.own, price.events))?,
            clickhouse: middle(&|price| per_million(price.clickhouse, price.events))?,
            total: middle(&|price| per_million(price.own + price.clickhouse, price.events))?,
            peak: of.iter().map(|price| price.peak).max()?,
        })
    }

    /// `(what, found, at most)`
    fn targets(&self) -> Vec<(&'static str, f64, f64)> {
        let total = |way| self.row(way).map(|row| row.total);
        let Some(ours) = total(OURS) else {
            return Vec::new();
        };
        let mut targets = Vec::new();
        if let Some(engine) = total(ENGINE) {
            targets.push(("total CPU, of the Kafka engine's", ours / engine, OF_THE_ENGINE));
        }
        if let Some(limit) = total(LIMIT) {
            targets.push(("total CPU, of the limit's", ours / limit, OF_THE_LIMIT));
        }
        targets
    }

    pub(crate) fn text(&self) -> String {
        let columns = [
            "way",
            "rows/s",
            "CPU s/M",
            "of it ClickHouse",
            "outside",
            "peak memory",
        ];
        let title = format!("{} events of 1 KB from Kafka into ClickHouse", self.events);
        let mut table = Table::new(title, &columns);
        for row in self.rows() {
            let peak = if row.peak == 0 {
                "–".to_owned()
            } else {
                mebibytes(row.peak)
            };
            let figures = [row.total, row.clickhouse, row.own].map(|n| format!("{n:.2}"));
            let first = [row.way.to_owned(), rate(row.rate)];
            table.row(first.into_iter().chain(figures).chain([peak]));
        }
        let mut text = table.text();
        if let Some(why) = &self.without_engine {
            text.push_str(&format!("  the Kafka engine was not measured: {why}\n"));
        }
        let mut table = Table::new("\ntargets", &["", "found", "target", ""]);
        for (what, found, most) in self.targets() {
            let met = if found <= most { "met" } else { "missed" };
            let cells = [
                what.to_owned(),
                format!("{found:.2}"),
                format!("≤ {most:.2}"),
                met.to_owned(),
            ];
            table.row(cells);
        }
        text.push_str(&table.text());
        if let Some(found) = &self.end_to_end {
            let title = format!(
                "\nend to end, {} requests a second for {:?}",
                found.rate, found.elapsed
            );
            let mut table = Table::new(title, &["", "found"]);
            table.row(["accepted, p50".to_owned(), millis(found.accepted_p50)]);
            table.row(["accepted, p99".to_owned(), millis(found.accepted_p99)]);
            table.row(["sent to queryable, p50".to_owned(), millis(found.queryable_p50)]);
            table.row(["sent to queryable, p99".to_owned(), millis(found.queryable_p99)]);
            for (process, cpu) in &found.cpu {
                table.row([format!("CPU s/M, {process}"), format!("{cpu:.1}")]);
            }
            text.push_str(&table.text());
        }
        text
    }

    pub(crate) fn json(&self) -> Result<String> {
        let ways: Vec<Value> = self
            .rows()
            .iter()
            .map(|row| {
                json!({
                    "way": row.way,
                    "rows_per_second": row.rate,
                    "cpu_seconds_per_million": row.total,
                    "clickhouse_cpu_seconds_per_million": row.clickhouse,
                    "own_cpu_seconds_per_million": row.own,
                    "peak_bytes": row.peak,
                })
            })
            .collect();
        let targets: Vec<Value> = self
            .targets()
            .into_iter()
            .map(|(what, found, most)| json!({"what": what, "found": found, "most": most, "met": found <= most}))
            .collect();
        Ok(serde_json::to_string_pretty(&json!({
            "events": self.events,
            "ways": ways,
            "without_engine": self.without_engine,
            "targets": targets,
            "end_to_end": self.end_to_end,
        }))?)
    }
}
