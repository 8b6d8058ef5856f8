//! `POST /v1/functions/run` and `GET /v1/functions`.
//!
//! A run uses the workers and limits of production. It is cut into small portions, so that events of the log come in
//! between, and one run goes at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use millrace_event::frame::payload::Records;
use millrace_event::frame::{EventText, Fault, Function, Limits, Load, LogLine, Outcome, Record, Text};
use millrace_event::redact::Redactor;
use millrace_event::{FunctionCode, Timestamp, Verdict};
use millrace_service::Clock;
use millrace_service::config::Secret;
use millrace_store::functions::Language as Stored;
use millrace_store::{Functions as Store, Retry, Tokens};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use super::Refusal;
use crate::pool::{Chain, Pool, Ran};
use crate::registry::{Registry, Ways};

/// Events of one request.
const MOST_EVENTS: usize = 100;
/// Bytes of code, as everywhere.
const MOST_CODE_BYTES: usize = 1 << 20;
/// Events that run before others get their turn.
const PORTION: usize = 10;
/// For one request, waiting for the one before included.
const PATIENCE: Duration = Duration::from_secs(60);
/// The id of the chain that runs here; each request is a version of it, so that a worker keeps one at most.
const CHAIN: &str = "functions-run";

/// Who may use the API.
#[derive(Debug)]
pub struct Access {
    /// The service tokens.
    pub tokens: Tokens,
    /// One more that opens it; empty for none.
    pub own: Secret<String>,
}

impl Access {
    async fn opens(&self, presented: &str) -> Result<bool, millrace_store::Error> {
        // Digests, so that the time of the comparison says nothing about the token.
        let digest = |text: &str| Sha256::digest(text.as_bytes());
        let own = self.own.expose();
        if !own.is_empty() && digest(own) == digest(presented) {
            return Ok(true);
        }
        Ok(self.tokens.verify(presented).await?.is_some())
    }
}

/// What the API works with.
#[derive(Debug)]
pub struct Functions {
    pool: Arc<Pool>,
    /// What is in force; without one nothing is.
    registry: Option<Arc<Registry>>,
    stored: Store,
    access: Access,
    limits: Limits,
    clock: Arc<dyn Clock>,
    version: AtomicU64,
    turn: Semaphore,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request<'a> {
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    language: Option<Language>,
    #[serde(default)]
    function: Option<String>,
    #[serde(borrow, default)]
    events: Vec<&'a RawValue>,
    #[serde(default)]
    context: Context,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Language {
    Js,
    Ts,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Context {
    env: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
}

/// What `ctx` says about each event.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EventContext<'a> {
    attempt: u32,
    received_at: Timestamp,
    headers: &'a BTreeMap<String, String>,
    idempotency_key: String,
}

#[derive(Serialize)]
struct Answer<'a> {
    results: Vec<OneResult<'a>>,
    logs: Vec<Line<'a>>,
    usage: Usage,
}

#[derive(Serialize)]
struct OneResult<'a> {
    verdict: Verdict,
    events: &'a [EventText],
    error: Option<Error<'a>>,
    retry_after_ms: Option<u64>,
}

#[derive(Serialize)]
struct Error<'a> {
    code: FunctionCode,
    message: &'a str,
    line: Option<u32>,
    column: Option<u32>,
}

#[derive(Serialize)]
struct Line<'a> {
    level: millrace_event::frame::LogLevel,
    message: &'a str,
    event_index: Option<usize>,
}

#[derive(Serialize)]
struct Usage {
    cpu_ms: f64,
    wall_ms: f64,
    heap_bytes: u64,
}

/// One place of one function, as it is listed.
#[derive(Serialize)]
struct Listed<'a> {
    function: &'a str,
    version: u32,
    language: &'static str,
    workspace: &'a str,
    source: &'a str,
    destination: &'a str,
    chain: &'a str,
    chain_version: u64,
    position: usize,
}

