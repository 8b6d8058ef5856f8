//! The gateway's producer: one stream of batches per partition, acks from all in-sync replicas.
//!
//! It speaks the two requests that it needs itself. A batch is encoded once and sent as it is; a connection serves one
//! request at a time, so the answer that comes is the answer to what was asked. Every request has a deadline; one that
//! expires is ambiguous, and the connection it used is never used again. There is no idempotence: a batch
//! that is sent again may be in the log twice, and the reader removes it by its identities. Nothing is tried again in
//! here: whoever calls does, with what it knows about waiting.

mod batch;
mod fault;
mod wire;

use std::collections::HashMap;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::Connection;
use crate::error::{Error, ProduceError};
use crate::record::Outgoing;

pub use batch::{Batch, Records};
pub use fault::{Code, Fault};

/// Produces batches; cheap to share. Connects at the first use and again after every doubt.
///
/// It has as many connections to a broker as requests were under way to it at once.
#[derive(Debug)]
pub struct Producer {
    connection: Connection,
    request_timeout: Duration,
    live: Mutex<Live>,
    /// Which bootstrap broker is asked next.
    turn: AtomicUsize,
    /// Numbers requests.
    next: AtomicI32,
}

#[derive(Debug, Default)]
struct Live {
    /// The addresses of leaders, by topic and partition.
    leaders: HashMap<String, HashMap<u32, Arc<str>>>,
    /// Connections on which everything was answered, by address.
    idle: HashMap<Arc<str>, Vec<TcpStream>>,
}

impl Producer {
    /// A producer whose every request is given up after `request_timeout`.
    pub fn new(connection: Connection, request_timeout: Duration) -> Self {
        Self {
            connection,
            request_timeout,
            live: Mutex::default(),
            turn: AtomicUsize::new(0),
            next: AtomicI32::new(0),
        }
    }

    /// How many partitions a topic has.
    ///
    /// # Errors
    /// [`Error::NoSuchTopic`], or the cluster cannot be reached in time.
    pub async fn partitions(&self, topic: &str) -> Result<u32, Error> {
        let located = self.within("a metadata request", self.locate(topic)).await;
        if located.is_err() {
            self.forget_all();
        }
        match located? {
            0 => Err(Error::NoSuchTopic {
                topic: topic.to_owned(),
            }),
            count => Ok(count),
        }
    }

    /// Writes `records` to one partition as one batch and returns when all in-sync replicas have it.
    ///
    /// # Errors
    /// As [`Self::produce_batch`].
    ///
    /// # Cancellation
    /// A dropped future leaves the batch ambiguous.
    pub async fn produce(
        &self,
        topic: &str,
        partition: u32,
        records: Vec<Outgoing>,
    ) -> Result<(), ProduceError> {
        if records.is_empty() {
            return Ok(());
        }
        let mut all = Records::default();
        all.extend(records);
        let batch = all.into_batch(now_ms());
        self.produce_batch(topic, partition, &batch).await
    }

    /// Writes a batch to one partition and returns when all in-sync replicas have it.
    ///
    /// Call it for one batch per partition at a time, or order is lost.
    ///
    /// # Errors
    /// [`ProduceError::Ambiguous`]: send the same batch again; [`ProduceError::Refused`]: never will it pass.
    ///
    /// # Cancellation
    /// A dropped future leaves the batch ambiguous.
    pub async fn produce_batch(
        &self,
        topic: &str,
        partition: u32,
        batch: &Batch,
    ) -> Result<(), ProduceError> {
        let sent = self
            .within("a produce request", self.send(topic, partition, batch.bytes()))
            .await;
        let Err(error) = sent else { return Ok(()) };
        if let Error::Edge {
            source: Fault::Refused(code),
            ..
        } = &error
            && code.is_for_good()
        {
            return Err(ProduceError::Refused {
                topic: topic.to_owned(),
                partition,
                code: code.to_string(),
            });
        }
        self.forget_all();
        Err(ProduceError::Ambiguous {
            topic: topic.to_owned(),
            partition,
            source: error,
        })
    }

    async fn send(&self, topic: &str, partition: u32, batch: Bytes) -> Result<(), Fault> {
        let number = i32::try_from(partition).map_err(|_| Fault::NoLeader)?;
        let leader = match self.leader(topic, partition) {
            Some(leader) => leader,
            None => {
                self.locate(topic).await?;
                self.leader(topic, partition).ok_or(Fault::NoLeader)?
            }
        };
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let timeout_ms = i32::try_from(self.request_timeout.as_millis()).unwrap_or(i32::MAX);
        let client = &self.connection.client_id;
        let head = wire::produce(id, client, (topic, number), timeout_ms, batch.len());
        let answer = self.ask(&leader, head, batch).await?;
        wire::produced(&answer, id, (topic, number))
    }

