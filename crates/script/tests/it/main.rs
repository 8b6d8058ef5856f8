//! Functions in real isolates.
#![expect(clippy::expect_used, reason = "a test fails where its ground does")]

mod environment;
mod flight;
mod functions;
mod limits;
mod outside;
mod reach;
mod snapshot;
mod sweep;
mod typescript;
mod web;

use std::sync::OnceLock;

use millrace_event::frame::{
    Answer, Batch, Function, Limits, Load, LogLine, Outcome, Record, Resume, Text, Verdicts,
};
use millrace_event::{FunctionCode, Verdict};
use millrace_script::{Chain, Host};
use serde_json::value::RawValue;

fn host() -> &'static Host {
    static HOST: OnceLock<Host> = OnceLock::new();
    HOST.get_or_init(|| Host::start().expect("threads"))
}

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).expect("JSON in the test")
}

const LIMITS: Limits = Limits {
    wall_ms: 10_000,
    cpu_ms: None,
    heap_bytes: 64 << 20,
    output_bytes: 1 << 20,
    outputs: 100,
    log_lines: 10,
    promises: Some(1000),
};

/// In front of code that is TypeScript.
const TYPED: &str = "typescript:";

fn open_with(limits: Limits, codes: &[&str]) -> Chain {
    host().open(load_of(limits, codes)).expect("a thread")
}

fn load_of(limits: Limits, codes: &[&str]) -> Load {
    let functions = codes
        .iter()
        .enumerate()
        .map(|(at, code)| Function {
            id: format!("fn_{at}"),
            version: 5,
            code: (*code).strip_prefix(TYPED).unwrap_or(code).to_owned(),
            typescript: code.starts_with(TYPED),
        })
        .collect();
    Load {
        chain: "chain".into(),
        version: 1,
        workspace: "demo".into(),
        source: "web".into(),
        destination: "warehouse".into(),
        functions,
        environment: Text(raw(r#"{"REGION":"eu"}"#)),
        environment_fault: None,
        limits,
    }
}

fn run(chain: &Chain, events: &[&str]) -> (Vec<Outcome<String>>, Vec<LogLine>) {
    run_from(chain, 0, events)
}

/// Runs events beginning at the function at `position`.
fn run_from(chain: &Chain, position: u32, events: &[&str]) -> (Vec<Outcome<String>>, Vec<LogLine>) {
    run_within(chain, position, None, events)
}

/// The same with a budget for all of them.
fn run_within(
    chain: &Chain,
    position: u32,
    budget_ms: Option<u64>,
    events: &[&str],
) -> (Vec<Outcome<String>>, Vec<LogLine>) {
    let context =
        raw(r#"{"attempt":2,"receivedAt":"2026-01-02T03:04:05.678Z","headers":{"user-agent":"curl/8.5.0"}}"#);
    let events: Vec<_> = events.iter().map(|text| raw(text)).collect();
    let records = events
        .iter()
        .map(|event| Record {
            context: context.get(),
            event: event.get(),
            position,
        })
        .collect();
    let batch = Batch {
        chain: "chain",
        version: 1,
        records,
        budget_ms,
    };
    let batch = batch.encode().expect("it fits");
    let (answer, logged) = chain.run(batch, |_| Ok(())).expect("the chain lives");
    assert_eq!(answer.len(), events.len());
    (read(answer), logged.lines)
}

/// The outcomes in an answer, as its reader has them.
fn read(answer: Answer) -> Vec<Outcome<String>> {
    let bytes = answer.finish().expect("it fits");
    let Verdicts::Outcomes(outcomes) = Verdicts::decode(&bytes).expect("an answer") else {
        panic!("an answer without outcomes");
    };
    let outcomes = outcomes.into_iter().map(|outcome| Outcome {
        verdict: outcome.verdict,
        events: outcome
            .events
            .iter()
            .map(|event| event.get().to_owned())
            .collect(),
        fault: outcome.fault,
        retry_after_ms: outcome.retry_after_ms,
        resume: outcome.resume.map(|resume| Resume {
            position: resume.position,
            event: resume.event.get().to_owned(),
        }),
        intact: outcome.intact,
    });
    outcomes.collect()
}

/// One event through one function.
fn once(code: &str, event: &str) -> Outcome<String> {
    run(&open_with(LIMITS, &[code]), &[event]).0.remove(0)
}

#[track_caller]
fn forwarded(outcome: &Outcome<String>) -> Vec<&str> {
    assert_eq!(outcome.verdict, Verdict::Forward, "{outcome:?}");
    outcome.events.iter().map(String::as_str).collect()
}

#[track_caller]
fn refused(outcome: &Outcome<String>) -> (FunctionCode, &str) {
    assert_eq!(outcome.verdict, Verdict::DeadLetter, "{outcome:?}");
    let fault = outcome.fault.as_ref().expect("a dead letter says why");
    (fault.code, &fault.message)
}
