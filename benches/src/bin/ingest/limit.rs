//! The least that a gateway does: hyper reads the body and answers, at once or when the body is on disk.
//!
//! The second is the limit of a durable answer: all bodies that wait while the disk syncs go out with one write
//! and one `fdatasync`, as in the gateway's journal.

use std::convert::Infallible;
use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

const ANSWER: &[u8] = br#"{"success":true}"#;
/// Most bytes of a body.
const BODY: usize = 4 << 20;
/// Bodies that wait for the disk.
const QUEUE: usize = 4096;
/// The file starts anew beyond this.
const FILE: u64 = 256 << 20;
/// Most bytes of one write.
const GROUP: usize = 4 << 20;

type Durable = (Bytes, oneshot::Sender<()>);

/// Serves until it is killed; prints its address. `file` of `-` answers at once.
pub(crate) fn serve(file: &str) -> Result<()> {
    let disk = match file {
        "-" => None,
        path => {
            let file = File::create(path).with_context(|| format!("{path} cannot be made"))?;
            let (sender, queue) = mpsc::channel(QUEUE);
            std::thread::Builder::new()
                .name("disk".to_owned())
                .spawn(move || write(file, queue))?;
            Some(sender)
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(listen(disk))
}

async fn listen(disk: Option<mpsc::Sender<Durable>>) -> Result<()> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    millrace_benches::report::print(&listener.local_addr()?.to_string());
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let disk = disk.clone();
        let service = service_fn(move |request| answer(request, disk.clone()));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer(
    request: Request<Incoming>,
    disk: Option<mpsc::Sender<Durable>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = read(request.into_body()).await;
    let mut taken = body.is_some();
    if let (Some(disk), Some(body)) = (disk, body) {
        let (sender, durable) = oneshot::channel();
        taken = disk.send((body, sender)).await.is_ok() && durable.await.is_ok();
    }
    let mut response = Response::new(Full::new(Bytes::from_static(ANSWER)));
    if !taken {
        *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
    }
    Ok(response)
}

async fn read(mut body: Incoming) -> Option<Bytes> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let part = frame.ok()?.into_data().ok()?;
        if whole.len() + part.len() > BODY {
            return None;
        }
        whole.extend_from_slice(&part);
    }
    Some(whole.freeze())
}

/// Writes all that waits, syncs, answers, until nobody sends any more or the disk fails.
fn write(mut file: File, mut queue: mpsc::Receiver<Durable>) {
    use std::io::Seek as _;
    let (mut bytes, mut waiting, mut length) = (Vec::new(), Vec::new(), 0);
    while let Some(first) = queue.blocking_recv() {
        let mut next = Some(first);
        while let Some((body, sender)) = next {
            bytes.extend_from_slice(&body);
            waiting.push(sender);
            next = if bytes.len() < GROUP {
                queue.try_recv().ok()
            } else {
                None
            };
        }
        length += bytes.len() as u64;
        if length > FILE {
            length = 0;
            // As a journal does, the file always grows: its length is part of what is synced.
            if file.set_len(0).and_then(|()| file.rewind()).is_err() {
                return;
            }
        }
        if file.write_all(&bytes).is_err() || file.sync_data().is_err() {
            return;
        }
        bytes.clear();
        for sender in waiting.drain(..) {
            // The connection may be gone.
            sender.send(()).ok();
        }
    }
}
