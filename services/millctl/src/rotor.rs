//! The functions API: of a rotor that runs somewhere, or of one that is started for this command.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The program, beside this one or of the path.
const PROGRAM: &str = "millrace-rotor";

/// How long a rotor of this command's own may take to listen.
const START: Duration = Duration::from_secs(60);

/// How long an answer may take: longer than the rotor's own patience.
const PATIENCE: Duration = Duration::from_secs(90);

/// Most bytes of an answer.
const MOST_BYTES: usize = 256 << 20;

/// Bytes kept of what a rotor that failed said.
const TAIL: usize = 4 << 10;

/// A rotor that answers.
#[derive(Debug)]
pub(crate) struct Rotor {
    url: String,
    token: String,
    /// Ended with this value.
    _own: Option<Own>,
}

#[derive(Debug)]
struct Own(Child);

impl Drop for Own {
    fn drop(&mut self) {
        // Both fail only for a process that is gone already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Why code does not load.
#[derive(Debug, Deserialize)]
pub(crate) struct CompileError {
    pub(crate) message: String,
    pub(crate) line: Option<u32>,
    pub(crate) column: Option<u32>,
}

impl CompileError {
    /// As compilers say it: `file:line:column: message`.
    pub(crate) fn at(&self, file: &str) -> String {
        match (self.line, self.column) {
            (Some(line), Some(column)) => format!("{file}:{line}:{column}: {}", self.message),
            (Some(line), None) => format!("{file}:{line}: {}", self.message),
            _ => format!("{file}: {}", self.message),
        }
    }
}

#[derive(Deserialize)]
struct Refused {
    code: String,
    message: String,
    line: Option<u32>,
    column: Option<u32>,
}

impl Rotor {
    /// One that runs already.
    ///
    /// # Errors
    /// When that is no address of the HTTP interface, or there is no token.
    pub(crate) fn at(url: &str, token: &str) -> Result<Self> {
        let url = url.trim_end_matches('/');
        let parsed: Uri = url.parse().with_context(|| format!("{url} is no address"))?;
        if parsed.scheme_str() != Some("http") || parsed.host().is_none() {
            bail!("{url} is no address of a rotor: http://host:port is needed");
        }
        if token.is_empty() {
            bail!(
                "a rotor asks for a service token: set MILLRACE__ROTOR__TOKEN, `millctl token create` makes one"
            );
        }
        Ok(Self {
            url: url.to_owned(),
            token: token.to_owned(),
            _own: None,
        })
    }

    /// One for this command alone, on loopback, with a token that nobody else knows. Blocks until it listens.
    ///
    /// # Errors
    /// When the program is not there or does not come up; with what it said.
    pub(crate) fn start(program: &Path) -> Result<Self> {
        let program = located(program);
        let token = token()?;
        // Of the environment only what programs need to start: the settings there are this program's.
        let kept = ["PATH", "LD_LIBRARY_PATH", "TMPDIR"];
        let mut child = Command::new(&program)
            .args(["functions", "--announce", "--with-parent"])
            .env_clear()
            .envs(
                kept.iter()
                    .filter_map(|name| Some((name, std::env::var_os(name)?))),
            )
            .env("MILLRACE__ADMIN__LISTEN", "127.0.0.1:0")
            .env("MILLRACE__FUNCTIONS__TOKEN", &token)
            .env("MILLRACE__WORKERS__COUNT", "1")
            .env("MILLRACE__TELEMETRY__LOG_LEVEL", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| {
                format!(
                    "{} cannot be started: it compiles functions; MILLRACE__ROTOR__PROGRAM says where it is, \
                     --rotor names one that runs",
                    program.display()
                )
            })?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let own = Own(child);
        let said = std::thread::spawn(move || tail(err));
        let (first, line) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let read = out.map(|out| BufReader::new(out).read_line(&mut line));
            if matches!(read, Some(Ok(count)) if count > 0) {
                // Nobody listens any more when it took too long.
                drop(first.send(line));
            }
        });
        match line.recv_timeout(START) {
            Ok(url) => Ok(Self {
                url: url.trim().to_owned(),
                token,
                _own: Some(own),
            }),
            Err(_) => {
                drop(own);
                let said = said.join().unwrap_or_default();
                bail!("{} did not come up: {}", program.display(), said.trim())
            }
        }
    }

    /// Runs a request of `POST /v1/functions/run`. The inner error is code that does not load.
    ///
    /// # Errors
    /// When nobody answers, or the request is refused.
    pub(crate) async fn run(&self, request: &(impl Serialize + Sync)) -> Result<Result<Value, CompileError>> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}/v1/functions/run", self.url))
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::<hyper::body::Bytes>::from(serde_json::to_vec(request)?))?;
        let client: Client<_, Full<hyper::body::Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        let exchange = async {
            let (head, body) = client.request(request).await?.into_parts();
            #[expect(clippy::disallowed_methods, reason = "the body is limited")]
            let body = Limited::new(body, MOST_BYTES).collect().await;
            let body = body.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
            Ok::<_, anyhow::Error>((head.status, body))
        };
        let answered = tokio::time::timeout(PATIENCE, exchange).await;
        let (status, body) = answered
            .map_err(|_| anyhow::anyhow!("no answer within {PATIENCE:?}"))
            .and_then(|answered| answered)
            .with_context(|| format!("the rotor at {} cannot be asked", self.url))?;
        if status == StatusCode::OK {
            return Ok(Ok(
                serde_json::from_slice(&body).context("the rotor's answer is no JSON")?
            ));
        }
        let refused: Refused = serde_json::from_slice(&body)
            .with_context(|| format!("{} is no rotor: it answered {status}", self.url))?;
        let Refused {
            code,
            message,
            line,
            column,
        } = refused;
        if status == StatusCode::UNPROCESSABLE_ENTITY {
            return Ok(Err(CompileError {
                message,
                line,
                column,
            }));
        }
        bail!("the rotor at {} refused: {message} ({code})", self.url)
    }
}

/// The program as configured; beside this one; of the path.
fn located(configured: &Path) -> PathBuf {
    if !configured.as_os_str().is_empty() {
        return configured.to_owned();
    }
    let beside = std::env::current_exe()
        .ok()
        .and_then(|own| Some(own.parent()?.join(PROGRAM)))
        .filter(|path| path.is_file());
    beside.unwrap_or_else(|| PathBuf::from(PROGRAM))
}

fn token() -> Result<String> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no random bytes: {error}"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The latest of what is said until the other end is closed.
fn tail(pipe: Option<impl std::io::Read>) -> String {
    let Some(mut pipe) = pipe else {
        return String::new();
    };
    let (mut kept, mut chunk) = (Vec::new(), [0_u8; TAIL]);
    while let Ok(count) = pipe.read(&mut chunk) {
        if count == 0 {
            break;
        }
        kept.extend(chunk.iter().take(count));
        let over = kept.len().saturating_sub(TAIL);
        kept.drain(..over);
    }
    String::from_utf8_lossy(&kept).into_owned()
}
