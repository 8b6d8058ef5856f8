//! Points in time as they cross a boundary: milliseconds since the epoch, RFC 3339 in JSON.

pub mod civil;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Milliseconds since 1970-01-01T00:00:00Z, between the years 1 and 9999. Sub-millisecond digits are cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// 0001-01-01T00:00:00.000Z, in milliseconds.
const MIN: i64 = -62_135_596_800_000;
/// 9999-12-31T00:00:00.000Z, in milliseconds: what the calendar library can still print, whatever the hour.
const MAX: i64 = 253_402_214_400_000;

impl Timestamp {
    /// The point `millis` milliseconds after the epoch; `None` outside the years 1 to 9999.
    pub fn from_millis(millis: i64) -> Option<Self> {
        (MIN..=MAX).contains(&millis).then_some(Self(millis))
    }

    /// As [`Self::from_millis`], with what lies outside moved to the nearest point inside.
    pub fn clamped_from_millis(millis: i64) -> Self {
        Self(millis.clamp(MIN, MAX))
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// The difference `self - earlier` in milliseconds; negative when `earlier` is later.
    pub const fn millis_since(self, earlier: Self) -> i64 {
        self.0 - earlier.0
    }
}

/// The text of a [`Timestamp`], `YYYY-MM-DDTHH:MM:SS.mmmZ`. Every envelope has two of them; the calendar library takes ten
/// times as long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text([u8; 24]);

impl Text {
    /// As text.
    pub fn as_str(&self) -> &str {
        // Digits and punctuation.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl Timestamp {
    /// Its text, in RFC 3339.
    pub fn text(self) -> Text {
        const DAY: i64 = 24 * 60 * 60 * 1000;
        let (days, millis) = (self.0.div_euclid(DAY), self.0.rem_euclid(DAY));
        let (year, month, day) = civil::date_of(days);
        let (seconds, millis) = (millis / 1000, millis % 1000);
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        let mut text = *b"0000-00-00T00:00:00.000Z";
        // Years have four digits: the range is checked where the value is made.
        for (last, digits, mut number) in [
            (3, 4, year),
            (6, 2, month),
            (9, 2, day),
            (12, 2, hour),
            (15, 2, minute),
            (18, 2, second),
            (22, 3, millis),
        ] {
            for place in 0..digits {
                if let (Some(byte), Ok(digit)) = (text.get_mut(last - place), u8::try_from(number % 10)) {
                    *byte = b'0' + digit;
                }
                number /= 10;
            }
        }
        Text(text)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text().as_str())
    }
}

impl FromStr for Timestamp {
    type Err = ParseError;

    /// Reads RFC 3339 / ISO 8601 with an offset or `Z`; a date-time without one is taken as UTC.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        if let Some(own) = own_form(text) {
            return Self::from_millis(own).ok_or(ParseError);
        }
        let parsed = text
            .parse::<jiff::Timestamp>()
            .or_else(|error| {
                // A civil date-time only: with an annotation in brackets the meaning would be guessed.
                let civil = text.parse::<jiff::civil::DateTime>().map_err(|_| error)?;
                civil
                    .to_zoned(jiff::tz::TimeZone::UTC)
                    .map(|zoned| zoned.timestamp())
            })
            .map_err(|_| ParseError)?;
        Self::from_millis(parsed.as_millisecond()).ok_or(ParseError)
    }
}

/// Milliseconds since the epoch, where the text has the one form that [`Timestamp`]s are written in,
/// `YYYY-MM-DDTHH:MM:SS.mmmZ`. Every envelope has it; the calendar library looks for many others.
fn own_form(text: &str) -> Option<i64> {
    let bytes: &[u8; 24] = text.as_bytes().try_into().ok()?;
    let marks = [
        (4, b'-'),
        (7, b'-'),
        (10, b'T'),
        (13, b':'),
        (16, b':'),
        (19, b'.'),
        (23, b'Z'),
    ];
    if marks.iter().any(|(at, mark)| bytes.get(*at) != Some(mark)) {
        return None;
    }
    let number = |from, to| {
        let digits: &[u8] = bytes.get(from..to)?;
        digits.iter().try_fold(0_i64, |number, byte| {
            byte.is_ascii_digit()
                .then(|| number * 10 + i64::from(byte - b'0'))
        })
    };
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second, millis) = (number(11, 13)?, number(14, 16)?, number(17, 19)?, number(20, 23)?);
    let valid = (1..=12).contains(&month)
        && (1..=civil::days_in_month(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    let days = valid.then(|| civil::days_since_epoch(year, month, day))?;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000 + millis)
}

/// The text is not a date-time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 3339 date-time")]
pub struct ParseError;

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text().as_str())
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_text_form_has_three_digits_and_a_z() {
        assert_eq!(Timestamp(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(
            Timestamp(1_795_233_600_120).to_string(),
            "2026-11-21T04:00:00.120Z"
        );
        assert_eq!(Timestamp(MIN).to_string(), "0001-01-01T00:00:00.000Z");
        assert_eq!(Timestamp(MAX).to_string(), "9999-12-31T00:00:00.000Z");
        assert_eq!(Timestamp(-1).to_string(), "1969-12-31T23:59:59.999Z");
    }

    #[test]
    fn what_clients_send_is_read() {
        for (text, millis) in [
            ("2026-11-21T04:00:00.120Z", 1_795_233_600_120),
            ("2026-11-21T05:00:00.120999+01:00", 1_795_233_600_120),
            ("2026-11-21T04:00:00.120", 1_795_233_600_120),
            ("2026-11-21 04:00:00.120Z", 1_795_233_600_120),
        ] {
            assert_eq!(text.parse(), Ok(Timestamp(millis)), "{text}");
        }
        for text in [
            "",
            "yesterday",
            "1795233600120",
            "2026-13-01T00:00:00Z",
            "04:00:00",
        ] {
            assert_eq!(text.parse::<Timestamp>(), Err(ParseError), "{text}");
        }
    }

    #[test]
    fn what_is_not_quite_the_own_form_is_left_to_the_calendar_library() {
        for text in [
            "2026-11-21T04:00:60.120Z",
            "2026-02-29T04:00:00.120Z",
            "2026-11-21 04:00:00.120Z",
            "2026-11-21T04:00:00,120Z",
            "2026-11-21T04:00:00.120z",
            "2026-11-21T04:00:00.12éZ",
            "+026-11-21T04:00:00.120Z",
        ] {
            assert_eq!(own_form(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_point_in_range_reads_back(millis in MIN..=MAX) {
            let timestamp = Timestamp::from_millis(millis).expect("in range");
            prop_assert_eq!(timestamp.to_string().parse(), Ok(timestamp));
        }

        #[test]
        fn the_text_is_what_the_calendar_library_writes(millis in MIN..=MAX) {
            let theirs = jiff::Timestamp::from_millisecond(millis).expect("in range");
            prop_assert_eq!(Timestamp(millis).to_string(), format!("{theirs:.3}"));
        }

        #[test]
        fn the_own_form_is_read_as_the_calendar_library_reads_it(
            year in "[0-9]{4}", rest in "-(0[0-9]|1[0-3])-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-5][0-9][.][0-9]{3}Z",
        ) {
            let text = format!("{year}{rest}");
            let theirs: Option<jiff::Timestamp> = text.parse().ok();
            prop_assert_eq!(own_form(&text), theirs.map(jiff::Timestamp::as_millisecond), "{}", text);
        }
    }
}
