//! What the benches run on: one event of 1 KB and the envelopes around it.
//!
//! The benches themselves are the targets in `benches/`, the load programs those in `src/bin/`. The events here
//! are fixed text, so that two runs, or two machines, compare like with like; [`load`], [`measure`] and
//! [`report`] are what the load programs share.

pub mod load;
pub mod measure;
pub mod processes;
pub mod report;

use std::borrow::Cow;
use std::sync::Arc;

use millrace_event::envelope::{Envelope as _, Ingest, Origin, Output, Text, Transformed, V1};
use millrace_event::{Identity, JournalId, KeyKind, Timestamp, Verdict};
use millrace_warehouse::column_type::ColumnType;
use millrace_warehouse::error::UnfitReason;
use millrace_warehouse::schema::ColumnSpec;
use millrace_warehouse::{Batch, Limits, Row, RowId, Schema, layout};
use serde_json::value::RawValue;

/// How many rows the encoder's benches make into one block.
pub const ROWS: usize = 1_000;

/// An order as a server-side library sends it: 1,024 bytes, three levels deep, with what makes text costly to
/// read (escapes, two-byte characters, long digits, an array of objects).
pub const EVENT: &str = concat!(
    r#"{"type":"track","messageId":"node-next-1795233600120-5b3c1f0a-7d1e-4a8e-9c55-3f0c2a8e4b10","#,
    r#""anonymousId":"8f14e45f-ceea-467f-a9e0-1d2c3b4a5968","userId":"user-204817","#,
    r#""event":"Order Completed","properties":{"orderId":"A-2026-1121-000417","total":129.95,"#,
    r#""revenue":109.20,"shipping":4.90,"tax":20.75,"discount":5.1,"coupon":"NOVEMBER","currency":"EUR","#,
    r#""ledgerNumber":9007199254740993,"giftWrapped":false,"note":"Caf\u00e9 au lait, \"très\" bien","#,
    r#""cart":{"id":"c-88121","itemCount":3,"firstSeenAt":"2026-11-20T19:12:44.031Z"},"#,
    r#""products":[{"productId":"507f1f77bcf8","sku":"45790-32","name":"Monopoly","price":19.0,"quantity":1},"#,
    r#"{"productId":"505bd76785eb","sku":"46493-32","name":"Uno","price":3.5,"quantity":2}]},"#,
    r#""context":{"library":{"name":"@segment/analytics-node","version":"3.1.0"},"locale":"de-DE","#,
    r#""page":{"url":"https://shop.example/checkout/done","path":"/checkout/done","title":"Danke""#,
    r#","referrer":"https://www.search.example/q?n"},"#,
    r#""campaign":{"name":"autumn","source":"mail"}},"timestamp":"2026-11-21T04:00:00.000Z"}"#,
);

const _: () = assert!(EVENT.len() == 1024, "the benches' figures are per 1 KB event");

/// The event as the envelopes hold it.
///
/// # Errors
/// Never: [`EVENT`] is JSON.
pub fn event() -> serde_json::Result<Box<RawValue>> {
    RawValue::from_string(EVENT.to_owned())
}

/// The envelope in which the gateway hands `event` on.
pub fn ingest(event: &RawValue) -> Ingest<'_> {
    let headers = [
        ("user-agent", "analytics-node-next/3.1.0"),
        ("accept-language", "de-DE"),
    ];
    Ingest {
        version: V1,
        workspace: Text::from("ws_9h2k6q0c4m8t"),
        source: Text::from("src_4d7x1z5r8w3b"),
        key_id: Text::from("wk_0a6f2n9p5v7y"),
        key_kind: KeyKind::Server,
        received_at: Timestamp::clamped_from_millis(1_795_233_600_120),
        sent_at: Some(Timestamp::clamped_from_millis(1_795_233_600_100)),
        ip: Some(Text(Cow::Borrowed("203.0.113.7"))),
        headers: headers
            .map(|(name, value)| (Text::from(name), Text::from(value)))
            .into(),
        marks: Vec::new(),
        message_id: Text::from("node-next-1795233600120-5b3c1f0a-7d1e-4a8e-9c55-3f0c2a8e4b10"),
        event,
    }
}

