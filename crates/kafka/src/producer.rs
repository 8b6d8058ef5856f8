//! The idempotent producer of rotor and bulker, in sessions.
//!
//! Records of one partition keep their order and are in the log once, as long as the session lives. librdkafka
//! never gives a record up (`message.timeout.ms=0`), so a delivery error is final: the session is over, the
//! caller drops the producer, leaves its group and goes on at the committed offset. A single record is never
//! sent again on its own, or the log would get a gap that a reader takes for a loss.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millrace_event::header::Headers;
use rdkafka::client::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use tokio::sync::oneshot;

use crate::config::Connection;
use crate::error::Error;
use crate::record::Outgoing;

/// Most bytes that wait in a producer, in KiB: 64 MiB.
const QUEUE_KIB: &str = "65536";
/// How long to wait before asking again whether the queue has room.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(5);

/// One idempotent session.
pub struct Producer {
    inner: ThreadedProducer<Deliveries>,
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer")
            .field("in_flight", &self.inner.in_flight_count())
            .finish()
    }
}

impl Producer {
    /// Starts a session. Connects in the background; a cluster that is away only delays deliveries.
    ///
    /// # Errors
    /// [`Error::Configuration`].
    pub fn new(connection: &Connection) -> Result<Self, Error> {
        let mut config = connection.librdkafka();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.timeout.ms", "0")
            .set("linger.ms", "2")
            .set("compression.type", "lz4")
            .set(
                "message.max.bytes",
                millrace_event::topic::BROKER_RECORD_BYTES.to_string(),
            )
            .set("queue.buffering.max.kbytes", QUEUE_KIB);
        let inner =
            ThreadedProducer::from_config_and_context(&config, Deliveries).map_err(Error::Configuration)?;
        Ok(Self { inner })
    }

    /// Writes `records` to one partition in order and returns when all in-sync replicas have all of them.
    ///
    /// Waits while the queue is full; the queue holds at most 64 MiB.
    ///
    /// # Errors
    /// [`Error::Delivery`]: the session is over.
    ///
    /// # Cancellation
    /// A dropped future leaves records on their way: whether they arrive is not known, so the session is over.
    pub async fn send(&self, topic: &str, partition: u32, records: Vec<Outgoing>) -> Result<(), Error> {
        if records.is_empty() {
            return Ok(());
        }
        let failed = |source| Error::Delivery {
            topic: topic.to_owned(),
            partition,
            source,
        };
        let number = i32::try_from(partition)
            .map_err(|_| failed(KafkaError::MessageProduction(RDKafkaErrorCode::UnknownPartition)))?;
        let (done, answer) = oneshot::channel();
        let batch = Arc::new(Batch {
            waiting: AtomicUsize::new(records.len()),
            outcome: Mutex::new(Outcome {
                first_error: None,
                done: Some(done),
            }),
        });
        for record in records {
            self.enqueue(topic, number, &record, &batch)
                .await
                .map_err(failed)?;
        }
        drop(batch);
        match answer.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(source)) => Err(failed(source)),
            Err(_) => Err(Error::Closed),
        }
    }

    async fn enqueue(
        &self,
        topic: &str,
        partition: i32,
        record: &Outgoing,
        batch: &Arc<Batch>,
    ) -> Result<(), KafkaError> {
        let headers = owned_headers(&record.headers);
        loop {
            let mut outgoing = BaseRecord::with_opaque_to(topic, Arc::clone(batch))
                .partition(partition)
                .payload(record.value.as_slice())
                .headers(headers.clone());
            if let Some(key) = &record.key {
                outgoing = outgoing.key(key.as_slice());
            }
            match self.inner.send(outgoing) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    tokio::time::sleep(QUEUE_FULL_PAUSE).await;
                }
                Err((error, _)) => return Err(error),
            }
        }
    }
}

fn owned_headers(headers: &Headers) -> OwnedHeaders {
    headers.iter().fold(OwnedHeaders::new(), |owned, (key, value)| {
        owned.insert(Header {
            key,
            value: Some(value),
        })
    })
}

/// One call of [`Producer::send`] while its records are on their way.
#[derive(Debug)]
struct Batch {
    waiting: AtomicUsize,
    outcome: Mutex<Outcome>,
}

#[derive(Debug)]
struct Outcome {
    first_error: Option<KafkaError>,
    done: Option<oneshot::Sender<Result<(), KafkaError>>>,
}

impl Batch {
    fn settle(&self, result: Result<(), KafkaError>) {
        let mut outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = result {
            outcome.first_error.get_or_insert(error);
        }
        if self.waiting.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        let first_error = outcome.first_error.take();
        if let Some(done) = outcome.done.take() {
            // A caller that no longer waits has ended its session.
            drop(done.send(first_error.map_or(Ok(()), Err)));
        }
    }
}

/// Hands delivery reports to the batch they belong to.
#[derive(Clone, Copy, Debug)]
struct Deliveries;

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Arc<Batch>;

    fn delivery(&self, result: &DeliveryResult<'_>, batch: Arc<Batch>) {
        batch.settle(result.as_ref().map(|_| ()).map_err(|(error, _)| error.clone()));
    }
}
