//! The tables, and how far the targets are.

use anyhow::Result;
use millrace_benches::measure::{per_million, per_second};
use millrace_benches::report::{Table, mebibytes, millis, rate};
use serde_json::{Value, json};

use crate::chain::Chains;
use crate::ways::Price;

pub(crate) const LIMIT: &str = "engine alone, batch of 500 (the limit)";
pub(crate) const ROTOR: &str = "rotor, batch of 500";
pub(crate) const ASYNC: &str = "rotor, batch of 500, async function";
pub(crate) const SINGLE: &str = "rotor, one event per call";
pub(crate) const ISOLATED_VM: &str = "Node isolated-vm, one event per call";

/// CPU seconds per million events that the rotor may take.
const TARGETS: [(&str, f64); 2] = [("tiny", 6.0), ("medium", 13.0)];
/// What the rotor is to reach of the limit's events per CPU second.
const OF_THE_LIMIT: f64 = 0.7;
/// How much cheaper than isolated-vm it is to be.
const CHEAPER: f64 = 10.0;
const COLD_MS: f64 = 10.0;
const ISOLATE_MIB: f64 = 5.0;

#[derive(Debug, Default)]
pub(crate) struct Report {
    prices: Vec<(&'static str, &'static str, Price)>,
    pub(crate) chains: Option<Chains>,
}

/// Medians of one way.
struct Row {
    function: &'static str,
    way: &'static str,
    rate: f64,
    cpu: f64,
    parent: f64,
    /// The lowest and the highest of `cpu`.
    spread: (f64, f64),
}

impl Report {
    pub(crate) fn add(&mut self, function: &'static str, way: &'static str, price: Price) {
        self.prices.push((function, way, price));
    }

    fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        for (function, way, _) in &self.prices {
            if rows
                .iter()
                .any(|row| row.function == *function && row.way == *way)
            {
                continue;
            }
            let of = |figure: fn(&Price) -> f64| {
                let chosen = self.prices.iter().filter(|(f, w, _)| f == function && w == way);
                let mut figures: Vec<f64> = chosen.map(|(_, _, price)| figure(price)).collect();
                figures.sort_by(f64::total_cmp);
                figures
            };
            let middle = |figures: Vec<f64>| figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN);
            let cpu = of(|price| per_million(price.cpu, price.events));
            let spread = (
                cpu.first().copied().unwrap_or(f64::NAN),
                cpu.last().copied().unwrap_or(f64::NAN),
            );
            rows.push(Row {
                function,
                way,
                rate: middle(of(|price| per_second(price.events, price.elapsed))),
                cpu: middle(cpu),
                parent: middle(of(|price| per_million(price.parent, price.events))),
                spread,
            });
        }
        rows
    }

    /// `(what, found, target, whether more is better)`
    fn targets(&self) -> Vec<(String, f64, f64, bool)> {
        let rows = self.rows();
        let cpu = |function: &str, way: &str| {
            let row = rows.iter().find(|row| row.function == function && row.way == way);
            row.map(|row| row.cpu)
        };
        let mut targets = Vec::new();
        for (function, most) in TARGETS {
            let Some(ours) = cpu(function, ROTOR) else {
                continue;
            };
            targets.push((format!("{function}: CPU s per million"), ours, most, false));
            if let Some(limit) = cpu(function, LIMIT) {
                targets.push((
                    format!("{function}: of the limit"),
                    limit / ours,
                    OF_THE_LIMIT,
                    true,
                ));
            }
            if let Some(theirs) = cpu(function, ISOLATED_VM) {
                targets.push((
                    format!("{function}: cheaper than isolated-vm"),
                    theirs / ours,
                    CHEAPER,
                    true,
                ));
            }
        }
        if let Some(chains) = self.chains {
            let cold = chains.cold_p50.as_secs_f64() * 1e3;
            targets.push((
                "cold start of a chain, median in ms".to_owned(),
                cold,
                COLD_MS,
                false,
            ));
            targets.push((
                "idle isolate in MiB".to_owned(),
                mib(chains.isolate_bytes),
                ISOLATE_MIB,
                false,
            ));
        }
        targets
    }

    pub(crate) fn text(&self) -> String {
        let columns = ["way", "events/s", "CPU s/M", "of it parent", "lowest", "highest"];
        let mut text = String::new();
        for (function, _) in TARGETS {
            let mut table = Table::new(format!("{function} function, events of 1 KB"), &columns);
            for row in self.rows().iter().filter(|row| row.function == function) {
                let figures = [row.cpu, row.parent, row.spread.0, row.spread.1].map(|n| format!("{n:.2}"));
                let cells = [row.way.to_owned(), rate(row.rate)];
                table.row(cells.into_iter().chain(figures));
            }
            text.push_str(&table.text());
            text.push('\n');
        }
        if let Some(chains) = self.chains {
            let mut table = Table::new("chains", &["", "found"]);
            for (what, found) in [
                ("cold start, median", millis(chains.cold_p50)),
                ("cold start, p99", millis(chains.cold_p99)),
                ("the same event once warm, median", millis(chains.warm_p50)),
                ("worker with one chain", mebibytes(chains.worker_bytes)),
                ("each further idle chain", mebibytes(chains.isolate_bytes)),
            ] {
                table.row([what.to_owned(), found]);
            }
            text.push_str(&table.text());
            text.push('\n');
        }
        let mut table = Table::new("targets", &["", "found", "target", ""]);
        for (what, found, target, more) in self.targets() {
            let sign = if more { "≥" } else { "≤" };
            let met = if met(found, target, more) { "met" } else { "missed" };
            table.row([
                what,
                format!("{found:.2}"),
                format!("{sign} {target:.1}"),
                met.to_owned(),
            ]);
        }
        text.push_str(&table.text());
        text
    }

    pub(crate) fn json(&self) -> Result<String> {
        let ways: Vec<Value> = self
            .rows()
            .iter()
            .map(|row| {
                json!({
                    "function": row.function,
                    "way": row.way,
                    "events_per_second": row.rate,
                    "cpu_seconds_per_million": row.cpu,
                    "parent_cpu_seconds_per_million": row.parent,
                    "lowest": row.spread.0,
                    "highest": row.spread.1,
                })
            })
            .collect();
        let targets: Vec<Value> = self
            .targets()
            .into_iter()
            .map(|(what, found, target, more)| {
                json!({"what": what, "found": found, "target": target, "met": met(found, target, more)})
            })
            .collect();
        let all = json!({"ways": ways, "chains": self.chains, "targets": targets});
        Ok(serde_json::to_string_pretty(&all)?)
    }
}

fn met(found: f64, target: f64, more: bool) -> bool {
    if more { found >= target } else { found <= target }
}

#[expect(clippy::cast_precision_loss, reason = "a size of a few MiB")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
