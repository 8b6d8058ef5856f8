//! What is run, in which order.

use std::time::Duration;

use anyhow::{Context, Result};
use millrace_benches::load::{self, Bound, Load};
use millrace_benches::measure::{self, Cpu, Memory};
use millrace_benches::report::say;

use crate::Arguments;
use crate::events;
use crate::gateway::{Gateway, Limit};
use crate::report::{Cost, Latency, Overload, Report, Server, Shape};
use crate::steps;

/// How much more than its load the overload is.
pub(crate) const OVERLOAD: usize = 10;
/// Connections of the latency's run; enough that none has to wait for another's answer.
const OPEN: usize = 256;

/// A server with what the runs need of it.
#[derive(Clone, Copy)]
struct Target<'a> {
    server: Server,
    gateway: Option<&'a Gateway>,
    address: std::net::SocketAddr,
    id: u32,
    key: &'a str,
}

impl Target<'_> {
    fn load(&self, shape: Shape, run: u64, connections: usize) -> Load {
        let requests = match shape {
            Shape::Single => events::single(self.address, self.key, run),
            Shape::Batch => events::batch(self.address, self.key, run),
        };
        Load {
            address: self.address,
            connections,
            first: 0,
            requests,
        }
    }
}

/// Runs everything.
pub(crate) async fn run(arguments: &Arguments, core: usize, others: &[usize]) -> Result<Report> {
    let overload = if arguments.no_overload { 0 } else { 4 };
    let phases = 6 * arguments.rounds + 2 + overload + if arguments.steps { 2 } else { 0 };
    let most = arguments.time * u32::try_from(phases).unwrap_or(u32::MAX);
    say(&format!(
        "servers on processor {core}, their load and the stack on {others:?}; about {} s, less where --events end a phase",
        most.as_secs() + 30
    ));
    let directory = tempfile::TempDir::with_prefix("millrace-bench-")?;
    let file = directory.path().join("limit").display().to_string();
    let read = Limit::start(None, core, others)?;
    let durable = Limit::start(Some(&file), core, others)?;
    let gateway = Gateway::start(&arguments.sync, core, others).await?;
    let result = measured(arguments, &read, &durable, &gateway).await;
    let ended = gateway.end().await;
    let report = result?;
    ended.context("the gateway did not end in order")?;
    Ok(report)
}

async fn measured(arguments: &Arguments, read: &Limit, durable: &Limit, gateway: &Gateway) -> Result<Report> {
    let target = |server, address, id, gateway| Target {
        server,
        gateway,
        address,
        id,
        key: match gateway {
            Some(gateway) => Gateway::key(gateway),
            None => "none:none",
        },
    };
    let own = target(Server::Gateway, gateway.address, gateway.id, Some(gateway));
    let targets = [
        target(Server::Read, read.address, read.id(), None),
        target(Server::Durable, durable.address, durable.id(), None),
        own,
    ];
    let mut report = Report::new(&arguments.sync, arguments.rate);
    // Numbers the runs, so that no message id comes twice.
    let mut run = 0;
    for target in &targets {
        for shape in Shape::ALL {
            run += 1;
            let bound = Bound {
                requests: 2_000,
                time: Duration::from_secs(5),
            };
            load::closed(&target.load(shape, run, arguments.connections), bound)
                .await?
                .all_succeeded()?;
        }
    }
    for round in 1..=arguments.rounds {
        say(&format!("round {round} of {}", arguments.rounds));
        for shape in Shape::ALL {
            for target in &targets {
                run += 1;
                let cost = cost(arguments, target, shape, run).await?;
                say(&format!("  {}", cost.line()));
                report.costs.push(cost);
            }
        }
    }
    for target in targets.iter().filter(|target| target.server != Server::Read) {
        run += 1;
        let latency = latency(arguments, target, run).await?;
        say(&format!("  {}", latency.line()));
        report.latencies.push(latency);
    }
    if arguments.steps {
        for shape in Shape::ALL {
            run += 1;
            let load = own.load(shape, run, arguments.connections);
            let bound = bound(arguments, shape);
            let sampled = tokio::join!(
                steps::sampled(gateway.id, arguments.time),
                load::closed(&load, bound)
            );
            sampled.1?.all_succeeded()?;
            report.shares.push((shape, sampled.0?));
            gateway.shipped().await?;
        }
    }
    if !arguments.no_overload {
        for shape in Shape::ALL {
            run += 1;
            let overload = overload(arguments, gateway, shape, run).await?;
            say(&format!("  {}", overload.line()));
            report.overloads.push(overload);
        }
    }
    Ok(report)
}

