use super::*;
use proptest::prelude::*;
use serde_json::value::RawValue;

fn raw(text: &str) -> Box<RawValue> {
    serde_json::from_str(text).expect("valid JSON")
}

fn type_of(text: &str) -> Option<String> {
    type_for(Value::from(&*raw(text))).map(|column| column.to_string())
}

/// `cell`, with `+source` where the text is kept as well; `extra`; `conflict`.
fn outcome(column: &str, text: &str) -> String {
    let raw = raw(text);
    match fit(&ColumnType::parse(column), Value::from(&*raw)) {
        Fit::Column { cell, keep_source } => format!("{cell:?}{}", if keep_source { "+source" } else { "" }),
        Fit::Extra => "extra".to_owned(),
        Fit::Conflict => "conflict".to_owned(),
    }
}

#[test]
fn a_new_column_has_the_type_of_its_first_value() {
    for (text, column) in [
        ("1", Some("Nullable(Float64)")),
        ("-12.50", Some("Nullable(Float64)")),
        ("9007199254740992", Some("Nullable(Float64)")),
        ("9007199254740993", None),
        ("18446744073709551616", Some("Nullable(Float64)")),
        ("123456789012345678901234567890", None),
        ("1e400", None),
        ("true", Some("Nullable(Bool)")),
        ("\"\"", Some("String")),
        ("\"2026-11-21\"", Some("String")),
        ("\"2026-11-21T04:00:00Z\"", Some("Nullable(DateTime64(3, 'UTC'))")),
        ("\"9999-12-31T23:59:59Z\"", Some("Nullable(DateTime64(3, 'UTC'))")),
        ("null", None),
        ("{}", None),
        ("[]", None),
        ("[1,2.5]", Some("Array(Float64)")),
        ("[1,9007199254740993]", None),
        ("[\"a\",\"2026-11-21T04:00:00Z\"]", Some("Array(String)")),
        ("[\"2026-11-21T04:00:00Z\"]", Some("Array(DateTime64(3, 'UTC'))")),
        ("[true]", Some("Array(Bool)")),
        ("[1,\"a\"]", None),
        ("[1,null]", None),
        ("[[1]]", None),
        ("[{\"a\":1}]", None),
        ("-0", Some("Nullable(Float64)")),
        ("1E+2", Some("Nullable(Float64)")),
        ("1e-400", Some("Nullable(Float64)")),
    ] {
        assert_eq!(type_of(text).as_deref(), column, "{text}");
    }
}

#[test]
fn what_fits_its_column_is_taken_as_it_is() {
    for (column, text, expected) in [
        ("Nullable(Float64)", "1.5", format!("Bits({})", 1.5_f64.to_bits())),
        ("Nullable(Bool)", "true", "Bits(1)".to_owned()),
        ("Int64", "-9223372036854775808", format!("Bits({})", 1_u64 << 63)),
        ("UInt64", "18446744073709551615", format!("Bits({})", u64::MAX)),
        (
            "Nullable(Int64)",
            "9007199254740993",
            "Bits(9007199254740993)".to_owned(),
        ),
        ("Float32", "0.5", format!("Bits({})", 0.5_f32.to_bits())),
        ("String", "\"17\"", "Text(\"17\")".to_owned()),
        (
            "LowCardinality(Nullable(String))",
            "\"\"",
            "Text(\"\")".to_owned(),
        ),
        (
            "DateTime64(3)",
            "\"1970-01-01T00:00:01Z\"",
            "Bits(1000)".to_owned(),
        ),
        ("Array(String)", "[\"a\"]", "List([Text(\"a\")])".to_owned()),
        ("Array(String)", "[]", "List([])".to_owned()),
    ] {
        assert_eq!(outcome(column, text), expected, "{text} in {column}");
    }
}

#[test]
fn nothing_is_converted_to_fit() {
    for (column, text) in [
        ("Int64", "1.9"),
        ("Int64", "10.0"),
        ("Int64", "1e2"),
        ("Int64", "9223372036854775808"),
        ("UInt8", "256"),
        ("UInt8", "-1"),
        ("Nullable(Float64)", "\"17\""),
        ("Nullable(Float64)", "true"),
        ("Float32", "0.1"),
        ("String", "17"),
        ("String", "[\"a\"]"),
        ("Nullable(Bool)", "1"),
        ("Nullable(DateTime64(3))", "\"yesterday\""),
        ("Nullable(DateTime64(3))", "1795233600120"),
        ("Array(Float64)", "[\"1\"]"),
        ("Array(Float64)", "1"),
        ("Decimal(18, 2)", "1"),
    ] {
        assert_eq!(outcome(column, text), "conflict", "{text} in {column}");
    }
}

#[test]
fn what_a_column_would_change_is_left_to_extra() {
    for (column, text) in [
        ("Nullable(Float64)", "9007199254740993"),
        ("Nullable(Float64)", "1e400"),
        ("Nullable(Float64)", "null"),
        ("String", "{}"),
        ("String", "[{\"a\":1}]"),
        ("String", "[]"),
        ("Array(Float64)", "[1,null]"),
        ("Array(Float64)", "[9007199254740993]"),
        ("UUID", "null"),
    ] {
        assert_eq!(outcome(column, text), "extra", "{text} in {column}");
    }
}

#[test]
fn what_a_column_says_less_exactly_is_kept_as_well() {
    assert_eq!(outcome("String", r#""a\ud800""#), "Text(\"a\u{fffd}\")+source");
    assert_eq!(
        outcome("Array(String)", r#"["a\ud800"]"#),
        "List([Text(\"a\u{fffd}\")])+source"
    );
    assert_eq!(
        outcome("DateTime64(3)", "\"1970-01-01T00:00:00.0001Z\""),
        "Bits(0)+source"
    );
    assert_eq!(
        outcome("DateTime64(3)", "\"9999-12-31T23:59:59Z\""),
        format!("Bits({})+source", MAX_MILLIS.cast_unsigned())
    );
    assert_eq!(
        outcome("DateTime64(3)", "\"0001-01-01T00:00:00Z\""),
        format!("Bits({})+source", MIN_MILLIS.cast_unsigned())
    );
}

proptest! {
    #[test]
    fn an_integer_is_taken_for_a_float_only_when_it_comes_back(number: i128) {
        let text = number.to_string();
        let taken = float64(&text);
        let comes_back = taken.is_none_or(|float| format!("{float:.0}") == text);
        prop_assert!(comes_back, "{}", text);
        if number.unsigned_abs() <= 1 << 53 {
            prop_assert!(taken.is_some());
        }
    }

    #[test]
    fn a_new_column_takes_the_value_it_was_made_for(value in json()) {
        let raw = raw(&value);
        let value = Value::from(&*raw);
        if let Some(column) = type_for(value) {
            let taken = matches!(fit(&column, value), Fit::Column { .. });
            prop_assert!(taken, "{} in {column}", value.text());
        }
    }
}

fn json() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![
        any::<f64>()
            .prop_filter("JSON", |f| f.is_finite())
            .prop_map(|f| f.to_string()),
        any::<i64>().prop_map(|i| i.to_string()),
        any::<bool>().prop_map(|b| b.to_string()),
        any::<String>().prop_map(|s| serde_json::to_string(&s).expect("a string")),
        (0..4_000_000_000_000_i64)
            .prop_map(|ms| format!("\"{}\"", jiff::Timestamp::from_millisecond(ms).expect("in range"))),
        Just("null".to_owned()),
    ];
    prop_oneof![
        scalar.clone(),
        proptest::collection::vec(scalar, 0..4).prop_map(|items| format!("[{}]", items.join(",")))
    ]
}