impl Functions {
    /// The API on these workers, for the functions in force in this registry and all that are stored.
    pub fn new(
        pool: Arc<Pool>,
        registry: Option<Arc<Registry>>,
        stored: Store,
        access: Access,
        limits: Limits,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            pool,
            registry,
            stored,
            access,
            limits,
            clock,
            version: AtomicU64::new(0),
            turn: Semaphore::new(1),
        }
    }

    /// Whether a token opens the API.
    pub(super) async fn may_use(&self, token: &str) -> Result<bool, Refusal> {
        match self.access.opens(token).await {
            Ok(opens) => Ok(opens),
            Err(error) => {
                tracing::warn!(%error, "a service token cannot be looked up");
                Err(Refusal::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "key_lookup_unavailable",
                    "the token cannot be looked up now",
                ))
            }
        }
    }

    /// The functions in force.
    pub(super) fn list(&self) -> Result<Bytes, Refusal> {
        let all = self.in_force();
        let mut listed = Vec::new();
        for way in all.iter().flat_map(|(_, ways)| ways.iter()) {
            let Some(chain) = &way.chain else { continue };
            let load = chain.load();
            for (position, function) in load.functions.iter().enumerate() {
                listed.push(Listed {
                    function: &function.id,
                    version: function.version,
                    language: if function.typescript { "ts" } else { "js" },
                    workspace: &load.workspace,
                    source: &load.source,
                    destination: &load.destination,
                    chain: &load.chain,
                    chain_version: load.version,
                    position,
                });
            }
        }
        listed.sort_by_key(|listed| (listed.workspace, listed.chain, listed.position));
        written(&serde_json::json!({ "functions": listed }))
    }

    /// Runs the events of a request; without events the code is only loaded.
    pub(super) async fn run(&self, body: &[u8]) -> Result<Bytes, Refusal> {
        let request: Request<'_> = serde_json::from_slice(body)
            .map_err(|error| invalid(format!("the body is not a request: {error}")))?;
        if request.events.len() > MOST_EVENTS {
            let text = format!("{MOST_EVENTS} events at most");
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "too_many_events", text));
        }
        if request.events.iter().any(|event| !event.get().starts_with('{')) {
            return Err(invalid("an event is a JSON object"));
        }
        let chain = self.chain(&request).await?;
        let secrets = Redactor::new(chain.environment.0.get());
        let running = async {
            let _turn = self.turn.acquire().await.ok();
            if request.events.is_empty() {
                return self.tried(chain).await;
            }
            self.portions(&request, chain).await
        };
        match tokio::time::timeout(PATIENCE, running).await {
            Ok(ran) => answer(&without(&secrets, ran?)),
            Err(_) => {
                let text = format!("not done within {PATIENCE:?}");
                Err(Refusal::new(StatusCode::GATEWAY_TIMEOUT, "timeout", text))
            }
        }
    }

    async fn chain(&self, request: &Request<'_>) -> Result<Load, Refusal> {
        let function = match (&request.code, &request.function) {
            (Some(code), None) if code.len() <= MOST_CODE_BYTES => Function {
                id: "function".into(),
                version: 1,
                code: code.clone(),
                typescript: request.language == Some(Language::Ts),
            },
            (Some(_), None) => return Err(invalid(format!("code has {MOST_CODE_BYTES} bytes at most"))),
            (None, Some(named)) => self.named(named).await?,
            _ => return Err(invalid("either \"code\" or \"function\" is needed")),
        };
        let environment = to_raw_value(&request.context.env).map_err(|error| invalid(error.to_string()))?;
        Ok(Load {
            chain: CHAIN.into(),
            version: self.version.fetch_add(1, Ordering::Relaxed),
            workspace: "test".into(),
            source: "test".into(),
            destination: "test".into(),
            functions: vec![function],
            environment: Text(environment),
            environment_fault: None,
            limits: self.limits,
        })
    }

    fn in_force(&self) -> Vec<(String, Ways)> {
        self.registry
            .as_ref()
            .map(|registry| registry.all())
            .unwrap_or_default()
    }

    /// A stored function, as `id` or `id@version`: without a version the one in force, else the newest.
    async fn named(&self, named: &str) -> Result<Function, Refusal> {
        let (id, version) = match named.split_once('@') {
            None => (named, None),
            Some((id, version)) => {
                let number = version.parse().map_err(|_| invalid("a version is a number"))?;
                (id, Some(number))
            }
        };
        let all = self.in_force();
        let mut functions = all
            .iter()
            .flat_map(|(_, ways)| ways.iter())
            .filter_map(|way| way.chain.as_ref())
            .flat_map(|chain| &chain.load().functions);
        let fits = |function: &&Function| version.is_none_or(|version| function.version == version);
        if let Some(function) = functions.find(|function| function.id == id && fits(function)) {
            return Ok(function.clone());
        }
        match self.stored.stored(None, id, version).await {
            Ok(stored) => Ok(Function {
                id: stored.function.as_str().to_owned(),
                version: stored.version,
                code: stored.code,
                typescript: stored.language == Stored::TypeScript,
            }),
            Err(error) if error.retry() == Retry::Transient => {
                tracing::warn!(%error, "a function cannot be looked up");
                let text = "the function cannot be looked up now; its code can be sent instead";
                Err(Refusal::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "key_lookup_unavailable",
                    text,
                ))
            }
            Err(_) => {
                let text = format!("there is no function {named}");
                Err(Refusal::new(StatusCode::NOT_FOUND, "not_found", text))
            }
        }
    }

    /// Loads a chain and runs nothing of it: a function in front drops the only event.
    async fn tried(&self, mut load: Load) -> Result<Ran, Refusal> {
        let drops = Function {
            id: "load".into(),
            version: 1,
            code: "export default () => null;".into(),
            typescript: false,
        };
        load.functions.insert(0, drops);
        let mut ran = self
            .portion(
                &wrapped(load)?,
                inputs(&[RawValue::NULL], &BTreeMap::new(), self.now(), 0)?,
            )
            .await?;
        if let Some(fault) = ran.outcomes.pop().and_then(|outcome| outcome.fault) {
            return Err(does_not_load(&fault));
        }
        Ok(ran)
    }

    async fn portions(&self, request: &Request<'_>, load: Load) -> Result<Ran, Refusal> {
        let (chain, received_at) = (wrapped(load)?, self.now());
        let mut all = Ran::default();
        for (portion, events) in request.events.chunks(PORTION).enumerate() {
            let first = portion * PORTION;
            let inputs = inputs(events, &request.context.headers, received_at, first)?;
            let ran = self.portion(&chain, inputs).await?;
            let broken = ran
                .outcomes
                .iter()
                .filter_map(|outcome| outcome.fault.as_ref())
                .find(|fault| fault.code == FunctionCode::CompileError);
            if let Some(fault) = broken {
                return Err(does_not_load(fault));
            }
            all.append(ran);
        }
        Ok(all)
    }

    fn now(&self) -> Timestamp {
        Timestamp::clamped_from_millis(self.clock.now().as_millisecond())
    }

    async fn portion(&self, chain: &Arc<Chain>, events: Records) -> Result<Ran, Refusal> {
        self.pool.account(Arc::clone(chain), events).await.map_err(|_| {
            let text = "the process is shutting down";
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "draining", text)
        })
    }
}

