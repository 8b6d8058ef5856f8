//! An HTTP server that answers as a test says, and remembers what it was asked.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Most bytes of a request.
const REQUEST: usize = 1 << 20;
/// Between two looks at a connection that nothing is said on.
const PAUSE: Duration = Duration::from_millis(50);

/// A request, as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// `GET`, …
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Lower-case names.
    pub headers: BTreeMap<String, String>,
    /// The body as text.
    pub body: String,
}

/// What a request is answered with.
#[derive(Clone, Debug)]
pub enum Answer {
    /// At once.
    Whole {
        /// Such as 200.
        status: u16,
        /// Besides the length.
        headers: Vec<(String, String)>,
        /// The body.
        body: String,
    },
    /// A head, and then a body of unknown length in pieces of 1 KiB, one every few milliseconds, without an end.
    Endless,
    /// A head that promises a body, of which nothing comes.
    Silent,
}

impl Answer {
    /// A body with status 200.
    pub fn text(body: impl Into<String>) -> Self {
        let headers = vec![("content-type".to_owned(), "text/plain".to_owned())];
        Self::Whole {
            status: 200,
            headers,
            body: body.into(),
        }
    }

    /// Elsewhere.
    pub fn redirect(status: u16, location: impl Into<String>) -> Self {
        Self::Whole {
            status,
            headers: vec![("location".to_owned(), location.into())],
            body: String::new(),
        }
    }
}

/// What stands in front of a connection: nothing, or TLS.
pub trait Front: Clone + Send + Sync + 'static {
    /// What is read from and written to.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send;
    /// Opens a connection; `None` when the other side did not like it.
    fn open(&self, stream: tokio::net::TcpStream) -> impl Future<Output = Option<Self::Stream>> + Send;
}

/// Nothing in front.
#[derive(Clone, Copy, Debug)]
pub struct Plain;

impl Front for Plain {
    type Stream = tokio::net::TcpStream;

    async fn open(&self, stream: tokio::net::TcpStream) -> Option<Self::Stream> {
        Some(stream)
    }
}

/// The server. It ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    _ended: DropGuard,
}

impl Server {
    /// Listens on an address, port 0 for any, and answers each request with what `answer` gives.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub async fn start(
        address: &str,
        answer: impl Fn(&Asked) -> Answer + Clone + Send + Sync + 'static,
    ) -> Result<Self> {
        Self::behind(Plain, address, answer).await
    }

    /// As [`Self::start`], behind a front.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub async fn behind(
        front: impl Front,
        address: &str,
        answer: impl Fn(&Asked) -> Answer + Clone + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address}"))?;
        let (asked, token) = (Arc::default(), CancellationToken::new());
        let server = Self {
            address: listener.local_addr()?,
            asked: Arc::clone(&asked),
            _ended: token.clone().drop_guard(),
        };
        tokio::spawn(token.clone().run_until_cancelled_owned(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (asked, front, answer) = (Arc::clone(&asked), front.clone(), answer.clone());
                tokio::spawn(token.clone().run_until_cancelled_owned(async move {
                    let Some(mut stream) = front.open(stream).await else {
                        return;
                    };
                    let Some(request) = read(&mut stream).await else {
                        return;
                    };
                    let answer = answer(&request);
                    asked.lock().unwrap_or_else(PoisonError::into_inner).push(request);
                    // Whoever asked may be gone before the end.
                    drop(write(&mut stream, &answer).await);
                }));
            }
        }));
        Ok(server)
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Asked> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at;
        }
        more(stream, &mut bytes).await?;
    };
    let head = String::from_utf8_lossy(bytes.get(..head_end)?).into_owned();
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let mut asked = Asked {
        method: first.next()?.to_owned(),
        path: first.next()?.to_owned(),
        ..Asked::default()
    };
    let headers = lines.filter_map(|line| line.split_once(':'));
    asked.headers = headers
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length: usize = asked
        .headers
        .get("content-length")
        .map_or(Some(0), |text| text.parse().ok())?;
    while bytes.len() < head_end + 4 + length {
        more(stream, &mut bytes).await?;
    }
    asked.body = String::from_utf8_lossy(bytes.get(head_end + 4..head_end + 4 + length)?).into_owned();
    Some(asked)
}

async fn more(stream: &mut (impl AsyncRead + Unpin), bytes: &mut Vec<u8>) -> Option<()> {
    let mut chunk = [0; 4096];
    let count = stream.read(&mut chunk).await.ok().filter(|count| *count > 0)?;
    bytes.extend(chunk.iter().take(count));
    (bytes.len() <= REQUEST).then_some(())
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), answer: &Answer) -> std::io::Result<()> {
    match answer {
        Answer::Whole {
            status,
            headers,
            body,
        } => {
            let lines: String = headers
                .iter()
                .map(|(name, value)| format!("{name}: {value}\r\n"))
                .collect();
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status} said\r\nconnection: close\r\ncontent-length: {length}\r\n{lines}\r\n"
            );
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(body.as_bytes()).await?;
        }
        Answer::Endless => {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
                .await?;
            let piece = format!("400\r\n{}\r\n", "x".repeat(1024));
            loop {
                stream.write_all(piece.as_bytes()).await?;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        Answer::Silent => {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n")
                .await?;
            loop {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    stream.shutdown().await
}
