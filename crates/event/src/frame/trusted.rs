//! A text that is known to be JSON, as `serde_json` holds one: its own ways to make one read all of it again.
#![expect(
    unsafe_code,
    reason = "serde_json offers no way without reading the text; the one conversion here is all there is of it"
)]

use serde_json::value::RawValue;

/// The text as a [`RawValue`]. The text must be JSON, without white space around it: what holds a `RawValue` relies on that
/// for its meaning, though not for its safety.
pub(super) fn trusted(text: Box<str>) -> Box<RawValue> {
    const { assert!(size_of::<&RawValue>() == size_of::<&str>()) };
    // SAFETY: `RawValue` is `#[repr(transparent)]` around `str`, and `serde_json` makes its own out of boxes in this way; the
    // pointer comes from a box of the same size and alignment. A version of `serde_json` in which that is otherwise shows in
    // the tests of this module, and Cargo.lock names the version.
    unsafe { Box::from_raw(Box::into_raw(text) as *mut RawValue) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trusted_text_is_what_serde_json_makes_of_it() {
        for text in [
            r#"{"a":[1,"\u00e9é"]}"#,
            "null",
            &format!(r#"{{"a":"{}"}}"#, "x".repeat(5000)),
        ] {
            let own = trusted(text.into());
            let theirs = RawValue::from_string(text.to_owned()).expect("JSON");
            assert_eq!(own.get(), theirs.get());
            assert_eq!(
                serde_json::to_string(&[&own]).expect("plain"),
                serde_json::to_string(&[&theirs]).expect("plain")
            );
            let text: Box<str> = own.into();
            assert_eq!(&*text, theirs.get());
        }
    }
}