/// The rotor's record for `ingest`, forwarded unchanged as one row.
pub fn forwarded<'a>(ingest: &Ingest<'a>) -> Transformed<'a> {
    Transformed {
        version: V1,
        id: Identity {
            journal: JournalId(0x5eed_0000_0000_00ab),
            partition: 3,
            seq: 4_711_042,
        },
        attempt: 0,
        origin: Origin::from(ingest),
        verdict: Verdict::Forward,
        outputs: vec![Output {
            destination: Text::from("dst_7c3g9j1s5e2d"),
            table: Text::from("ws_demo.events"),
            config_version: 41,
            event: ingest.event,
        }],
        sub: None,
        reason: None,
        resume: None,
        retry_after_ms: None,
        original: None,
    }
}

/// The value of an ingest record around [`EVENT`].
///
/// # Errors
/// As [`event`].
pub fn ingest_bytes() -> serde_json::Result<Vec<u8>> {
    Ok(ingest(&event()?).to_bytes())
}

/// The value of a transformed record around [`EVENT`].
///
/// # Errors
/// As [`event`].
pub fn transformed_bytes() -> serde_json::Result<Vec<u8>> {
    Ok(forwarded(&ingest(&event()?)).to_bytes())
}

/// [`ROWS`] events as one shop sends them: [`EVENT`] with ids, names, amounts and text that differ.
///
/// # Errors
/// Never: they are JSON.
pub fn events() -> serde_json::Result<Vec<Box<RawValue>>> {
    let names = [
        "Order Completed",
        "Product Viewed",
        "Cart Viewed",
        "Checkout Started",
    ];
    let event = |number: usize| {
        let name = names.get(number % names.len()).copied().unwrap_or_default();
        let text = EVENT
            .replace("5b3c1f0a-7d1e", &format!("{number:08x}-7d1e"))
            .replace("8f14e45f", &format!("{:08x}", number % 97))
            .replace("user-204817", &format!("user-{:06}", number % 97))
            .replace("000417", &format!("{number:06}"))
            .replace("129.95", &format!("{}.{:02}", 100 + number % 800, number % 100))
            .replace("Order Completed", name);
        RawValue::from_string(text)
    };
    (0..ROWS).map(event).collect()
}

/// Event number `seq` as the bulker hands it to the encoder.
pub fn row(seq: u64, event: &RawValue) -> Row<'_> {
    Row {
        id: RowId {
            identity: Identity {
                journal: JournalId(0x5eed_0000_0000_00ab),
                partition: 3,
                seq,
            },
            sub: 0,
        },
        received_at: Timestamp::clamped_from_millis(1_795_233_600_120),
        sent_at: Some(Timestamp::clamped_from_millis(1_795_233_600_100)),
        source: "src_4d7x1z5r8w3b",
        workspace: "",
        message_id: "gateway-id",
        event,
    }
}

/// The schema of a table that has a column for every field of `events`.
///
/// # Errors
/// Never: the core columns are there.
pub fn full_schema(events: &[Box<RawValue>]) -> Result<Arc<Schema>, UnfitReason> {
    let core = layout::CORE.iter().map(|column| (column.name, column.type_name));
    let own = core
        .chain(layout::IDENTITY)
        .map(|(name, kind)| ColumnSpec::new(name, ColumnType::parse(kind)));
    let mut columns: Vec<_> = own.collect();
    let now = Timestamp::clamped_from_millis(0);
    let mut batch = Batch::new(Arc::new(Schema::new(columns.clone())), Limits::default(), now)?;
    for (seq, event) in (0..).zip(events) {
        let pushed = batch.push(&row(seq, event));
        debug_assert!(pushed.is_ok(), "a row that fits");
    }
    columns.extend(batch.added().iter().cloned());
    Ok(Arc::new(Schema::new(columns)))
}
