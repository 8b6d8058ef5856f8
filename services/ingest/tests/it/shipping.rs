//! From the journal to a Kafka that answers late, not at all, or no.

use millrace_event::Identity;
use millrace_event::header::Headers;
use millrace_kafka::Outgoing;
use millrace_kafka::producer::Producer;
use millrace_testkit::broker::{Broker, limit_messages};
use millrace_testkit::proxy::{Fault, PRODUCE, Protocol, Proxy, kafka_request, mentions};
use uuid::Uuid;

use super::*;

/// The ingest topic as it is, copies included, in the order of each partition.
pub(super) struct Log(Vec<(Identity, String, Record)>);

impl Log {
    pub(super) async fn read(pipeline: &Pipeline) -> Self {
        let connection = Connection::new(pipeline.kafka(), "test");
        let partitions = reader::gather(&connection, &pipeline.topic("ingest"))
            .await
            .expect("the topic can be read");
        let read = |record: Record| {
            let id = record.headers.text(header::ID).expect("an identity");
            let message = Ingest::read(&record.value)
                .expect("an envelope")
                .message_id
                .as_str()
                .to_owned();
            (id.parse().expect("an identity"), message, record)
        };
        Self(partitions.into_values().flatten().map(read).collect())
    }

    /// How many records repeat the identity of an earlier one.
    pub(super) fn copies(&self) -> usize {
        let identities: BTreeSet<_> = self.0.iter().map(|(identity, ..)| *identity).collect();
        self.0.len() - identities.len()
    }

    /// Those of `sent` that are not there.
    pub(super) fn missing<'s>(&self, sent: &'s BTreeSet<String>) -> Vec<&'s String> {
        let there: BTreeSet<_> = self.0.iter().map(|(_, message, _)| message).collect();
        sent.iter().filter(|id| !there.contains(id)).collect()
    }

    /// Every event of `sent`, and nothing else, has one identity; copies of an identity are the same to the last
    /// byte; the first records of the identities come in order and without a gap.
    pub(super) fn is_each_event_once(&self, sent: &BTreeSet<String>) {
        let mut events: BTreeMap<&str, Identity> = BTreeMap::new();
        let mut first: BTreeMap<Identity, &Record> = BTreeMap::new();
        let mut next: BTreeMap<(u64, u32), u64> = BTreeMap::new();
        for (identity, message, record) in &self.0 {
            let known = *events.entry(message).or_insert(*identity);
            assert_eq!(known, *identity, "{message} has two identities");
            if let Some(earlier) = first.get(identity) {
                assert_eq!(
                    (&earlier.key, &earlier.value, &earlier.headers),
                    (&record.key, &record.value, &record.headers),
                    "{identity} is two records"
                );
                continue;
            }
            first.insert(*identity, record);
            let expected = next.entry((identity.journal.0, identity.partition)).or_default();
            assert_eq!(identity.seq, *expected, "a gap in front of {identity}");
            *expected += 1;
        }
        let there: BTreeSet<String> = events.into_keys().map(str::to_owned).collect();
        let missing: Vec<_> = self.missing(sent).into_iter().take(5).collect();
        let strange: Vec<_> = there.difference(sent).take(5).collect();
        assert!(
            missing.is_empty() && strange.is_empty(),
            "missing {missing:?}, never answered 200 {strange:?}"
        );
    }
}

/// The topic, once all of `sent` is in it and nothing is left in the journal.
pub(super) async fn read_log(pipeline: &Pipeline, sent: &BTreeSet<String>) -> Log {
    all_arrived(pipeline, sent).await;
    let empty = until("the journal is shipped", PATIENCE, || async {
        let left = pipeline
            .metric("ingest", "millrace_ingest_journal_records", "")
            .await?;
        Ok((left < 0.5).then_some(()))
    });
    empty.await.unwrap();
    Log::read(pipeline).await
}

async fn send(pipeline: &Pipeline, sent: &mut BTreeSet<String>, count: usize) {
    let sender = pipeline.sender();
    let from = sent.len();
    for n in from..from + count {
        let id = format!("m-{n}");
        let answer = sender.post("/v1/track", &track(&id)).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
        sent.insert(id);
    }
}

