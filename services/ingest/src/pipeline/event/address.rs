//! The address that an event gives as its person's, `context.ip`: no more of it is written down than of the
//! connection's.

use std::borrow::Cow;
use std::net::IpAddr;

use millrace_event::json::{Kind, Value};
use millrace_store::keys::IpPolicy;
use serde_json::value::RawValue;

use super::rewrite::Object;

const IP: &str = "ip";

/// What the context becomes: `changed`, where the batch has changed it, else `own`, with as much of its address as
/// the policy keeps. None where it stays as it was sent.
pub(super) fn kept<'a>(
    own: Option<Value<'_>>,
    changed: Option<Cow<'a, str>>,
    policy: IpPolicy,
) -> Option<Cow<'a, str>> {
    if policy == IpPolicy::Keep {
        return changed;
    }
    let masked = match &changed {
        // It is made of entries that were read as JSON.
        Some(text) => serde_json::from_str::<&RawValue>(text)
            .ok()
            .and_then(|text| masked(Value::from(text), policy)),
        None => own.and_then(|own| masked(own, policy)),
    };
    masked.map(Cow::Owned).or(changed)
}

fn masked(context: Value<'_>, policy: IpPolicy) -> Option<String> {
    if context.kind() != Kind::Object {
        return None;
    }
    let said = context.get(IP)?;
    // What is no address says nothing that may be kept.
    let address = said
        .as_str()
        .and_then(|said| said.text.trim().parse::<IpAddr>().ok());
    let mut text = Object::with_capacity(context.text().len());
    for (name, value) in context.entries() {
        if name.unescape().text != IP {
            text.entry(name.text(), value.text());
        }
    }
    if let Some(kept) = address.and_then(|address| policy.apply(address)) {
        // Nothing in an address needs an escape.
        text.entry("\"ip\"", &format!("\"{kept}\""));
    }
    Some(text.end())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(own: &str, policy: IpPolicy) -> Option<String> {
        let raw: &RawValue = serde_json::from_str(own).unwrap();
        kept(Some(Value::from(raw)), None, policy).map(Cow::into_owned)
    }

    #[test]
    fn the_address_in_a_context_is_kept_in_part_or_goes_however_it_is_spelled() {
        let context = r#"{"ip":"6.6.6.6","a":[1.50],"\u0069p":"203.0.113.9"}"#;
        assert_eq!(of(context, IpPolicy::Keep), None);
        assert_eq!(
            of(context, IpPolicy::Anonymize).as_deref(),
            Some(r#"{"a":[1.50],"ip":"203.0.113.0"}"#)
        );
        assert_eq!(of(context, IpPolicy::Drop).as_deref(), Some(r#"{"a":[1.50]}"#));
        let long = r#"{"ip":" 2001:db8:1:2::3 "}"#;
        assert_eq!(
            of(long, IpPolicy::Anonymize).as_deref(),
            Some(r#"{"ip":"2001:db8:1::"}"#)
        );
        for none in [
            r#"{"ip":"203.0.113"}"#,
            r#"{"ip":["203.0.113.9"]}"#,
            r#"{"ip":null}"#,
        ] {
            assert_eq!(of(none, IpPolicy::Anonymize).as_deref(), Some("{}"), "{none}");
        }
        for stays in [r#"{"a":1}"#, r#"["203.0.113.9"]"#, "null"] {
            assert_eq!(of(stays, IpPolicy::Drop), None, "{stays}");
        }
    }

    #[test]
    fn what_the_batch_added_is_judged_too() {
        let changed = || Some(Cow::Borrowed(r#"{"ip":"203.0.113.9","b":1}"#));
        let context = |policy| kept(None, changed(), policy).map(Cow::into_owned);
        assert_eq!(context(IpPolicy::Drop).as_deref(), Some(r#"{"b":1}"#));
        assert_eq!(context(IpPolicy::Keep).as_deref(), changed().as_deref());
    }
}
