//! One kept HTTP/1.1 connection: as little as an exchange with our own servers needs.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Most bytes of an answer.
const ANSWER: usize = 1 << 20;

/// A connection that waits for its next request.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Connection {
    pub(super) async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)
            .await
            .with_context(|| format!("nobody listens on {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            read: Vec::with_capacity(4096),
        })
    }

    /// Sends a request and reads its answer to the end; gives its status.
    pub(super) async fn exchange(&mut self, request: &[u8]) -> Result<u16> {
        self.stream.write_all(request).await?;
        self.read.clear();
        loop {
            if self.stream.read_buf(&mut self.read).await? == 0 {
                bail!("the server closed the connection instead of answering");
            }
            if let Some(head) = head(&self.read)? {
                while self.read.len() < head.length {
                    if self.stream.read_buf(&mut self.read).await? == 0 {
                        bail!("the answer broke off");
                    }
                }
                return Ok(head.status);
            }
            if self.read.len() > ANSWER {
                bail!("the head of an answer does not end");
            }
        }
    }
}

struct Head {
    status: u16,
    /// Of head and body.
    length: usize,
}

/// Reads the head, if all of it is there.
fn head(read: &[u8]) -> Result<Option<Head>> {
    let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = std::str::from_utf8(read.get(..end).unwrap_or_default())?;
    let mut lines = text.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1)?.parse().ok())
        .context("an answer begins with its status")?;
    let mut body = None;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            body = Some(value.trim().parse::<usize>()?);
        }
    }
    let body = body.context("an answer without content-length cannot be read here")?;
    if body > ANSWER {
        bail!("an answer of {body} bytes");
    }
    Ok(Some(Head {
        status,
        length: end + 4 + body,
    }))
}
