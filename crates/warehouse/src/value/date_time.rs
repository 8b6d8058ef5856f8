//! ISO 8601 date-times with an offset, over the whole range of four-digit years.
//!
//! Written out because calendar libraries end before 9999-12-31T23:59:59Z, which people use for "never".

use millrace_event::time::civil::{days_in_month, days_since_epoch};

/// 1900-01-01T00:00:00.000Z, the first point that `DateTime64(3)` holds, in milliseconds.
pub(crate) const MIN_MILLIS: i64 = -2_208_988_800_000;
/// 2299-12-31T23:59:59.999Z, the last one.
pub(crate) const MAX_MILLIS: i64 = 10_413_791_999_999;

/// A point in time as `DateTime64(3)` holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DateTime {
    /// Milliseconds since the epoch, moved to the nearest point in range.
    pub(crate) millis: i64,
    /// Whether that is the point that the text names: in range, no finer than milliseconds, no leap second.
    pub(crate) exact: bool,
}

impl DateTime {
    /// Reads `YYYY-MM-DDTHH:MM:SS[.fraction](Z|±HH:MM)`, nothing else.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        // Cheap on what is not a date-time: most text ends here.
        let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
        if bytes.len() < 20 || marks.iter().any(|(at, mark)| bytes.get(*at) != Some(mark)) {
            return None;
        }
        let number = |from, to| digits(bytes.get(from..to)?);
        let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
        let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
        let valid = (1..=12).contains(&month)
            && (1..=days_in_month(year, month)).contains(&day)
            && hour < 24
            && minute < 60
            && second <= 60;
        if !valid {
            return None;
        }
        let (fraction, offset) = split_fraction(bytes.get(19..)?)?;
        let (fraction_millis, fraction_exact) = fraction_millis(fraction)?;
        let leap = second == 60;
        let seconds = ((days_since_epoch(year, month, day) * 24 + hour) * 60 + minute) * 60 + second.min(59)
            - offset_seconds(offset)?;
        let millis = seconds * 1000 + fraction_millis;
        let clamped = Self::clamped(millis);
        Some(Self {
            exact: clamped.exact && fraction_exact && !leap,
            ..clamped
        })
    }

    /// The nearest point in range.
    pub(crate) fn clamped(millis: i64) -> Self {
        let within = millis.clamp(MIN_MILLIS, MAX_MILLIS);
        Self {
            millis: within,
            exact: within == millis,
        }
    }

    /// The eight bytes of the column.
    pub(crate) const fn bits(self) -> u64 {
        self.millis.cast_unsigned()
    }
}

fn digits(bytes: &[u8]) -> Option<i64> {
    bytes.iter().try_fold(0, |number, byte| {
        byte.is_ascii_digit()
            .then(|| number * 10 + i64::from(byte - b'0'))
    })
}

/// The digits behind the point (none where there is no point), and what follows.
fn split_fraction(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let Some((b'.', behind)) = rest.split_first() else {
        return Some((&[], rest));
    };
    let length = behind.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (length > 0).then(|| behind.split_at(length))
}

/// Milliseconds, cut off, and whether that is all.
fn fraction_millis(fraction: &[u8]) -> Option<(i64, bool)> {
    let (kept, rest) = fraction.split_at(fraction.len().min(3));
    let millis = digits(kept)? * [1, 100, 10, 1].get(kept.len()).copied()?;
    Some((millis, rest.iter().all(|digit| *digit == b'0')))
}

fn offset_seconds(offset: &[u8]) -> Option<i64> {
    match offset {
        b"Z" => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (digits(&[*h1, *h2])?, digits(&[*m1, *m2])?);
            let seconds = (hours * 60 + minutes) * 60;
            (hours < 24 && minutes < 60).then_some(if *sign == b'-' { -seconds } else { seconds })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_form_is_taken_strictly() {
        for text in [
            "2026-11-21T04:00:00",
            "2026-11-21 04:00:00Z",
            "2026-11-21T04:00Z",
            "2026-11-21T04:00:00.Z",
            "2026-11-21T04:00:00z",
            "2026-02-29T04:00:00Z",
            "2026-11-21T24:00:00Z",
            "2026-11-21T04:00:61Z",
            "2026-11-21T04:00:00+0100",
            "2026-11-21T04:00:00+24:00",
            "2026-11-21T04:00:00Z[UTC]",
            "+002026-11-21T04:00:00Z",
            "éééééééééééééé",
            "",
        ] {
            assert_eq!(DateTime::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_the_column_cannot_hold_is_clamped_and_said_so() {
        for (text, millis, exact) in [
            ("1900-01-01T00:00:00Z", MIN_MILLIS, true),
            ("1899-12-31T23:59:59.999Z", MIN_MILLIS, false),
            ("2299-12-31T23:59:59.999Z", MAX_MILLIS, true),
            ("2300-01-01T00:00:00Z", MAX_MILLIS, false),
            ("0000-01-01T00:00:00Z", MIN_MILLIS, false),
            ("9999-12-31T23:59:59.999999-23:59", MAX_MILLIS, false),
            ("1970-01-01T00:00:00.0010000Z", 1, true),
            ("1970-01-01T00:00:00.0019Z", 1, false),
            ("1969-12-31T23:59:59.999Z", -1, true),
            ("2016-12-31T23:59:60Z", 1_483_228_799_000, false),
        ] {
            assert_eq!(DateTime::parse(text), Some(DateTime { millis, exact }), "{text}");
        }
    }

    proptest! {
        #[test]
        fn it_reads_what_the_calendar_library_writes(millis in MIN_MILLIS..=MAX_MILLIS, offset in -1439..1440_i32) {
            let timestamp = jiff::Timestamp::from_millisecond(millis).expect("in range");
            let zone = jiff::tz::TimeZone::fixed(jiff::tz::Offset::from_seconds(offset * 60).expect("an offset"));
            let text = timestamp.to_zoned(zone).strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string();
            prop_assert_eq!(DateTime::parse(&text), Some(DateTime { millis, exact: true }), "{}", text);
        }

        #[test]
        fn nothing_makes_it_panic(text in "[0-9TZ:.+-]{0,30}|.{0,30}") {
            if let Some(date_time) = DateTime::parse(&text) {
                prop_assert!((MIN_MILLIS..=MAX_MILLIS).contains(&date_time.millis));
            }
        }
    }
}
