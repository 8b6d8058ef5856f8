//! JSON values against column types: what fits, what a new column would be, what only `extra` can keep.

mod date_time;

use millrace_event::json::{Kind, Value};

use crate::column_type::{ColumnType, Scalar};
use crate::native::Cell;
pub(crate) use date_time::DateTime;
#[cfg(test)]
pub(crate) use date_time::{MAX_MILLIS, MIN_MILLIS};

/// A value beside the type of its column.
#[derive(Debug)]
pub(crate) enum Fit<'a> {
    /// The column takes it. `keep_source`: the column says less than the source did, so `extra` keeps the text.
    Column { cell: Cell<'a>, keep_source: bool },
    /// No column takes it without changing it: it goes to `extra` alone.
    Extra,
    /// The column is of another type.
    Conflict,
}

/// The type that a column made for this value gets; nothing for what only `extra` can keep.
///
/// Text becomes `String`, text that is an ISO 8601 date-time with its offset `DateTime64(3)`, plain arrays
/// `Array(T)`. Numbers that `Float64` would change make no column.
pub(crate) fn type_for(value: Value<'_>) -> Option<ColumnType> {
    match value.kind() {
        Kind::Bool => Some(ColumnType::Nullable(Scalar::Bool)),
        Kind::Number => float64(value.text()).map(|_| ColumnType::Nullable(Scalar::Float64)),
        Kind::String if is_date_time(value) => Some(ColumnType::Nullable(Scalar::DateTime64)),
        Kind::String => Some(ColumnType::Plain(Scalar::String)),
        Kind::Array => type_for_items(value).map(ColumnType::Array),
        Kind::Object | Kind::Null => None,
    }
}

fn type_for_items(list: Value<'_>) -> Option<Scalar> {
    match kind_of_items(list)? {
        Kind::Bool => Some(Scalar::Bool),
        Kind::Number => list
            .items()
            .all(|item| float64(item.text()).is_some())
            .then_some(Scalar::Float64),
        Kind::String if list.items().all(is_date_time) => Some(Scalar::DateTime64),
        Kind::String => Some(Scalar::String),
        Kind::Object | Kind::Array | Kind::Null => None,
    }
}

/// The kind that all items of a plain array share; nothing for an empty, mixed or nested one.
fn kind_of_items(list: Value<'_>) -> Option<Kind> {
    let first = list.kind_of_first_item()?;
    let plain = matches!(first, Kind::Bool | Kind::Number | Kind::String);
    (plain && list.items().all(|item| item.kind() == first)).then_some(first)
}

/// What becomes of `value` in a column of type `column`.
///
/// Nothing is converted: a number is no text, `1.9` is no integer, `"17"` is no number. `null`, objects, arrays
/// that are not plain and numbers that `Float64` would change are for `extra` whatever the column is.
pub(crate) fn fit<'a>(column: &ColumnType, value: Value<'a>) -> Fit<'a> {
    match value.kind() {
        Kind::Null | Kind::Object => Fit::Extra,
        Kind::Array => fit_list(column, value),
        Kind::Bool | Kind::Number | Kind::String => match column {
            ColumnType::Plain(scalar) | ColumnType::Nullable(scalar) => fit_scalar(*scalar, value),
            ColumnType::LowCardinality | ColumnType::LowCardinalityNullable => {
                fit_scalar(Scalar::String, value)
            }
            ColumnType::Array(_) | ColumnType::Other => Fit::Conflict,
        },
    }
}

fn fit_scalar(scalar: Scalar, value: Value<'_>) -> Fit<'_> {
    match (scalar, value.kind()) {
        (Scalar::Bool, Kind::Bool) => bits(u64::from(value.as_bool() == Some(true))),
        (Scalar::UInt(width), Kind::Number) => {
            let in_range = |number: &i128| (0..1_i128 << width).contains(number);
            integer(value.text())
                .filter(in_range)
                .map_or(Fit::Conflict, |number| bits(low_bits(number)))
        }
        (Scalar::Int(width), Kind::Number) => {
            let half = 1_i128 << (width - 1);
            let in_range = |number: &i128| (-half..half).contains(number);
            integer(value.text())
                .filter(in_range)
                .map_or(Fit::Conflict, |number| bits(low_bits(number)))
        }
        (Scalar::Float64, Kind::Number) => {
            float64(value.text()).map_or(Fit::Extra, |number| bits(number.to_bits()))
        }
        (Scalar::Float32, Kind::Number) => match value.text().parse::<f32>() {
            Ok(number) if float64(value.text()) == Some(f64::from(number)) => {
                bits(u64::from(number.to_bits()))
            }
            _ => Fit::Conflict,
        },
        (Scalar::DateTime64, Kind::String) => {
            let parsed = value.as_str().and_then(|string| DateTime::parse(&string.text));
            parsed.map_or(Fit::Conflict, |date_time| Fit::Column {
                cell: Cell::Bits(date_time.bits()),
                keep_source: !date_time.exact,
            })
        }
        (Scalar::String, Kind::String) => value.as_str().map_or(Fit::Conflict, |string| Fit::Column {
            keep_source: string.lossy,
            cell: Cell::Text(string.text),
        }),
        _ => Fit::Conflict,
    }
}

fn fit_list<'a>(column: &ColumnType, list: Value<'a>) -> Fit<'a> {
    let empty = list.kind_of_first_item().is_none();
    let plain = kind_of_items(list).is_some();
    if !plain && !empty {
        return Fit::Extra;
    }
    let ColumnType::Array(scalar) = column else {
        return if empty { Fit::Extra } else { Fit::Conflict };
    };
    let mut keep_any = false;
    let mut cells = Vec::new();
    for item in list.items() {
        match fit_scalar(*scalar, item) {
            Fit::Column { cell, keep_source } => {
                keep_any |= keep_source;
                cells.push(cell);
            }
            other => return other,
        }
    }
    Fit::Column {
        cell: Cell::List(cells),
        keep_source: keep_any,
    }
}

/// What a value is called in an error.
pub(crate) fn name_of_kind(value: Value<'_>) -> &'static str {
    match value.kind() {
        Kind::Object => "object",
        Kind::Array => "array",
        Kind::String => "string",
        Kind::Number => "number",
        Kind::Bool => "boolean",
        Kind::Null => "null",
    }
}

fn bits(bits: u64) -> Fit<'static> {
    Fit::Column {
        cell: Cell::Bits(bits),
        keep_source: false,
    }
}

/// An integer written as one: no fraction, no exponent.
fn integer(text: &str) -> Option<i128> {
    text.parse().ok()
}

/// The nearest `Float64`; nothing for an integer that it would change and for what is beyond its range.
fn float64(text: &str) -> Option<f64> {
    let number: f64 = text.parse().ok().filter(|number: &f64| number.is_finite())?;
    // Every integer of up to 15 digits is below 2^53.
    let written_as_integer = text.len() > 15 && text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    if written_as_integer && !integer(text).is_some_and(is_float64) {
        return None;
    }
    Some(number)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "the point is to see whether the way there and back changes the number; the way back saturates"
)]
fn is_float64(number: i128) -> bool {
    let there = number as f64;
    there as i128 == number
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "two's complement: the column takes as many of the low bytes as it is wide"
)]
const fn low_bits(number: i128) -> u64 {
    number as u64
}

fn is_date_time(value: Value<'_>) -> bool {
    value
        .as_str()
        .is_some_and(|string| DateTime::parse(&string.text).is_some())
}

#[cfg(test)]
mod tests;
