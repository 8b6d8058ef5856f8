//! Waiting for something to become true, instead of sleeping and hoping.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::Instant;

const TURN: Duration = Duration::from_millis(50);

/// Asks until the answer is there. `what` is said when it is not, with the last reason why.
///
/// # Errors
/// Not within `patience`.
pub async fn until<T, F>(what: &str, patience: Duration, mut ask: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    let end = Instant::now() + patience;
    let mut last = None;
    loop {
        match ask().await {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => {}
            Err(error) => last = Some(error),
        }
        if Instant::now() >= end {
            match last {
                Some(error) => bail!("{what}: not within {patience:?}; last error: {error:#}"),
                None => bail!("{what}: not within {patience:?}"),
            }
        }
        tokio::time::sleep(TURN).await;
    }
}
