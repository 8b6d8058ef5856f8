//! A text that is known to be JSON, as `serde_json` holds one: its own constructors read all of it again.

use serde::de::value::{BorrowedStrDeserializer, MapDeserializer};
use serde::de::{Deserialize, Deserializer, Visitor};
use serde_json::value::RawValue;

/// The text as a raw value, as it is. It must be JSON without white space around it: what holds a raw value relies on that.
/// Nothing where `serde_json` hands raw values over in another way than this: read the text then.
pub fn known(text: &str) -> Option<&RawValue> {
    <&RawValue>::deserialize(Known(text)).ok()
}

/// What `serde_json` itself hands to a raw value: a map of one entry, whose key it names when it asks for the value.
struct Known<'a>(&'a str);

impl<'de> Deserializer<'de> for Known<'de> {
    type Error = serde::de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_borrowed_str(self.0)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        let entry = (
            BorrowedStrDeserializer::new(name),
            BorrowedStrDeserializer::new(self.0),
        );
        visitor.visit_map(MapDeserializer::new(std::iter::once(entry)))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct seq
        tuple tuple_struct map struct enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_text_is_what_serde_json_makes_of_it() {
        for text in [
            r#"{"a":[1,"\u00e9é"]}"#,
            "null",
            &format!(r#"{{"a":"{}"}}"#, "x".repeat(5000)),
        ] {
            let own = known(text).expect("this version hands raw values over so");
            let theirs: &RawValue = serde_json::from_str(text).expect("JSON");
            assert_eq!((own.get(), own.get().as_ptr()), (theirs.get(), text.as_ptr()));
            assert_eq!(
                serde_json::to_string(&[own]).expect("plain"),
                serde_json::to_string(&[theirs]).expect("plain")
            );
        }
    }
}
