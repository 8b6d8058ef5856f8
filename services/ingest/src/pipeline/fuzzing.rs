//! The pipeline's part of the fuzz target `body`.

use millrace_event::json::{Kind as JsonKind, Value};
use millrace_event::{KeyKind, Timestamp};
use millrace_store::keys::IpPolicy;
use millrace_store::rules::{Alias, AliasMode};
use serde_json::value::RawValue;

use super::event::{self, EventLimits, Terms};
use super::types::Fixed;
use super::{Clocks, Shape, decode, mend, rules, types};

/// Takes a decoded body apart and judges each event of it, its names and the types of its fields included.
#[expect(clippy::expect_used, reason = "a fuzz target reports by panicking")]
pub(crate) fn events(body: &[u8], shape: Shape) {
    let (limits, clocks) = (EventLimits::default(), Clocks::default());
    let mended;
    let envelope = match decode::decode(body, shape, limits.batch) {
        Ok(envelope) => envelope,
        Err(_) => match mend::mended(body) {
            None => return,
            Some(text) => {
                mended = text;
                match decode::decode(&mended, shape, limits.batch) {
                    Ok(envelope) => envelope,
                    Err(_) => return,
                }
            }
        },
    };
    let _key = envelope.write_key();
    let aliases = [AliasMode::Both, AliasMode::New].map(|mode| Alias {
        old: format!("old_{mode}"),
        new: format!("new_{mode}"),
        mode,
    });
    let required = ["brand".to_owned()];
    let mut known = Fixed::default();
    let terms = Terms {
        limits: &limits,
        clocks: &clocks,
        aliases: &aliases,
        received_at: Timestamp::clamped_from_millis(1_800_000_000_000),
        is_import: false,
        ip: IpPolicy::Anonymize,
    };
    for item in envelope.items().iter().copied() {
        let Ok(prepared) = event::prepare(item, None, shape, &envelope, terms) else {
            continue;
        };
        let text = prepared.event.get();
        let read: &RawValue = serde_json::from_str(text).expect("an event that goes on is JSON");
        assert_eq!(Value::from(read).kind(), JsonKind::Object, "{text}");
        assert!(
            !prepared.message_id.is_empty() && !prepared.key.is_empty(),
            "{text}"
        );
        let _missing = rules::missing(Value::from(read), &required);
        for kind in [KeyKind::Server, KeyKind::Browser] {
            let said = types::read(Value::from(read), prepared.person.as_deref(), kind, &known);
            known.extend(said.into_unknown());
        }
    }
}
