//! The one form that a forwarded event's envelope nearly always has, read without a general parser: the fields in the
//! order in which they are written, no white space between them, no escapes in ids and names. The event itself may
//! have any form. Whatever differs is left to `serde_json`, which reads the same from it.

use std::str::FromStr;

use super::{Origin, Output, Transformed};
use crate::code::Verdict;
use crate::envelope::{Text, V1};
use crate::json::check::{end_of_plain_string, end_of_value};
use crate::json::known;

/// Reads a value of that form; nothing for any other.
pub(super) fn read(value: &[u8]) -> Option<Transformed<'_>> {
    let text = std::str::from_utf8(value).ok()?;
    let mut plain = Plain { text, at: 0 };
    plain.skip(r#"{"version":1,"id":"#)?;
    let id = plain.parsed()?;
    plain.skip(r#","attempt":"#)?;
    let attempt = plain.number()?;
    plain.skip(r#","origin":{"workspace":"#)?;
    let workspace = plain.string()?;
    plain.skip(r#","source":"#)?;
    let source = plain.string()?;
    plain.skip(r#","message_id":"#)?;
    let message_id = plain.string()?;
    plain.skip(r#","received_at":"#)?;
    let received_at = plain.parsed()?;
    let sent_at = match plain.skip(r#","sent_at":"#) {
        Some(()) => Some(plain.parsed()?),
        None => None,
    };
    plain.skip(r#"},"verdict":"forward","outputs":["#)?;
    let mut outputs = Vec::with_capacity(1);
    loop {
        outputs.push(plain.output()?);
        if plain.skip(",").is_none() {
            break;
        }
    }
    plain.skip("]")?;
    let sub = match plain.skip(r#","sub":"#) {
        Some(()) => Some(plain.number()?),
        None => None,
    };
    plain.skip("}")?;
    (plain.at == text.len()).then_some(Transformed {
        version: V1,
        id,
        attempt,
        origin: Origin {
            workspace: Text::from(workspace),
            source: Text::from(source),
            message_id: Text::from(message_id),
            received_at,
            sent_at,
        },
        verdict: Verdict::Forward,
        outputs,
        sub,
        reason: None,
        resume: None,
        retry_after_ms: None,
        original: None,
    })
}

/// A place in a value.
struct Plain<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Plain<'a> {
    /// Steps over what must stand here; stays where it does not.
    #[inline]
    fn skip(&mut self, expected: &str) -> Option<()> {
        let end = self.at + expected.len();
        (self.text.as_bytes().get(self.at..end)? == expected.as_bytes()).then(|| self.at = end)
    }

    /// A string without escapes.
    fn string(&mut self) -> Option<&'a str> {
        let (start, end) = (self.at + 1, end_of_plain_string(self.text.as_bytes(), self.at)?);
        self.at = end;
        self.text.get(start..end - 1)
    }

    fn parsed<T: FromStr>(&mut self) -> Option<T> {
        self.string()?.parse().ok()
    }

    /// A number of digits alone.
    fn number<T: FromStr>(&mut self) -> Option<T> {
        let rest = self.text.get(self.at..)?;
        let length = rest.bytes().take_while(u8::is_ascii_digit).count();
        let digits = rest.get(..length)?;
        self.at += length;
        let canonical = digits == "0" || !digits.starts_with('0');
        canonical.then(|| digits.parse().ok())?
    }

    fn output(&mut self) -> Option<Output<'a>> {
        self.skip(r#"{"destination":"#)?;
        let destination = self.string()?;
        self.skip(r#","table":"#)?;
        let table = self.string()?;
        self.skip(r#","config_version":"#)?;
        let config_version = self.number()?;
        self.skip(r#","event":"#)?;
        let start = self.at;
        self.at = end_of_value(self.text.as_bytes(), start)?;
        let event = known(self.text.get(start..self.at)?)?;
        self.skip("}")?;
        Some(Output {
            destination: Text::from(destination),
            table: Text::from(table),
            config_version,
            event,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;
    use crate::envelope::Envelope as _;

    fn envelope(workspace: &str, event: &str, rest: (u32, Option<u16>, bool)) -> String {
        let (attempt, sub, twice) = rest;
        let event: &RawValue = serde_json::from_str(event).expect("JSON");
        let at = "2026-11-21T04:00:00.120Z".parse().expect("a time");
        let output = |table| Output {
            destination: Text::from("dst_1"),
            table: Text::from(table),
            config_version: 7,
            event,
        };
        let mut outputs = vec![output("a.events")];
        outputs.extend(twice.then(|| output("a.others")));
        let written = Transformed {
            version: V1,
            id: "00000000000000ab-3-17".parse().expect("an identity"),
            attempt,
            origin: Origin {
                workspace: Text::from(workspace),
                source: Text::from("src_1"),
                message_id: Text::from("m-1"),
                received_at: at,
                sent_at: twice.then_some(at),
            },
            verdict: Verdict::Forward,
            outputs,
            sub,
            reason: None,
            resume: None,
            retry_after_ms: None,
            original: None,
        };
        String::from_utf8(written.to_bytes()).expect("JSON is UTF-8")
    }

    /// Both ways of reading, as text: that of the plain form, where it has it, and `serde_json`'s.
    fn both(value: &[u8]) -> (Option<String>, Option<String>) {
        let shown = |envelope: Transformed<'_>| format!("{envelope:?}");
        (
            read(value).map(shown),
            serde_json::from_slice(value).ok().map(shown),
        )
    }

    #[test]
    fn what_is_written_is_of_the_plain_form_and_read_alike() {
        for event in [
            r#"{"a":1}"#,
            r#"{ "a" : [1.5e3, null] , "b\u0041" : "x\"\\\ud800" }"#,
            "17",
        ] {
            for rest in [(0, None, false), (3, Some(2), true)] {
                let written = envelope("ws_1", event, rest);
                let (plain, known) = both(written.as_bytes());
                assert_eq!(plain, known, "{written}");
                assert!(plain.is_some(), "{written}");
            }
        }
    }

    #[test]
    fn what_is_not_quite_of_the_plain_form_is_left_to_the_general_parser() {
        let written = envelope("ws_1", r#"{"a":1}"#, (0, None, false));
        for (from, to) in [
            (r#""version":1"#, r#""version":2"#),
            (r#""version":1"#, r#""version": 1"#),
            (r#""attempt":0"#, r#""attempt":00"#),
            (r#""attempt":0"#, r#""attempt":4294967296"#),
            ("ws_1", r"ws\u0031"),
            (r#"{"a":1}"#, r#"{"a":01}"#),
            ("forward", "drop"),
            ("-3-17", "-3-017"),
            (r#"]}"#, r#"]},"#),
        ] {
            let changed = written.replacen(from, to, 1);
            assert_ne!(changed, written);
            assert!(read(changed.as_bytes()).is_none(), "{changed}");
        }
        assert!(read(b"\xff").is_none());
    }

    proptest! {
        #[test]
        fn whatever_it_reads_the_general_parser_reads_alike(
            workspace in "[a-z\"\\\\é]{0,6}", at in any::<prop::sample::Index>(), byte in 0_u8..128, sub: Option<u16>,
        ) {
            let written = envelope(&workspace, r#"{"a":{"b":"x y","c":[1,2]},"d":-0.5}"#, (1, sub, true));
            let (plain, known) = both(written.as_bytes());
            prop_assert!(known.is_some());
            prop_assert!(plain.is_none() || plain == known);
            let mut changed = written.into_bytes();
            let at = at.index(changed.len());
            if let Some(place) = changed.get_mut(at) {
                *place = byte;
            }
            let (plain, known) = both(&changed);
            prop_assert!(plain.is_none() || plain == known);
        }
    }
}
