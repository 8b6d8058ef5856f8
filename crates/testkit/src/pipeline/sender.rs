use anyhow::Result;

use crate::http::Client;

/// Sends requests to ingest with the workspace's server key.
#[derive(Clone, Debug)]
pub struct Sender {
    pub(super) client: Client,
    pub(super) url: String,
    pub(super) authorization: String,
}

impl Sender {
    /// The same to another gateway.
    #[must_use]
    pub fn at(&self, url: &str) -> Self {
        Self {
            url: url.to_owned(),
            ..self.clone()
        }
    }

    /// `POST`s JSON.
    ///
    /// # Errors
    /// No answer.
    pub async fn post(&self, path: &str, body: &serde_json::Value) -> Result<crate::http::Answer> {
        let headers = [
            ("authorization", self.authorization.as_str()),
            ("content-type", "application/json"),
        ];
        self.client
            .post(&format!("{}{path}", self.url), &headers, body.to_string())
            .await
    }
}
