//! Reading bodies, bounded each and together.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::Body;
use http_body_util::BodyExt as _;
use millrace_event::IngestCode;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Config;
use super::coding::{self, Caps, Coding};
use super::memory::{Budget, Grant};
use crate::pipeline::Refusal;

/// How long a body waits for memory before its client is asked to come again.
const MEMORY_WAIT: Duration = Duration::from_secs(1);
/// Room made for an announced body before it arrives.
const FIRST_ROOM: usize = 64 << 10;

/// Reads bodies.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    budget: Budget,
    limit: usize,
    caps: Caps,
    timeout: Duration,
    closing: CancellationToken,
}

impl Memory {
    /// What has not arrived when `closing` is cancelled is not waited for any more.
    pub(crate) fn new(config: &Config, closing: CancellationToken) -> Self {
        Self {
            budget: Budget::new(config.body_memory.as_usize(), MEMORY_WAIT),
            limit: config.body_limit.as_usize(),
            caps: Caps {
                size: config.decoded_limit.as_usize(),
                ratio: config.decoded_ratio,
            },
            timeout: config.body_timeout,
            closing,
        }
    }

    /// Reads a body and decodes it; its memory is given back with the grant.
    ///
    /// # Errors
    /// When it is too large, too slow, encoded in a way that is not known, there is no memory for it, or the gateway
    /// cannot wait for it any more because it ends. The client's connection is then not fit for another request.
    pub(super) async fn read<B>(&self, headers: &HeaderMap, body: B) -> Result<(Bytes, Grant), Refusal>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let announced = headers
            .get(CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        if announced.is_some_and(|length| length > self.limit) {
            return Err(self.too_large());
        }
        let mut grant = self.budget.grant();
        let work = async {
            let whole = self.whole(body, announced.unwrap_or(0), &mut grant);
            let body = tokio::select! {
                // What is there already is taken whatever happens, and does not wait for anything.
                biased;
                body = whole => body?,
                () = self.closing.cancelled() => return Err(Refusal::draining()),
            };
            match Coding::of(headers, &body)? {
                // Large, and most bodies are not encoded.
                Some(coding) => Box::pin(coding::decoded(coding, &body, self.caps, &mut grant)).await,
                None => Ok(body),
            }
        };
        match timeout(self.timeout, work).await {
            Ok(body) => Ok((body?, grant)),
            Err(_) => Err(Refusal::new(
                IngestCode::Timeout,
                "the body did not arrive in time",
            )),
        }
    }

    async fn whole<B>(&self, mut body: B, announced: usize, grant: &mut Grant) -> Result<Bytes, Refusal>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let mut whole = BytesMut::new();
        let mut first: Option<Bytes> = None;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Refusal::new(IngestCode::InvalidJson, "the body broke off"))?;
            let Ok(part) = frame.into_data() else { continue };
            let length = first.as_ref().map_or(whole.len(), Bytes::len) + part.len();
            if length > self.limit {
                return Err(self.too_large());
            }
            grant.cover(length).await?;
            // Most bodies come in one piece, which needs no copy.
            match first.take() {
                None if whole.is_empty() => first = Some(part),
                None => whole.extend_from_slice(&part),
                Some(before) => {
                    whole.reserve(announced.clamp(length, FIRST_ROOM.max(length)));
                    whole.extend_from_slice(&before);
                    whole.extend_from_slice(&part);
                }
            }
        }
        Ok(first.unwrap_or_else(|| whole.freeze()))
    }

    fn too_large(&self) -> Refusal {
        Refusal::new(
            IngestCode::BodyTooLarge,
            format!("a body has {} bytes at most", self.limit),
        )
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http_body_util::Full;
    use millrace_service::config::ByteSize;

    use super::*;

    fn memory(limit: u64, total: u64) -> Memory {
        let config = Config {
            body_limit: ByteSize::bytes(limit),
            body_memory: ByteSize::bytes(total),
            body_timeout: Duration::from_millis(20),
            ..Config::default()
        };
        let total = config.body_memory.as_usize();
        Memory {
            budget: Budget::new(total, Duration::from_millis(20)),
            ..Memory::new(&config, CancellationToken::new())
        }
    }

    fn of(length: usize) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from(length))])
    }

    #[derive(Debug)]
    struct Pieces(Vec<&'static [u8]>);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
            let next = (!self.0.is_empty()).then(|| self.0.remove(0));
            std::task::Poll::Ready(next.map(|piece| Ok(http_body::Frame::data(Bytes::from_static(piece)))))
        }
    }

    #[derive(Debug)]
    struct Stalled;

    impl Body for Stalled {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
            std::task::Poll::Pending
        }
    }

    #[tokio::test]
    async fn a_body_in_pieces_comes_whole_and_one_too_large_is_refused_while_it_comes() {
        let memory = memory(10, 10_240);
        let whole = memory
            .read(&HeaderMap::new(), Pieces(vec![b"abc", b"def", b"", b"ghij"]))
            .await
            .unwrap()
            .0;
        assert_eq!(whole, "abcdefghij");
        let refused = memory
            .read(&HeaderMap::new(), Pieces(vec![b"abc", b"def", b"ghijk"]))
            .await
            .unwrap_err();
        assert_eq!(refused.code, IngestCode::BodyTooLarge);
        let refused = memory.read(&of(11), Full::new(Bytes::new())).await.unwrap_err();
        assert_eq!(refused.code, IngestCode::BodyTooLarge);
    }

    #[tokio::test]
    async fn a_body_that_stalls_is_given_up() {
        let refused = memory(10, 10_240).read(&of(5), Stalled).await.unwrap_err();
        assert_eq!(refused.code, IngestCode::Timeout);
    }

    #[tokio::test]
    async fn a_gateway_that_ends_takes_what_has_arrived_and_waits_for_nothing_more() {
        let memory = memory(10, 10_240);
        memory.closing.cancel();
        let refused = memory.read(&of(5), Stalled).await.unwrap_err();
        assert_eq!(refused.code, IngestCode::Draining);
        let whole = memory
            .read(&HeaderMap::new(), Pieces(vec![b"abc", b"def"]))
            .await
            .unwrap();
        assert_eq!(whole.0, "abcdef");
    }

    #[tokio::test]
    async fn bodies_wait_for_memory_and_are_refused_when_there_is_none() {
        let memory = memory(2048, 2048);
        let held = memory
            .read(&of(2048), Full::new(Bytes::from_static(&[b' '; 2048])))
            .await
            .unwrap();
        let refused = memory
            .read(&of(1), Full::new(Bytes::from_static(b"{}")))
            .await
            .unwrap_err();
        assert_eq!(refused.code, IngestCode::RateLimited);
        drop(held);
        assert!(
            memory
                .read(&of(1), Full::new(Bytes::from_static(b"{}")))
                .await
                .is_ok()
        );
    }
}