    fn leader(&self, topic: &str, partition: u32) -> Option<Arc<str>> {
        let live = self.live();
        live.leaders.get(topic)?.get(&partition).map(Arc::clone)
    }

    /// Asks where a topic's partitions are and remembers it; says how many there are.
    async fn locate(&self, topic: &str) -> Result<u32, Fault> {
        let brokers = self.connection.bootstrap();
        let share = self.request_timeout / u32::try_from(brokers.len().max(1)).unwrap_or(u32::MAX);
        let first = self.turn.load(Ordering::Relaxed);
        let mut last = Fault::NoLeader;
        for turn in 0..brokers.len() {
            let Some(broker) = brokers.get(first.wrapping_add(turn) % brokers.len()) else {
                continue;
            };
            let id = self.next.fetch_add(1, Ordering::Relaxed);
            let question = wire::metadata(id, &self.connection.client_id, topic);
            // One that does not answer must not take the time of all.
            let asked = timeout(share, self.ask(&broker.as_str().into(), question, Bytes::new())).await;
            let answered = match asked {
                Ok(answer) => answer.and_then(|answer| wire::located(&answer, id, topic)),
                Err(_) => Err(Fault::Connection(std::io::ErrorKind::TimedOut.into())),
            };
            match answered {
                Ok(found) => {
                    let count = u32::try_from(found.leaders.len()).unwrap_or(u32::MAX);
                    let led = found
                        .leaders
                        .into_iter()
                        .filter_map(|(partition, address)| Some((partition, address?.into())));
                    self.live().leaders.insert(topic.to_owned(), led.collect());
                    return Ok(count);
                }
                Err(fault) => {
                    self.turn.fetch_add(1, Ordering::Relaxed);
                    last = fault;
                }
            }
        }
        Err(last)
    }

    /// Sends a request on a connection that is used for nothing else meanwhile, and gives the answer to it.
    async fn ask(&self, address: &Arc<str>, head: BytesMut, body: Bytes) -> Result<BytesMut, Fault> {
        let mut stream = match self.idle(address) {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(&**address).await?;
                stream.set_nodelay(true)?;
                stream
            }
        };
        stream.write_all_buf(&mut head.chain(body)).await?;
        let mut answer = BytesMut::with_capacity(512);
        let mut whole = wire::LENGTH;
        while answer.len() < whole {
            if stream.read_buf(&mut answer).await? == 0 {
                return Err(Fault::Connection(std::io::ErrorKind::UnexpectedEof.into()));
            }
            if let Some(length) = answer.first_chunk() {
                let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
                if length > wire::ANSWER_LIMIT {
                    return Err(Fault::Malformed);
                }
                whole = wire::LENGTH + length;
            }
        }
        if answer.len() > whole {
            // Nothing else was asked.
            return Err(Fault::Malformed);
        }
        let mut live = self.live();
        live.idle.entry(Arc::clone(address)).or_default().push(stream);
        drop(live);
        answer.advance(wire::LENGTH);
        Ok(answer)
    }

    /// A connection that waits, but none on which anything came meanwhile: nothing was asked, so it was closed.
    fn idle(&self, address: &str) -> Option<TcpStream> {
        let mut live = self.live();
        let waiting = live.idle.get_mut(address)?;
        while let Some(stream) = waiting.pop() {
            let read = stream.try_read(&mut [0]);
            if read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock) {
                return Some(stream);
            }
        }
        None
    }

    async fn within<T>(
        &self,
        request: &'static str,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Error> {
        match timeout(self.request_timeout, work).await {
            Ok(result) => result.map_err(|source| Error::Edge { request, source }),
            Err(_) => Err(Error::Timeout {
                request,
                seconds: self.request_timeout.as_secs(),
            }),
        }
    }

    /// Drops what is known and every connection that waits: after a doubt all of it is asked anew.
    fn forget_all(&self) {
        *self.live() = Live::default();
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time that the records of a batch carry, in milliseconds since the epoch. The broker stamps nothing by default;
/// the time at which records are handed over is what operators look for.
#[expect(
    clippy::disallowed_methods,
    reason = "the record's create time is for operators, no rule reads it"
)]
pub fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