fn bound(arguments: &Arguments, shape: Shape) -> Bound {
    Bound {
        requests: arguments.events / shape.events(),
        time: arguments.time,
    }
}

async fn cost(arguments: &Arguments, target: &Target<'_>, shape: Shape, run: u64) -> Result<Cost> {
    let load = target.load(shape, run, arguments.connections);
    let bound = bound(arguments, shape);
    let syncs = async || match target.gateway {
        Some(gateway) => gateway.metric("journal_syncs").await.map(Some),
        None => Ok(None),
    };
    let (before, syncs_before) = (Cpu::of(target.id)?, syncs().await?);
    let done = load::closed(&load, bound).await?.all_succeeded()?;
    if let Some(gateway) = target.gateway {
        gateway.shipped().await?;
    }
    let cpu = Cpu::of(target.id)?.since(before);
    let events = done.succeeded() * shape.events();
    Ok(Cost {
        server: target.server,
        shape,
        events,
        events_per_second: measure::per_second(events, done.elapsed),
        latency: (&done.latency).into(),
        user_seconds_per_million: measure::per_million(cpu.user, events),
        system_seconds_per_million: measure::per_million(cpu.system, events),
        syncs: syncs()
            .await?
            .zip(syncs_before)
            .map(|(after, before)| after - before),
        memory: Memory::of(target.id)?,
    })
}

async fn latency(arguments: &Arguments, target: &Target<'_>, run: u64) -> Result<Latency> {
    let load = target.load(Shape::Single, run, OPEN);
    let bound = Bound {
        requests: arguments.events,
        time: arguments.time,
    };
    let before = Cpu::of(target.id)?;
    let done = load::open(&load, arguments.rate, bound).await?.all_succeeded()?;
    if let Some(gateway) = target.gateway {
        gateway.shipped().await?;
    }
    let cpu = Cpu::of(target.id)?.since(before);
    Ok(Latency {
        server: target.server,
        requests: done.succeeded(),
        requests_per_second: measure::per_second(done.succeeded(), done.elapsed),
        seconds_per_million: cpu.per_million(done.succeeded()),
        latency: (&done.latency).into(),
    })
}

/// Ten times the connections, all of them busy all the time, twice as long as a phase.
async fn overload(arguments: &Arguments, gateway: &Gateway, shape: Shape, run: u64) -> Result<Overload> {
    let target = Target {
        server: Server::Gateway,
        gateway: Some(gateway),
        address: gateway.address,
        id: gateway.id,
        key: gateway.key(),
    };
    let mut load = target.load(shape, run, arguments.connections * OVERLOAD);
    let bound = bound(arguments, shape);
    let before = Memory::of(gateway.id)?.resident;
    Memory::forget_peak(gateway.id)?;
    let first = load::closed(&load, bound).await?;
    let peak_of_first_half = Memory::of(gateway.id)?.peak;
    Memory::forget_peak(gateway.id)?;
    load.first = first.answered();
    let second = load::closed(&load, bound).await?;
    let peak_of_second_half = Memory::of(gateway.id)?.peak;
    gateway.shipped().await?;
    Ok(Overload {
        shape,
        connections: load.connections,
        events_per_second: measure::per_second(second.succeeded() * shape.events(), second.elapsed),
        latency: (&second.latency).into(),
        answers: second.answers,
        resident_before: before,
        peak_of_first_half,
        peak_of_second_half,
        resident_after: Memory::of(gateway.id)?.resident,
    })
}
