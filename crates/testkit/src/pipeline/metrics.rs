//! What the services count.

use std::time::Duration;

use anyhow::{Context, Result};

use super::Pipeline;
use crate::wait::until;

impl Pipeline {
    /// One metric of a service, summed over its labels that contain `labels`.
    ///
    /// # Errors
    /// The service does not answer.
    pub async fn metric(&self, service: &str, name: &str, labels: &str) -> Result<f64> {
        let text = self
            .client
            .get(&format!("{}/metrics", self.url(service)))
            .await?
            .body;
        let value = |line: &str| -> Option<f64> {
            let rest = line.strip_prefix(name)?;
            let (label, value) = rest.rsplit_once(' ')?;
            let whole = label.is_empty() || label.starts_with('{');
            (whole && label.contains(labels))
                .then(|| value.parse().ok())
                .flatten()
        };
        Ok(text.lines().filter_map(value).fold(0.0, |sum, value| sum + value))
    }

    /// Waits until such a metric is `least` or more, and returns it: many are counted after what they count can be seen,
    /// as records are that their commit settles.
    ///
    /// # Errors
    /// Not within `patience`; with the ends of all logs.
    pub async fn counted(
        &self,
        service: &str,
        name: &str,
        labels: &str,
        least: f64,
        patience: Duration,
    ) -> Result<f64> {
        let what = format!("{name} of {service} is {least}");
        let counted = until(&what, patience, || async {
            let value = self.metric(service, name, labels).await?;
            Ok(Some(value).filter(|value| *value >= least))
        });
        counted.await.with_context(|| self.tails())
    }
}
