//! At the start: message ids that earlier runs left reserved become done where the journal has their events,
//! and free where it does not.

use std::time::Duration;

use millrace_event::KeyKind;
use millrace_event::envelope::{Envelope as _, Ingest};
use millrace_service::failpoint;
use millrace_store::dedup::{Settled, Window};
use millrace_store::{Dedup, WorkspaceId};
use tokio::task::spawn_blocking;

use crate::journal::{Reader, Recovered};

const AGAIN: Duration = Duration::from_secs(1);

/// Mark of an event of the past: its id is remembered for longer. A server's key does not say so, the door does, so it
/// is written down with the event.
pub(super) const IMPORTED: &str = "import";

/// Tries until it succeeds, or until reservations have expired by themselves. Requests may be served meanwhile;
/// segments of earlier processes stay until this returns.
///
/// # Cancellation
/// Reservations stay until they expire.
pub(crate) async fn settle(dedup: Dedup, reader: Reader, recovered: Recovered, pending: Duration) {
    let deadline = tokio::time::Instant::now() + pending;
    while let Err(error) = once(&dedup, &reader, &recovered, pending).await {
        if tokio::time::Instant::now() >= deadline {
            tracing::warn!(%error, "reservations of earlier runs were left to expire");
            break;
        }
        tracing::debug!(%error, "reservations of earlier runs are not settled yet");
        tokio::time::sleep(AGAIN).await;
    }
    reader.hold_recovered(false);
}

async fn once(
    dedup: &Dedup,
    reader: &Reader,
    recovered: &Recovered,
    pending: Duration,
) -> anyhow::Result<()> {
    let mut settlement = dedup.settlement().await?;
    if settlement.is_empty() {
        return Ok(());
    }
    for segment in recovered.segments() {
        let (reader, segment) = (reader.clone(), *segment);
        let held = spawn_blocking(move || {
            let mut held = Vec::new();
            // What is older than a reservation lasts has none.
            reader
                .visit(segment, pending, |value| held.extend(event(value)))
                .map(|()| held)
        })
        .await??;
        for (workspace, window, message_id) in held {
            settlement.held(&workspace, window, &message_id).await?;
        }
    }
    failpoint!(async "ingest::before_settle");
    let Settled { done, discarded } = settlement.finish().await?;
    tracing::info!(done, discarded, "reservations of earlier runs are settled");
    Ok(())
}

fn event(value: &[u8]) -> Option<(WorkspaceId, Window, String)> {
    let envelope = Ingest::read(value).ok()?;
    let is_import =
        envelope.key_kind == KeyKind::Import || envelope.marks.iter().any(|mark| mark.as_str() == IMPORTED);
    let window = match is_import {
        true => Window::Import,
        false => Window::Live,
    };
    Some((
        envelope.workspace.as_str().parse().ok()?,
        window,
        envelope.message_id.as_str().to_owned(),
    ))
}
