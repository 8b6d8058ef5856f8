use serde_json::json;

use super::*;

fn read(object: Value) -> Result<Settings, String> {
    let Value::Object(object) = object else {
        panic!("an object")
    };
    Settings::read(Kind::ClickHouse, &object).map_err(|error| error.to_string())
}

#[test]
fn what_is_set_is_stored_and_nothing_else() {
    for object in [
        json!({}),
        json!({"ttl_days": 90}),
        json!({"ttl_days": "never", "columns": 0, "extra_json": true}),
        json!({"layout": "shared"}),
        json!({"compression": "zstd"}),
        json!({"layout": "own", "cluster": "main-1"}),
        json!({"codec_text": "ZSTD(3)", "codec_time": "DoubleDelta, LZ4", "codec_number": "Gorilla, ZSTD(1)"}),
    ] {
        let settings = read(object.clone()).expect("settings");
        assert_eq!(settings.to_json(), object);
    }
}

#[test]
fn what_cannot_be_is_refused_with_what_would_be_right() {
    for (object, said) in [
        (
            json!({"ttl": 1}),
            "`ttl` is no setting of a clickhouse destination; these are: `ttl_days`,",
        ),
        (
            json!({"ttl_days": 0}),
            "`ttl_days` is a number of days from 1 to 65535, or `never`, not 0",
        ),
        (json!({"ttl_days": "for ever"}), "not \"for ever\""),
        (
            json!({"columns": 5001}),
            "`columns` is a number of columns up to 5000, not 5001",
        ),
        (json!({"extra_json": "yes"}), "`extra_json` is `true` or `false`"),
        (json!({"layout": "mine"}), "`layout` is `own` or `shared`"),
        (
            json!({"codec_text": "Delta, ZSTD(1)"}),
            "`codec_text` is a codec that takes text",
        ),
        (
            json!({"codec_time": "ZSTD(1)) TTL now("}),
            "`codec_time` is a codec such as",
        ),
        (
            json!({"compression": "gzip"}),
            "`compression` is `lz4` or `zstd`, not \"gzip\"",
        ),
        (
            json!({"layout": "shared", "compression": "zstd"}),
            "`compression` is of a table of one's own",
        ),
        (json!({"cluster": "a'b"}), "`cluster` is the name of a cluster"),
        (
            json!({"layout": "shared", "ttl_days": 1}),
            "`ttl_days` is of a table of one's own",
        ),
    ] {
        let refused = read(object.clone()).expect_err("refused");
        assert!(refused.contains(said), "{object}: {refused}");
    }
}

#[test]
fn null_unsets() {
    let mut settings = read(json!({"ttl_days": 90, "columns": 10})).expect("settings");
    settings.set("ttl_days", &Value::Null).expect("unset");
    assert_eq!(settings.to_json(), json!({"columns": 10}));
}

#[test]
fn a_codec_is_one_that_is_known() {
    for text in [
        "NONE",
        "LZ4",
        "LZ4HC(12)",
        "ZSTD",
        "ZSTD(22)",
        "Delta, ZSTD(1)",
        "Delta,LZ4",
    ] {
        assert!(text.parse::<Codec>().is_ok(), "{text}");
    }
    for text in [
        "",
        "ZSTD(0)",
        "ZSTD(23)",
        "LZ4(1)",
        "ZSTD(1), Delta",
        "Delta",
        "AES_128_GCM_SIV",
        "ZSTD(1",
        "ZSTD 1",
    ] {
        assert!(text.parse::<Codec>().is_err(), "{text}");
    }
}

#[test]
fn kinds_are_read_as_they_are_written() {
    for kind in Kind::ALL {
        assert_eq!(kind.as_str().parse(), Ok(kind));
    }
    assert!("mysql".parse::<Kind>().is_err());
}