#[tokio::test]
async fn a_broker_that_answers_after_the_timeout_or_never_costs_copies_and_no_event() {
    let directory = tempfile::tempdir().unwrap();
    let proxy = Proxy::listen(Protocol::Kafka).await.unwrap();
    let kafka = Broker::start_behind(directory.path(), &proxy).await.unwrap();
    let settings = vec![("MILLRACE__SHIP__REQUEST_TIMEOUT", "1s".to_owned())];
    let pipeline = start_on(Some(kafka.address()), settings).await;
    let mut sent = BTreeSet::new();
    send(&pipeline, &mut sent, 50).await;
    all_arrived(&pipeline, &sent).await;
    let topic = pipeline.topic("ingest");
    let meant = || {
        let (produce, ours) = (kafka_request(PRODUCE), mentions(&topic));
        move |frame: &[u8]| produce(frame) && ours(frame)
    };
    let hit = async |hits: u64| {
        let broken = until("a request is broken", PATIENCE, || async {
            Ok((proxy.hits() >= hits).then_some(()))
        });
        broken.await.unwrap();
    };

    // The broker takes the batches and says so, and nobody hears it.
    proxy.arm(Fault::SwallowAnswer, 4, meant());
    send(&pipeline, &mut sent, 100).await;
    hit(4).await;
    all_arrived(&pipeline, &sent).await;
    let log = read_log(&pipeline, &sent).await;
    log.is_each_event_once(&sent);
    let swallowed = log.copies();
    assert!(swallowed > 0, "a batch without an answer is sent again");

    // It takes them after the shipper has given the request up, and after what came behind it.
    proxy.arm(Fault::Stall, 3, meant());
    send(&pipeline, &mut sent, 100).await;
    hit(7).await;
    let log = read_log(&pipeline, &sent).await;
    assert_eq!(
        log.copies(),
        swallowed,
        "the stalled requests are still on their way"
    );
    send(&pipeline, &mut sent, 50).await;
    all_arrived(&pipeline, &sent).await;
    proxy.calm();
    let late = until("the late requests are carried out", PATIENCE, || async {
        let log = Log::read(&pipeline).await;
        Ok((log.copies() > swallowed).then_some(()))
    });
    late.await.unwrap();
    read_log(&pipeline, &sent).await.is_each_event_once(&sent);
}

#[tokio::test]
async fn a_record_that_kafka_refuses_for_good_is_set_aside_and_its_neighbours_arrive() {
    let pipeline = start(Vec::new()).await;
    // Noise, for the limit is on what is left of a batch after its compression.
    let noise = || {
        (0..2000)
            .map(|_| Uuid::new_v4().simple().to_string())
            .collect::<String>()
    };
    // A broker obeys in the order in which it was told: the topic that nobody writes to here is limited last.
    for topic in ["ingest", "dlq"] {
        limit_messages(pipeline.kafka(), &pipeline.topic(topic), 40_000)
            .await
            .unwrap();
    }
    let connection = Connection::new(pipeline.kafka(), "canary");
    until("the broker obeys", PATIENCE, || async {
        // A session ends with what is refused, so each attempt has its own.
        let producer = Producer::new(&connection)?;
        let record = Outgoing {
            key: None,
            value: noise().into_bytes(),
            headers: Headers::new(),
        };
        let sent = producer.send(&pipeline.topic("dlq"), 0, vec![record]).await;
        Ok(sent.is_err().then_some(()))
    })
    .await
    .unwrap();
    let event = |id: &str, filler: String| json!({ "type": "track", "event": "Sent", "messageId": id, "anonymousId": "one", "properties": { "filler": filler } });
    let batch = json!({ "batch": [
        event("before", String::new()), event("refused", noise()), event("between", String::new()),
        event("refused too", noise()), event("behind", String::new()),
    ] });
    let answer = pipeline.sender().post("/v1/batch", &batch).await.unwrap();
    assert_eq!(answer.body, r#"{"success":true}"#);
    let events = all_arrived(
        &pipeline,
        &["before", "between", "behind"].map(str::to_owned).into(),
    )
    .await;
    assert_eq!(events.len(), 3, "{:?}", events.keys());
    let seqs: Vec<u64> = events
        .values()
        .map(|records| records.keys().next().unwrap().parse::<Identity>().unwrap().seq)
        .collect();
    assert_eq!(seqs, [0, 4, 2], "before, behind, between: each keeps its number");

    let aside = pipeline.directory().join("journal/aside.jsonl");
    let text = std::fs::read_to_string(&aside).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2, "{text}");
    for (line, seq) in lines.iter().zip([1, 3]) {
        let id: Identity = line["id"].as_str().unwrap().parse().unwrap();
        assert_eq!((id.seq, line["topic"].as_str()), (seq, Some("ingest")));
        use base64::Engine as _;
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(line["bytes"].as_str().unwrap())
            .unwrap();
        let kept = Ingest::read(&bytes).unwrap();
        assert!(kept.message_id.as_str().starts_with("refused"));
    }
    let counted = pipeline
        .counted(
            "ingest",
            "millrace_ingest_records_set_aside_total",
            "",
            2.0,
            PATIENCE,
        )
        .await
        .unwrap();
    assert!((counted - 2.0).abs() < 0.5, "{counted}");
    insist(&pipeline.sender(), "/v1/track", &event("later", String::new())).await;
    all_arrived(&pipeline, &BTreeSet::from(["later".to_owned()])).await;
}