fn wrapped(load: Load) -> Result<Arc<Chain>, Refusal> {
    Chain::new(load)
        .map(Arc::new)
        .map_err(|error| invalid(error.to_string()))
}

/// Events as the pool takes them; `first` is the place of the first one in its request.
fn inputs(
    events: &[&RawValue],
    headers: &BTreeMap<String, String>,
    received_at: Timestamp,
    first: usize,
) -> Result<Records, Refusal> {
    let mut records = Records::default();
    for (at, event) in events.iter().enumerate() {
        let context = EventContext {
            attempt: 0,
            received_at,
            headers,
            idempotency_key: format!("{:032x}", first + at),
        };
        let context = serde_json::to_string(&context).map_err(|error| invalid(error.to_string()))?;
        records.push(Record {
            context: &context,
            event: event.get(),
            position: 0,
        });
    }
    Ok(records)
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "invalid_json", message)
}

fn does_not_load(fault: &Fault) -> Refusal {
    Refusal {
        line: fault.line,
        column: fault.column,
        ..Refusal::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            FunctionCode::CompileError.as_str(),
            fault.message.as_str(),
        )
    }
}

/// What functions log and throw has no secrets in it when it leaves their worker; here their events have none either.
fn without(secrets: &Redactor, mut ran: Ran) -> Ran {
    let events = ran.outcomes.iter_mut().flat_map(|outcome| &mut outcome.events);
    for event in events.filter(|event| !secrets.finds_nothing(event.get())) {
        let mut text = event.get().to_owned();
        secrets.clean(&mut text);
        // A name in a mark has no character that JSON would mind; a value that is part of a number or a name may leave
        // what is no JSON, and then nothing of it is shown.
        let clean = RawValue::from_string(text).unwrap_or_else(|_| RawValue::NULL.to_owned());
        *event = clean.into();
    }
    ran
}

fn answer(ran: &Ran) -> Result<Bytes, Refusal> {
    let millis = |micros| Duration::from_micros(micros).as_secs_f64() * 1000.0;
    written(&Answer {
        results: ran.outcomes.iter().map(one).collect(),
        logs: ran.lines.iter().map(line).collect(),
        usage: Usage {
            cpu_ms: millis(ran.usage.cpu_us),
            wall_ms: millis(ran.usage.wall_us),
            heap_bytes: ran.usage.heap_bytes,
        },
    })
}

fn one(outcome: &Outcome) -> OneResult<'_> {
    OneResult {
        verdict: outcome.verdict,
        events: &outcome.events,
        error: outcome.fault.as_ref().map(|fault| Error {
            code: fault.code,
            message: &fault.message,
            line: fault.line,
            column: fault.column,
        }),
        retry_after_ms: outcome.retry_after_ms,
    }
}

fn line(line: &LogLine) -> Line<'_> {
    Line {
        level: line.level,
        message: &line.message,
        event_index: line.index,
    }
}

fn written(answer: &impl Serialize) -> Result<Bytes, Refusal> {
    serde_json::to_vec(answer)
        .map(Bytes::from)
        .map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string()))
}
