//! All three services under a given load: from the request to the query, and where the CPU time went.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use millrace_benches::load::{Bound, Load, open};
use millrace_benches::measure::{Cpu, Histogram, per_million};
use millrace_benches::processes::children;
use millrace_kafka::{Connection, bounds, topics};
use millrace_service::{Clock as _, SystemClock};
use millrace_testkit::pipeline::{Options, Pipeline, SERVICES};
use serde::Serialize;

use crate::server::Server;
use crate::{PARTITIONS, PATIENCE, event};

/// Every how many events one is looked for in the table.
const PROBED: u64 = 10;
/// Time between two looks: what is found was there for at most this long.
const LOOK: Duration = Duration::from_millis(10);
/// Connections of the load.
const CONNECTIONS: usize = 32;
/// Events sent before anything is counted: tables, columns, isolates and caches are made then.
const WARM: u64 = 2_000;
const FUNCTION: &str = "export default function (event) { event.properties.checked = true; return event; }";

#[derive(Clone, Debug, Serialize)]
pub(crate) struct EndToEnd {
    pub(crate) rate: u32,
    pub(crate) elapsed: Duration,
    /// From due to the answer.
    pub(crate) accepted_p50: Duration,
    pub(crate) accepted_p99: Duration,
    /// From the request to a query that finds the row: that takes in the way to the answer.
    pub(crate) queryable_p50: Duration,
    pub(crate) queryable_p99: Duration,
    /// CPU seconds per million events of each process.
    pub(crate) cpu: Vec<(&'static str, f64)>,
}

/// When events were sent, by their number.
type Sent = Arc<Mutex<HashMap<u64, Instant>>>;

pub(crate) async fn run(server: &Server, rate: u32, time: Duration) -> Result<EndToEnd> {
    let options = Options {
        clickhouse: Some(server.url()),
        partitions: Some(PARTITIONS),
        ..Options::default()
    };
    let mut pipeline = Pipeline::start(options).await?;
    pipeline.put_function("checked", FUNCTION).await?;
    let address: SocketAddr = pipeline.url("ingest").trim_start_matches("http://").parse()?;
    let sent = Sent::default();
    let load = |first| Load {
        address,
        connections: CONNECTIONS,
        first,
        requests: requests(address, &pipeline.write_key, &sent),
    };
    let warm = Bound {
        requests: WARM,
        time: Duration::from_secs(60),
    };
    open(&load(0), rate, warm).await?.all_succeeded()?;
    server.filled(&pipeline.table, WARM).await?;
    sent.lock().unwrap_or_else(PoisonError::into_inner).clear();

    let load = load(WARM);
    let mut ids = Vec::new();
    for service in SERVICES {
        let own = pipeline.process(service).id().context("the service runs")?;
        ids.push((service, [vec![own], children(own)?].concat()));
    }
    let before: Vec<Cpu> = ids
        .iter()
        .map(|(_, ids)| Cpu::of_all(ids))
        .collect::<Result<_>>()?;
    let clickhouse = server.cpu()?;
    let began = SystemClock.instant();
    let bound = Bound {
        requests: u64::from(rate) * time.as_secs(),
        time: time + PATIENCE,
    };
    let looking = look(server, &pipeline.table, &sent, bound.requests);
    let (run, queryable) = tokio::try_join!(open(&load, rate, bound), looking)?;
    let run = run.all_succeeded()?;
    let events = run.succeeded();
    let elapsed = SystemClock.instant() - began;
    let mut cpu = Vec::new();
    for ((service, ids), before) in ids.iter().zip(before) {
        cpu.push((
            *service,
            per_million(Cpu::of_all(ids)?.since(before).total(), events),
        ));
    }
    cpu.push((
        "ClickHouse",
        per_million(server.cpu()?.since(clickhouse).total(), events),
    ));
    end(pipeline).await?;
    Ok(EndToEnd {
        rate,
        elapsed,
        accepted_p50: run.latency.quantile(0.5),
        accepted_p99: run.latency.quantile(0.99),
        queryable_p50: queryable.quantile(0.5),
        queryable_p99: queryable.quantile(0.99),
        cpu,
    })
}

/// Looks for the probed events until it has seen all of them.
async fn look(server: &Server, table: &str, sent: &Sent, events: u64) -> Result<Histogram> {
    let wanted = events.div_ceil(PROBED);
    let end = SystemClock.instant() + PATIENCE;
    let mut seen = Histogram::default();
    let mut last = 0.0_f64;
    while seen.count() < wanted {
        ensure!(
            SystemClock.instant() < end,
            "{} of {wanted} probes are in {table} after {PATIENCE:?}",
            seen.count()
        );
        tokio::time::sleep(LOOK).await;
        // Only what came since the last look, and a second more: clocks of rows are set before they can be found.
        let sql = format!(
            "SELECT toUInt64(probe), toFloat64(now64(3)) FROM {table} \
             WHERE probe > 0 AND ingested_at > toDateTime64({}, 3) FORMAT TSV",
            (last - 30.0).max(0.0)
        );
        let answer = server.ask(&sql).await?;
        let found = SystemClock.instant();
        let mut sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
        for line in answer.lines() {
            let (probe, now) = line.split_once('\t').context("two columns")?;
            last = last.max(now.parse()?);
            if let Some(sent) = sent.remove(&probe.parse()?) {
                seen.record(found.saturating_duration_since(sent));
            }
        }
    }
    Ok(seen)
}

/// Single events; of every tenth it is noted when it was sent.
fn requests(address: SocketAddr, key: &str, sent: &Sent) -> millrace_benches::load::Requests {
    const PLACE: &str = r#""properties":{"#;
    let key = base64::engine::general_purpose::STANDARD.encode(key);
    let sent = Arc::clone(sent);
    Arc::new(move |n, into| {
        let mut text = String::with_capacity(event::SIZE + 32);
        event::write(n, &mut text);
        // Its time is that of the request: the gateway refuses events that are too old.
        if let Some(place) = text.find(r#","timestamp":"#) {
            text.truncate(place);
            text.push('}');
        }
        if n.is_multiple_of(PROBED) {
            text = text.replacen(PLACE, &format!(r#"{PLACE}"probe":{},"#, n + 1), 1);
            let mut sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
            sent.insert(n + 1, SystemClock.instant());
        }
        into.extend_from_slice(
            format!(
                "POST /v1/track HTTP/1.1\r\nhost: {address}\r\nauthorization: Basic {key}\r\n\
                 content-type: application/json\r\nuser-agent: analytics-node-next/latest\r\n\
                 content-length: {}\r\n\r\n{text}",
                text.len()
            )
            .as_bytes(),
        );
    })
}

async fn end(mut pipeline: Pipeline) -> Result<()> {
    for service in SERVICES {
        pipeline
            .process(service)
            .terminate(Duration::from_secs(60))
            .await?;
    }
    let connection = Connection::new(pipeline.kafka(), "bench");
    let counts = bounds::counts(&connection).await?;
    let own = format!("{}.", pipeline.name);
    let own: Vec<&str> = counts
        .keys()
        .map(String::as_str)
        .filter(|name| name.starts_with(&own))
        .collect();
    Ok(topics::delete(&connection, &own).await?)
}
