//! Query strings, as forms write them.

/// The value of the first parameter of that name.
pub(super) fn value(query: &str, name: &str) -> Option<String> {
    pairs(query).find_map(|(found, value)| (found == name).then_some(value))
}

/// The parameters in order.
pub(super) fn pairs(query: &str) -> impl Iterator<Item = (String, String)> + '_ {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name), decoded(value))
    })
}

/// Escapes resolved; broken ones stay as they are, and bytes that are not UTF-8 become U+FFFD.
pub(super) fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = (*first == b'%')
            .then(|| tail.first_chunk::<2>())
            .flatten()
            .and_then(hex);
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(if *first == b'+' { b' ' } else { *first });
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

fn hex(digits: &[u8; 2]) -> Option<u8> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let [high, low] = *digits;
    Some(digit(high)? << 4 | digit(low)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_escapes_stay_as_they_are() {
        assert_eq!(decoded("a%3ab%zz%4%+f"), "a:b%zz%4% f");
        assert_eq!(decoded("%ff"), "\u{fffd}");
    }

    #[test]
    fn the_first_of_equal_names_counts() {
        assert_eq!(value("a&b=1&b=2&c=", "b").as_deref(), Some("1"));
        assert_eq!(value("a&b=1", "a").as_deref(), Some(""));
        assert_eq!(value("a&b=1", "c"), None);
    }
}
