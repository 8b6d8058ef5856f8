//! Changes of the configuration, told to every process at once over Redis.
//!
//! A notice makes a change be seen within a second; it is never the only way: whoever caches something also
//! forgets it by itself after a while, and on [`Notice::Missed`] at once.

use std::time::Duration;

use fred::prelude::{ClientLike, EventInterface, PubsubInterface};
use fred::types::Message;
use tokio::sync::broadcast::error::RecvError;

use crate::redis::{Redis, key};
use crate::{Error, KeyId, WorkspaceId};

/// Between two attempts to subscribe.
const AGAIN: Duration = Duration::from_secs(1);

const CONFIGURATION: &str = "configuration-changed";

/// Something changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// This key opens nothing any more.
    KeyRevoked(KeyId),
    /// Limits, rules or fields of this workspace are others now.
    WorkspaceChanged(WorkspaceId),
    /// Chains, functions or destinations are others now.
    ConfigurationChanged,
    /// Notices may have been missed: everything may have changed.
    Missed,
}

impl Notice {
    fn text(&self) -> String {
        match self {
            Self::KeyRevoked(id) => format!("key-revoked {id}"),
            Self::WorkspaceChanged(id) => format!("workspace-changed {id}"),
            Self::ConfigurationChanged => CONFIGURATION.to_owned(),
            Self::Missed => "missed".to_owned(),
        }
    }

    /// What cannot be read comes from another version: something changed, so nothing is certain.
    fn parse(text: &str) -> Self {
        if text == CONFIGURATION {
            return Self::ConfigurationChanged;
        }
        let known = match text.split_once(' ') {
            Some(("key-revoked", id)) => id.parse().ok().map(Self::KeyRevoked),
            Some(("workspace-changed", id)) => id.parse().ok().map(Self::WorkspaceChanged),
            _ => None,
        };
        known.unwrap_or(Self::Missed)
    }
}

/// Tells everybody.
///
/// # Errors
/// When Redis is away or slow: they find out when what they have cached is too old.
pub async fn publish(redis: &Redis, notice: &Notice) -> Result<(), Error> {
    let channel = key::notices(redis.prefix());
    let _: i64 = redis.call(redis.client().publish(channel, notice.text())).await?;
    Ok(())
}

/// Hands every notice to `heard`, until dropped. Connects again by itself. For one listener in a process.
///
/// # Cancellation
/// Nothing is heard any more; the connection stays until the process ends.
pub async fn listen(redis: Redis, mut heard: impl FnMut(Notice) + Send) {
    let subscriber = redis.subscriber();
    let channel = key::notices(redis.prefix());
    let (mut messages, mut connected) = (subscriber.message_rx(), subscriber.reconnect_rx());
    drop(subscriber.connect());
    let mut subscribed = false;
    loop {
        tokio::select! {
            biased;
            again = connected.recv() => {
                if matches!(again, Err(RecvError::Closed)) {
                    return;
                }
                subscribed = false;
            }
            message = messages.recv() => match message {
                Ok(message) => heard(read(&message)),
                Err(RecvError::Lagged(_)) => heard(Notice::Missed),
                Err(RecvError::Closed) => return,
            },
            () = tokio::time::sleep(AGAIN), if !subscribed => {}
        }
        if !subscribed && subscriber.is_connected() {
            match redis.bounded(subscriber.subscribe(channel.as_str())).await {
                Ok(()) => {
                    subscribed = true;
                    // What was said before this moment nobody here has heard.
                    heard(Notice::Missed);
                }
                Err(error) => tracing::debug!(part = "redis", %error, "notices are not heard yet"),
            }
        }
    }
}

fn read(message: &Message) -> Notice {
    message
        .value
        .as_str()
        .map_or(Notice::Missed, |text| Notice::parse(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_is_read_as_it_was_said_and_an_unknown_one_makes_everything_uncertain() {
        for notice in [
            Notice::KeyRevoked("wk_a".parse().expect("an id")),
            Notice::WorkspaceChanged("ws_a".parse().expect("an id")),
            Notice::ConfigurationChanged,
            Notice::Missed,
        ] {
            assert_eq!(Notice::parse(&notice.text()), notice);
        }
        for text in ["", "key-revoked", "key-revoked ws_a", "something new"] {
            assert_eq!(Notice::parse(text), Notice::Missed);
        }
    }
}
