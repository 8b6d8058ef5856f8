//! A reader of Native blocks that is as strict as the server, and knows nothing of how they are written.

use std::collections::BTreeMap;

/// A value as a block holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Held {
    Null,
    Bits(u64),
    Text(String),
    List(Vec<Held>),
}

/// The columns of one block, each with `rows` values, and nothing behind them.
pub(super) fn read(body: &[u8], rows: usize) -> BTreeMap<String, Vec<Held>> {
    let mut reader = Reader { rest: body };
    let columns = reader.varint();
    assert_eq!(
        reader.varint(),
        rows as u64,
        "the block says how many rows it has"
    );
    let mut held = BTreeMap::new();
    for _ in 0..columns {
        let (name, kind) = (reader.text(), reader.text());
        let values = reader.column(&kind, rows);
        assert_eq!(values.len(), rows, "{name}: a value for each row");
        assert!(held.insert(name, values).is_none(), "a column is there once");
    }
    assert!(reader.rest.is_empty(), "nothing stands behind the last column");
    held
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    #[expect(clippy::expect_used, reason = "a fuzz target reports by panicking")]
    fn take(&mut self, length: usize) -> Vec<u8> {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .expect("the block is long enough");
        self.rest = rest;
        taken.to_vec()
    }

    fn number(&mut self, width: usize) -> u64 {
        let bytes = self.take(width);
        bytes
            .iter()
            .rev()
            .fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    fn varint(&mut self) -> u64 {
        let mut number = 0;
        for shift in 0..10 {
            let byte = self.number(1);
            number |= (byte & 0x7f) << (7 * shift);
            if byte < 0x80 {
                return number;
            }
        }
        panic!("a number ends within ten bytes")
    }

    #[expect(clippy::expect_used, reason = "a fuzz target reports by panicking")]
    fn text(&mut self) -> String {
        let length = usize::try_from(self.varint()).expect("a length");
        String::from_utf8(self.take(length)).expect("text is UTF-8")
    }

    fn column(&mut self, kind: &str, rows: usize) -> Vec<Held> {
        let inside = |outer: &str| kind.strip_prefix(outer)?.strip_suffix(')');
        if let Some(inner) = inside("Nullable(") {
            let nulls = self.take(rows);
            let values = self.column(inner, rows);
            let value = |(null, value)| match null {
                0 => value,
                1 => Held::Null,
                other => panic!("{other} is neither null nor not"),
            };
            return nulls.into_iter().zip(values).map(value).collect();
        }
        if let Some(inner) = inside("Array(") {
            let ends: Vec<u64> = (0..rows).map(|_| self.number(8)).collect();
            assert!(ends.is_sorted(), "arrays end one after the other");
            let all = ends.last().copied().unwrap_or(0);
            let mut items = self
                .column(inner, usize::try_from(all).unwrap_or(usize::MAX))
                .into_iter();
            let mut start = 0;
            let mut list = |end: u64| {
                let length = usize::try_from(end - start).unwrap_or(usize::MAX);
                start = end;
                Held::List(items.by_ref().take(length).collect())
            };
            return ends.into_iter().map(&mut list).collect();
        }
        if let Some(inner) = inside("LowCardinality(") {
            return self.dictionary(inner, rows);
        }
        if kind == "String" {
            return (0..rows).map(|_| Held::Text(self.text())).collect();
        }
        let width = match kind {
            "Bool" | "UInt8" | "Int8" => 1,
            "UInt16" | "Int16" => 2,
            "UInt32" | "Int32" | "Float32" => 4,
            "UInt64" | "Int64" | "Float64" => 8,
            time if time.starts_with("DateTime64(3") => 8,
            other => panic!("{other} is no type that is ever sent"),
        };
        (0..rows)
            .map(|_| {
                let bits = self.number(width);
                assert!(kind != "Bool" || bits <= 1, "a truth value is 0 or 1");
                Held::Bits(bits)
            })
            .collect()
    }

    #[expect(clippy::expect_used, reason = "a fuzz target reports by panicking")]
    fn dictionary(&mut self, inner: &str, rows: usize) -> Vec<Held> {
        const ADDITIONAL_KEYS: u64 = 1 << 9;
        const UPDATE: u64 = 1 << 10;
        assert_eq!(self.number(8), 1, "the only version of keys there is");
        let flags = self.number(8);
        assert_eq!(
            flags & !0xff,
            ADDITIONAL_KEYS | UPDATE,
            "the keys are in the block"
        );
        let width = 1_usize << (flags & 0xff);
        let keys = usize::try_from(self.number(8)).expect("a count");
        let keys: Vec<String> = (0..keys).map(|_| self.text()).collect();
        assert_eq!(
            keys.first().map_or("", String::as_str),
            "",
            "the first key stands for what is missing"
        );
        assert_eq!(self.number(8), rows as u64, "an index for each row");
        let nullable = inner == "Nullable(String)";
        (0..rows)
            .map(|_| match usize::try_from(self.number(width)) {
                Ok(0) if nullable => Held::Null,
                index => {
                    let key = index.ok().and_then(|index| keys.get(index));
                    Held::Text(key.expect("an index of a key").clone())
                }
            })
            .collect()
    }
}
