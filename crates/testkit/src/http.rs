//! A small HTTP client for loopback.

use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// Most bytes of an answer.
const MOST_BYTES: usize = 256 << 20;
const PATIENCE: Duration = Duration::from_secs(60);

/// An answer, read whole.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: http::HeaderMap,
    /// Its body.
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Errors
    /// It is none.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.body).with_context(|| format!("{} is no JSON", self.body))
    }
}

/// Keeps connections; clones share them.
#[derive(Clone, Debug)]
pub struct Client(Pool<HttpConnector, Full<Bytes>>);

impl Default for Client {
    fn default() -> Self {
        let mut pool = Pool::builder(TokioExecutor::new());
        // Well below the servers' own: a connection that they close at this very moment is no finding.
        pool.pool_idle_timeout(Duration::from_secs(1));
        Self(pool.build_http())
    }
}

impl Client {
    /// Sends a request and reads its answer.
    ///
    /// # Errors
    /// Nobody is there, the connection broke, or a minute went by.
    pub async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer> {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into()))?;
        let exchange = async {
            let (head, body) = self.0.request(request).await?.into_parts();
            // `Limited` is the cap that the ban on unbounded reads asks for.
            #[expect(clippy::disallowed_methods, reason = "the body is limited")]
            let body = Limited::new(body, MOST_BYTES).collect().await;
            let body = body.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
            let body = String::from_utf8_lossy(&body).into_owned();
            Ok::<_, anyhow::Error>(Answer {
                status: head.status,
                headers: head.headers,
                body,
            })
        };
        tokio::time::timeout(PATIENCE, exchange)
            .await
            .with_context(|| format!("{url}: no answer within {PATIENCE:?}"))?
    }

    /// `GET`.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn get(&self, url: &str) -> Result<Answer> {
        self.send(Method::GET, url, &[], Bytes::new()).await
    }

    /// `POST`.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn post(&self, url: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Result<Answer> {
        self.send(Method::POST, url, headers, body).await
    }
}
